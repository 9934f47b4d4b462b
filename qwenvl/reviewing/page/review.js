// Pictures beside their captions: what is seen here is what the server says stands on disk.
import { VirtualList } from "./list.js";

const $ = (id) => document.getElementById(id);
const rowsOf = new Map(); // id -> what the server said of it last
const selected = new Set();
let view = { total: 0, asking: null };
let only = "all", words = [], current = null;
let editing = null; // { id, version, text, clash, saving }
let now = {}; // id -> what a model has written of it so far
let searchNumber = 0, message = "", isWarning = false;
let isSearch = false, foundOf = ""; // whether it is found anew; what was there when it was
let writing = Promise.resolve(), writes = 0; // one after the other; begun, and ended

class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? `The server answered ${status}.`);
    Object.assign(this, { status, body });
  }
}

async function call(path, options) {
  const reply = await fetch(path, options);
  const value = await reply.json();
  if (!reply.ok) throw new Refused(reply.status, value);
  return value;
}

// In the order of the keys, whatever a connection makes of it: an undo takes back the edit before.
function write(path, body) {
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

function say(text, warns = false) {
  [message, isWarning] = [text, warns];
  showState();
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refused) {
      if (error.body.row) take([error.body.row]);
      say(error.message, true);
    } else say(LOST, true);
  }
}

// --- what the server says

function take(rows) {
  for (const row of rows) {
    const old = rowsOf.get(row.id);
    rowsOf.set(row.id, row);
    if (JSON.stringify(old) === JSON.stringify(row)) continue;
    if (editing?.id === row.id && row.version !== editing.version) clash(row);
    else list.refill(row.id);
  }
}

function takeView(value) {
  const before = now;
  take(value.rows);
  now = value.asking?.now ?? {};
  for (const id of new Set([...Object.keys(before), ...Object.keys(now)])) {
    if (before[id] !== now[id]) list.refill(Number(id));
  }
  view = value;
  showState();
}

async function look(ids = list.inSight) {
  for (let last; last !== writing;) await (last = writing);
  const before = writes;
  const value = await call(`view?ids=${ids.join(",")}`);
  if (writes !== before) return look(ids); // it may tell what stood there before, or half of it
  takeView(value);
  if (whatIsThere() !== foundOf) await find(false);
}

async function watch() {
  const waits = Object.keys(now).length || !view.listed;
  try {
    if (!document.hidden) await look();
    if (message === LOST) say("");
  } catch (error) {
    say(error instanceof Refused ? error.message : LOST, true);
  }
  setTimeout(watch, waits ? 250 : 1000);
}
const LOST = "The server does not answer: is it still running?";

const whatIsThere = () => `${view.total} ${view.listed} ${view.listings}`;

// `isNew`: for other words; else what came or went.
async function find(isNew = true) {
  const number = ++searchNumber, there = whatIsThere();
  isSearch ||= isNew;
  const text = $("search").value;
  const found = await call(`find?q=${encodeURIComponent(text)}&only=${only}`);
  if (number !== searchNumber) return; // a later search was quicker
  words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const isSame = found.ids.length === list.ids.length &&
    found.ids.every((id, place) => id === list.ids[place]);
  foundOf = there;
  list.show(found.ids, !isSearch);
  if (isSearch) {
    isSearch = false;
    if (!isSame) $("scroller").scrollTop = 0;
    list.draw();
    for (const id of list.inSight) list.refill(id);
  }
  if (list.placeOf(current) < 0) current = null;
  if (current === null && found.ids.length) go(0, false);
  $("list").dataset.empty = view.listed ? "Nothing is found." : "Looking for pictures …";
  showState();
}

const fetchInSight = () => {
  const missing = list.inSight.filter((id) => !rowsOf.has(id));
  if (missing.length) look(missing).catch(() => {}); // asked again from time to time
};

// --- rows

function make() {
  const row = document.createElement("div");
  row.className = "row";
  row.setAttribute("role", "listitem");
  row.tabIndex = -1;
  row.innerHTML = `<input type="checkbox" tabindex="-1">
    <button class="thumb" tabindex="-1"><img alt="" decoding="async"></button>
    <div class="words"><div class="name"><span></span><span class="failure"></span></div></div>`;
  const idOf = () => Number(row.dataset.id);
  row.addEventListener("mousedown", () => setCurrent(idOf()));
  row.querySelector("input").addEventListener("change", () => toggle(idOf()));
  row.querySelector(".thumb").addEventListener("click", () => showWhole(idOf()));
  const image = row.querySelector("img");
  image.addEventListener("error", () => image.parentElement.classList.add("broken"));
  row.addEventListener("dblclick", (event) => {
    if (event.target.closest(".caption")) edit(idOf());
  });
  return row;
}

// Another one when the file is another one.
const addressOf = (what, { id, picture }) => `${what}/${id}?${picture}`;

function fill(row, id) {
  const known = rowsOf.get(id);
  row.dataset.id = id;
  showCurrent(row, id);
  const box = row.querySelector("input");
  box.checked = selected.has(id);
  box.setAttribute("aria-label", `Select ${known?.file ?? ""}`);
  const thumb = row.querySelector(".thumb"), image = thumb.querySelector("img");
  if (known && image.getAttribute("src") !== addressOf("thumb", known)) {
    thumb.classList.remove("broken");
    image.src = addressOf("thumb", known);
  }
  thumb.classList.toggle("clip", Boolean(known?.clip));
  thumb.setAttribute("aria-label", `Show ${known?.file ?? ""}`);
  const [name, failure] = row.querySelectorAll(".name span");
  name.replaceChildren(...marked(known?.file ?? "…"));
  name.title = known?.file ?? "";
  failure.textContent = known?.failure ?? "";
  failure.title = known?.failure ?? "";
  row.setAttribute("aria-label", known?.file ?? "");
  if (editing?.id === id) return fillEditor(row);
  const caption = document.createElement("p");
  caption.className = "caption";
  if (id in now) {
    caption.classList.add("written");
    caption.textContent = now[id] || "…";
  } else if (known?.problem) {
    caption.classList.add("problem");
    caption.textContent = known.problem;
  } else if (known && !known.text) {
    caption.classList.add("none");
    caption.textContent = "No caption";
  } else caption.append(...marked(known?.text ?? ""));
  replaceWords(row, caption);
}

function replaceWords(row, ...elements) {
  const place = row.querySelector(".words");
  while (place.children.length > 1) place.lastChild.remove();
  place.append(...elements);
}

// `text` with what is searched for marked.
function marked(text) {
  const parts = [], wanted = words.filter((word) => text.toLowerCase().includes(word));
  if (!wanted.length) return [text];
  const pattern = wanted.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  for (const [place, part] of text.split(new RegExp(`(${pattern})`, "gi")).entries()) {
    if (place % 2) {
      const mark = document.createElement("mark");
      mark.textContent = part;
      parts.push(mark);
    } else parts.push(part);
  }
  return parts;
}

// A row that shows nothing loads nothing.
function free(row) {
  const image = row.querySelector("img");
  image.removeAttribute("src");
  image.parentElement.classList.remove("broken");
  delete row.dataset.id;
  replaceWords(row);
}

const list = new VirtualList($("scroller"), $("list"), { make, fill, free, onChange: fetchInSight });

// --- moving

function setCurrent(id) {
  const before = current;
  current = id;
  for (const one of [before, id]) {
    const row = list.rows.get(one);
    if (row) showCurrent(row, one);
  }
}

function showCurrent(row, id) {
  row.setAttribute("aria-current", id === current);
  row.tabIndex = id === current ? 0 : -1; // where Tab leads
}

function go(place, focuses = true) {
  if (!list.shown) return;
  const id = list.ids[Math.max(0, Math.min(list.shown - 1, place))];
  setCurrent(id);
  list.reveal(id);
  if (focuses) list.rows.get(id)?.focus({ preventScroll: true });
}

function step(by) {
  go(current === null ? 0 : list.placeOf(current) + by);
}

const page = () => Math.max(1, Math.floor($("scroller").clientHeight / list.height));

function toggle(id) {
  if (!selected.delete(id)) selected.add(id);
  list.refill(id);
  showState();
}

function toggleAll() {
  const isAll = list.ids.every((id) => selected.has(id));
  for (const id of list.ids) isAll ? selected.delete(id) : selected.add(id);
  for (const id of list.inSight) list.refill(id);
  showState();
}

// --- editing

// Whether a key is one of an input method, which puts together a sign. Safari says so of the key
// that ends it by its code alone.
const isComposing = (event) => event.isComposing || event.keyCode === 229;

async function edit(id) {
  if (id === null || editing?.id === id) return;
  if (editing && !(await save())) return;
  if (!rowsOf.has(id)) await attempt(() => look([id]));
  const known = rowsOf.get(id);
  if (!known || id in now || editing) return;
  if (known.problem) return say(known.problem, true);
  editing = { id, version: known.version, text: known.text };
  list.kept = id;
  setCurrent(id);
  list.reveal(id);
  list.refill(id);
  const area = list.rows.get(id).querySelector("textarea");
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

function fillEditor(row) {
  if (row.querySelector("textarea")) return;
  const area = document.createElement("textarea");
  area.value = editing.text;
  area.setAttribute("aria-label", `Caption of ${rowsOf.get(editing.id).file}`);
  area.addEventListener("input", () => (editing.text = area.value));
  area.addEventListener("blur", () => {
    if (editing && !editing.clash && document.hasFocus()) save();
  });
  area.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (isComposing(event)) return;
    if (event.key === "Escape" && !editing.saving) leave();
    else if (event.key === "Enter" &&
        (event.ctrlKey || event.metaKey || (view.one_line && !event.shiftKey))) {
      event.preventDefault();
      save();
    }
  });
  replaceWords(row, area);
}

function clash(row) {
  editing.clash = row;
  const place = list.rows.get(row.id);
  place.querySelector(".clash")?.remove();
  const box = document.createElement("div");
  box.className = "clash";
  box.innerHTML = "<span role=alert></span><button>Keep mine</button><button>Take theirs</button>";
  box.querySelector("span").textContent = row.problem ||
    (row.text ? `Changed meanwhile: ${row.text}` : "Its caption was taken away meanwhile.");
  const [mine, theirs] = box.querySelectorAll("button");
  mine.addEventListener("click", () => {
    editing.version = row.version;
    editing.clash = null;
    save();
  });
  theirs.addEventListener("click", leave);
  place.querySelector(".words").append(box);
}

// Whether it is left: until the server has answered, nothing is typed, and it is saved once.
function save() {
  if (editing.saving) return editing.saving;
  if (editing.clash) return false;
  if (editing.text === rowsOf.get(editing.id).text) return leave();
  return (editing.saving = send(editing));
}

async function send(edit) {
  const { id, version, text } = edit;
  const area = list.rows.get(id).querySelector("textarea");
  area.readOnly = true;
  const value = await attempt(() => write("edit", { id, version, text }));
  edit.saving = null;
  area.readOnly = false;
  if (!value) return false;
  leave();
  say("");
  takeView(value);
  return true;
}

// The focus goes back to the row, unless it was put elsewhere meanwhile.
function leave() {
  const { id } = editing, row = list.rows.get(id), focused = document.activeElement;
  const isHere = focused === document.body || row.contains(focused);
  editing = null;
  list.kept = null;
  list.refill(id);
  list.draw();
  if (isHere) list.rows.get(id)?.focus({ preventScroll: true });
  return true;
}

async function move(which) {
  const value = await attempt(() => write(which, {}));
  if (!value) return;
  takeView(value);
  if (value.moved === null) return say(`Nothing to ${which}.`);
  if (list.placeOf(value.moved) >= 0) go(list.placeOf(value.moved));
  say(`${which === "undo" ? "Undone" : "Done again"}: ${value.rows[0].file}`);
}

async function ask() {
  if (!view.asking) return say(HOW, true);
  const ids = selected.size ? [...selected] : current === null ? [] : [current];
  if (!ids.length) return;
  const value = await attempt(() => write("ask", { ids }));
  if (!value) return;
  selected.clear();
  for (const id of list.inSight) list.refill(id);
  say("");
  takeView(value);
}
const HOW = "To ask a model again, start this page with --model NAME or --server URL.";

async function showWhole(id) {
  const known = rowsOf.get(id);
  if (!known) return;
  setCurrent(id);
  const media = document.createElement(known.clip ? "video" : "img");
  media.src = addressOf("whole", known);
  if (known.clip) Object.assign(media, { controls: true, autoplay: true, loop: true, muted: true });
  else media.alt = known.text || known.file;
  media.addEventListener("error", () => {
    if (!known.clip) return ($("whole-name").textContent = `${known.file} cannot be shown.`);
    const still = document.createElement("img");
    still.src = addressOf("thumb", known);
    still.alt = "";
    $("whole").replaceChildren(still);
    $("whole-name").textContent = `${known.file}: this browser cannot play it; its first frame.`;
  });
  $("whole").replaceChildren(media);
  $("whole-name").textContent = known.file;
  if (!$("viewer").open) $("viewer").showModal();
}
$("viewer").addEventListener("click", (event) => {
  if (!event.target.closest("video")) $("viewer").close(); // a video has controls of its own
});
$("viewer").addEventListener("close", () => {
  $("whole").replaceChildren();
  list.rows.get(current)?.focus({ preventScroll: true });
});

// --- the rest of the page

function showState() {
  const { asking } = view;
  $("folder").textContent = document.title = view.folder ?? "";
  const counts = {
    all: view.total, without: view.total - view.captioned, captioned: view.captioned,
    failed: view.failed,
  };
  for (const button of $("filters").children) {
    button.querySelector("b").textContent = (counts[button.dataset.only] || 0).toLocaleString("en");
    button.setAttribute("aria-pressed", button.dataset.only === only);
  }
  $("undo").disabled = !view.undo;
  $("redo").disabled = !view.redo;
  $("ask").setAttribute("aria-disabled", !asking);
  $("ask").title = asking ? `${asking.name} (r)` : HOW;
  $("ask").textContent = selected.size ? `Ask again: ${selected.size}` : "Ask again";
  const open = asking ? Object.keys(asking.now).length + asking.waiting : 0;
  $("stop").hidden = !open;
  const { one_line } = view;
  $("save-keys").innerHTML = one_line ? "<kbd>Enter</kbd>" : "<kbd>Ctrl</kbd>+<kbd>Enter</kbd>";
  $("help-note").textContent = [
    `Captions are written for: ${view.trainer}.`,
    one_line ? "They have one line: line ends become blanks." : "",
    "An empty one is taken away. What a file held at first is kept in .qwenvl-captions/backup.",
    asking ? "" : HOW,
  ].join(" ");
  const found = list.ids.length;
  const facts = [];
  if (message) facts.push(message);
  if (asking?.error) facts.push(asking.error);
  if (open) facts.push(`${open} left to be answered by ${asking.name}`);
  if (view.listed === false) facts.push("Listing …");
  if (found !== view.total) facts.push(`${found.toLocaleString("en")} found`);
  if (list.shown < found) {
    facts.push(`the first ${list.shown.toLocaleString("en")} are shown: search for others`);
  }
  if (view.outside) facts.push(`${view.outside} left out: links out of the folder`);
  facts.push(...(view.errors ?? []).slice(0, 3));
  const text = facts.join(" · ");
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("warn", isWarning || Boolean(asking?.error));
}

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => attempt(find), 120);
});
$("search").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (isComposing(event)) return;
  if (event.key === "Enter" || event.key === "ArrowDown") {
    event.preventDefault();
    step(0);
  } else if (event.key === "Escape") {
    event.preventDefault();
    if ($("search").value) {
      $("search").value = "";
      attempt(find);
    }
    step(0);
  }
});
$("filters").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  only = button.dataset.only;
  attempt(find);
});
$("undo").addEventListener("click", () => move("undo"));
$("redo").addEventListener("click", () => move("redo"));
$("ask").addEventListener("click", ask);
$("stop").addEventListener("click", () => attempt(async () => takeView(await write("stop", {}))));
$("help-button").addEventListener("click", () => $("help").showModal());

const KEYS = {
  j: () => step(1), ArrowDown: () => step(1),
  k: () => step(-1), ArrowUp: () => step(-1),
  PageDown: () => step(page()), PageUp: () => step(-page()),
  Home: () => go(0), End: () => go(list.shown - 1),
  "/": () => $("search").select(),
  e: () => edit(current), Enter: () => edit(current),
  " ": () => current !== null && showWhole(current),
  x: () => current !== null && toggle(current), X: toggleAll,
  r: ask,
  "?": () => $("help").showModal(),
};
document.addEventListener("keydown", (event) => {
  if ($("help").open) return;
  const isOnButton = event.target.closest?.("button, input") && !event.target.closest(".row");
  const key = event.key.length === 1 && !event.shiftKey ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const isUndo = event.key.toLowerCase() === "z";
    if (isUndo || event.key.toLowerCase() === "y") {
      event.preventDefault();
      move(isUndo && !event.shiftKey ? "undo" : "redo");
    }
    return;
  }
  if (event.altKey || (isOnButton && [" ", "Enter"].includes(key))) return;
  if ($("viewer").open) {
    const moves = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 };
    if (key in moves) {
      step(moves[key]);
      showWhole(current);
    } else if (key === " ") $("viewer").close();
    else return;
    return event.preventDefault();
  }
  const does = KEYS[key];
  if (!does) return;
  event.preventDefault();
  does();
});
addEventListener("beforeunload", (event) => {
  if (editing && editing.text !== rowsOf.get(editing.id)?.text) event.preventDefault();
});

list.measure();
attempt(async () => {
  await look();
  $("scroller").tabIndex = -1;
}).then(watch);
