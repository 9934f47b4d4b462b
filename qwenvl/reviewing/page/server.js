// Requests to the server that this page came from.
let writing = Promise.resolve(), writes = 0; // one after the other; begun, and ended

export class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? `The server answered ${status}.`);
    Object.assign(this, { status, body });
  }
}

export async function call(path, options) {
  const reply = await fetch(path, options);
  const value = await reply.json();
  if (!reply.ok) throw new Refused(reply.status, value);
  return value;
}

// In the order of the keys, whatever a connection makes of it: an undo takes back the edit before.
export function write(path, body) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  writes++;
  const reply = writing.then(() => call(path, options)).finally(() => writes++);
  writing = reply.catch(() => {});
  return reply;
}

// What `read` gives, which tells what stood there before or after each write, and not half of it.
export async function unwritten(read) {
  for (let last; last !== writing;) await (last = writing);
  const before = writes;
  const value = await read();
  return writes === before ? value : unwritten(read);
}
