/**
 * The panel that shows an answer: a bar with what is going on, a pager and copy buttons, and the
 * text below. Pure DOM: it knows nothing of ComfyUI, and model text only ever becomes text nodes.
 */

import { say } from "./words.js";

const NOTICES = {
  length: "Cut at max_new_tokens: raise it for the rest.",
  repetition: "The text began to repeat itself and was cut there.",
  error: "There is no answer.",
};
const OUTCOMES = { stopped: "Stopped", failed: "Failed" };
const OWN_KEYS = new Set([
  ...["Enter", " ", "Delete", "Backspace", "PageUp", "PageDown", "Home", "End"],
  ...["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
]);
const AT_END = 24; // pixels from the end of the text that still count as reading along
const COPIED_FOR = 1500; // milliseconds

function make(tag, name, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.className = `qvl-text-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function button(name, label, attributes, onClick) {
  const element = make("button", name, { type: "button", ...attributes }, label);
  element.addEventListener("click", onClick);
  return element;
}

function copyButton(label, title, entries) {
  const element = button("copy", label, { title }, async () => {
    const texts = entries().map(({ text }) => text);
    const copied = await toClipboard(texts.join("\n\n"), element.parentElement);
    element.textContent = say(copied ? "Copied" : "No clipboard");
    setTimeout(() => (element.textContent = label), COPIED_FOR);
  });
  return element;
}

export class TextPanel {
  #answer = { entries: [], shown: 0 };

  /** `onTurn(answer, index)`: a person wants to see picture `index`. */
  constructor(onTurn) {
    this.onTurn = onTurn;
    this.status = make("span", "status", { role: "status", "aria-live": "polite" });
    this.place = make("span", "place");
    const turn = (title) => ({ title, "aria-label": title });
    this.previous = button("previous", "‹", turn(say("Previous picture")), () => this.leaf(-1));
    this.next = button("next", "›", turn(say("Next picture")), () => this.leaf(1));
    this.pager = make("span", "pager", {}, this.previous, this.place, this.next);
    const shown = () => [this.#answer.entries[this.#answer.shown]];
    const all = () => this.#answer.entries;
    this.copyOne = copyButton(say("Copy"), say("Copy this text"), shown);
    this.copyAll = copyButton(say("Copy all"), say("Copy the texts of all pictures"), all);
    this.bar = make("div", "bar", {}, this.status, this.pager, this.copyOne, this.copyAll);
    this.thought = make("div", "thought");
    this.thinking = make("details", "thinking", {}, make("summary", "summary"), this.thought);
    this.thinking.firstChild.textContent = say("Thinking");
    this.text = make("div", "words");
    this.error = make("div", "error", { role: "alert" });
    this.notice = make("div", "notice");
    this.body = make(
      "div",
      "body",
      { tabindex: "0", role: "region", "aria-label": say("Answer"), "data-capture-wheel": "true" },
      this.thinking,
      this.text,
    );
    this.foot = make("div", "foot", { "data-capture-wheel": "true" }, this.error, this.notice);
    this.element = make("div", "panel", {}, this.bar, this.body, this.foot);
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    // The browser's own menu, which copies what is selected, rather than the node's.
    for (const text of [this.body, this.foot]) {
      text.addEventListener("contextmenu", (event) => event.stopPropagation());
    }
    this.#paint();
  }

  get isEmpty() {
    return this.element.dataset.state === "empty";
  }

  /** Shows `answer` (an `Answer`) as it is now. */
  draw(answer) {
    this.#answer = answer;
    this.#paint();
  }

  /** Asks for the picture `step` further on. */
  leaf(step) {
    this.onTurn(this.#answer, this.#answer.shown + step);
  }

  #paint() {
    const { entries, running, outcome, shown, error } = this.#answer;
    const count = entries.length;
    const entry = entries[shown];
    const idle = count ? "done" : "empty";
    this.element.dataset.state = running ? "running" : outcome || idle;
    setText(this.status, this.#statusLine());
    setText(this.error, error ?? "");
    setText(this.notice, entry ? noticesOf(entry, error ?? "").join("\n") : "");
    this.foot.hidden = !this.foot.textContent;
    this.pager.hidden = this.copyAll.hidden = count < 2;
    this.copyOne.hidden = this.body.hidden = count < 1;
    setText(this.place, `${shown + 1} / ${count}`);
    this.previous.disabled = shown === 0;
    this.next.disabled = shown >= count - 1;
    this.copyOne.disabled = !entry?.text;
    this.copyAll.disabled = !entries.some(({ text }) => text);
    this.#readAlong(() => this.#paintEntry(entry));
  }

  #paintEntry(entry) {
    const thinks = this.#answer.running && Boolean(entry?.thinking) && !entry.text;
    if (this.thinking.dataset.streams !== String(thinks)) {
      this.thinking.dataset.streams = thinks;
      this.thinking.open = thinks;
    }
    this.thinking.hidden = !entry?.thinking;
    setText(this.thought, entry?.thinking ?? "");
    setText(this.text, entry?.text ?? "");
  }

  /** Keeps the end of a growing text in sight, unless the reader went elsewhere in it. */
  #readAlong(paint) {
    const { body } = this;
    const atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < AT_END;
    const { shown } = this.#answer;
    const turned = body.dataset.shown !== String(shown);
    body.dataset.shown = shown;
    paint();
    if (this.#answer.running && (atEnd || turned)) body.scrollTop = body.scrollHeight;
    else if (turned) body.scrollTop = 0;
  }

  #statusLine() {
    const { status, running, outcome, entries, current, shown } = this.#answer;
    if (status) return say(status);
    if (!running) return say(OUTCOMES[outcome] ?? (entries.length ? "" : "The answer appears here"));
    const { thinking, text } = entries[current] ?? {};
    const doing = say(thinking && !text ? "Thinking" : "Answering");
    return current === shown ? doing : `${doing} ${current + 1}`;
  }

  #onKey(event) {
    const { key, ctrlKey, metaKey, altKey } = event;
    if (ctrlKey || metaKey) {
      if (key.toLowerCase() !== "a") return;
      getSelection().selectAllChildren(this.text);
      event.preventDefault();
    } else if (altKey || !OWN_KEYS.has(key)) return;
    else if (key === "ArrowLeft") this.leaf(-1);
    else if (key === "ArrowRight") this.leaf(1);
    event.stopPropagation(); // ComfyUI would move, remove or select nodes
  }
}

/** What a person should know of one answer, less what `told` says already. */
function noticesOf({ error, notes, finish_reason }, told) {
  const ending = notes.length || error ? [] : [NOTICES[finish_reason] ?? ""];
  const lines = [error, ...notes, ...ending];
  return lines.filter((line) => line && !told.includes(line)).map((line) => say(line));
}

/** Changes only what changed, so that a selection in a growing text lasts. */
function setText(element, text) {
  const shown = element.textContent;
  if (text === shown) return;
  if (shown && text.startsWith(shown)) element.firstChild.appendData(text.slice(shown.length));
  else element.textContent = text;
}

/** Pages that are not served from this machine or by HTTPS have no `navigator.clipboard`. */
async function toClipboard(text, place) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      console.debug("The clipboard refused, trying the old way:", error);
    }
  }
  const area = make("textarea", "clipboard");
  area.value = text;
  place.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
