// Pictures beside their captions: what is seen here is what the server says stands on disk.
import { Editor, isComposing } from "./editor.js";
import { VirtualList } from "./list.js";
import { Refused, call, unwritten, write } from "./server.js";
import { addressOf, viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const rowsOf = new Map(); // id -> what the server said of it last
const selected = new Set();
let view = { total: 0, asking: null };
let only = "all", words = [], current = null;
let now = {}; // id -> what a model has written of it so far
let searchNumber = 0, message = "", isWarning = false;
let isSearch = false, foundOf = ""; // whether it is found anew; what was there when it was

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
    if (editor.id === row.id && editor.edit.version !== row.version) editor.clash(row);
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
  takeView(await unwritten(() => call(`view?ids=${ids.join(",")}`)));
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
  if (editor.id === id) return editor.fill(row);
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

const editor = new Editor({
  list,
  rowOf: (id) => rowsOf.get(id),
  isOneLine: () => view.one_line,
  send: ({ id, version, text }) => attempt(() => write("edit", { id, version, text })),
  onSaved: (value) => {
    say("");
    takeView(value);
  },
  replaceWords,
});

async function edit(id) {
  if (id === null || editor.id === id) return;
  if (editor.edit && !(await editor.save())) return;
  if (!rowsOf.has(id)) await attempt(() => look([id]));
  const known = rowsOf.get(id);
  if (!known || id in now || editor.edit) return;
  if (known.problem) return say(known.problem, true);
  setCurrent(id);
  editor.begin(known);
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

function showWhole(id) {
  const known = rowsOf.get(id);
  if (!known) return;
  setCurrent(id);
  viewer.show(known);
}
viewer.onClose = () => list.rows.get(current)?.focus({ preventScroll: true });

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
  if (viewer.isOpen) {
    const moves = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 };
    if (key in moves) {
      step(moves[key]);
      showWhole(current);
    } else if (key === " ") viewer.close();
    else return;
    return event.preventDefault();
  }
  const does = KEYS[key];
  if (!does) return;
  event.preventDefault();
  does();
});
addEventListener("beforeunload", (event) => {
  if (editor.isChanged) event.preventDefault();
});

list.measure();
attempt(async () => {
  await look();
  $("scroller").tabIndex = -1;
}).then(watch);
