/**
 * Answer view: a bar with the status, a pager and copy buttons, and the text below. Knows no
 * ComfyUI; a model's text only ever becomes text nodes.
 */

import { button as makeButton, element } from "./dom.js";
import { translate } from "./translate.js";

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
const NEAR_END = 24; // pixels from the end of the text that still count as reading along
const COPIED_TIME = 1500; // milliseconds

const make = (tag, name, ...rest) => element(tag, `qvl-text-${name}`, ...rest);
const button = (name, ...rest) => makeButton(`qvl-text-${name}`, ...rest);

function copyButton(label, title, entries) {
  const made = button("copy", label, { title }, async () => {
    const texts = entries().map(({ text }) => text);
    const copied = await toClipboard(texts.join("\n\n"), made.parentElement);
    made.textContent = translate(copied ? "Copied" : "No clipboard");
    setTimeout(() => (made.textContent = label), COPIED_TIME);
  });
  return made;
}

export class AnswerView {
  #answer = { entries: [], shown: 0 };

  /** `onTurn(answer, index)`: the user asks for picture `index`. */
  constructor(onTurn) {
    this.onTurn = onTurn;
    this.status = make("span", "status", { role: "status", "aria-live": "polite" });
    this.place = make("span", "place");
    const named = (title) => ({ title, "aria-label": title });
    this.previous = button("previous", "‹", named(translate("Previous picture")), () => this.turnPage(-1));
    this.next = button("next", "›", named(translate("Next picture")), () => this.turnPage(1));
    this.pager = make("span", "pager", {}, this.previous, this.place, this.next);
    const shown = () => [this.#answer.entries[this.#answer.shown]];
    const all = () => this.#answer.entries;
    this.copyOne = copyButton(translate("Copy"), translate("Copy this text"), shown);
    this.copyAll = copyButton(translate("Copy all"), translate("Copy the texts of all pictures"), all);
    this.bar = make("div", "bar", {}, this.status, this.pager, this.copyOne, this.copyAll);
    this.thought = make("div", "thought");
    this.thinking = make("details", "thinking", {}, make("summary", "summary"), this.thought);
    this.thinking.firstChild.textContent = translate("Thinking");
    this.text = make("div", "words");
    this.error = make("div", "error", { role: "alert" });
    this.notice = make("div", "notice");
    this.body = make(
      "div",
      "body",
      { tabindex: "0", role: "region", "aria-label": translate("Answer"), "data-capture-wheel": "true" },
      this.thinking,
      this.text,
    );
    this.foot = make("div", "foot", { "data-capture-wheel": "true" }, this.error, this.notice);
    this.element = make("div", "panel", {}, this.bar, this.body, this.foot);
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    // The browser's own context menu, which can copy the selection, rather than the node's.
    for (const text of [this.body, this.foot]) {
      text.addEventListener("contextmenu", (event) => event.stopPropagation());
    }
    this.#render();
  }

  get isEmpty() {
    return this.element.dataset.state === "empty";
  }

  /** Shows an `AnswerState` as it is now. */
  draw(answer) {
    this.#answer = answer;
    this.#render();
  }

  /** Asks for the picture `step` places further on. */
  turnPage(step) {
    this.onTurn(this.#answer, this.#answer.shown + step);
  }

  #render() {
    const { entries, running, outcome, shown, error } = this.#answer;
    const count = entries.length;
    const entry = entries[shown];
    const finished = outcome || (count ? "done" : "empty");
    this.element.dataset.state = running ? "running" : finished;
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
    this.#keepEndInView(() => this.#renderEntry(entry));
  }

  #renderEntry(entry) {
    const isThinking = this.#answer.running && Boolean(entry?.thinking) && !entry.text;
    if (this.thinking.dataset.streams !== String(isThinking)) {
      this.thinking.dataset.streams = isThinking;
      this.thinking.open = isThinking;
    }
    this.thinking.hidden = !entry?.thinking;
    setText(this.thought, entry?.thinking ?? "");
    setText(this.text, entry?.own_words ? translateLines(entry.text) : (entry?.text ?? ""));
  }

  /** Keeps the end of a growing text in view, unless the reader scrolled away from it. */
  #keepEndInView(render) {
    const { body } = this;
    const atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < NEAR_END;
    const { shown } = this.#answer;
    const turned = body.dataset.shown !== String(shown);
    body.dataset.shown = shown;
    render();
    if (this.#answer.running && (atEnd || turned)) body.scrollTop = body.scrollHeight;
    else if (turned) body.scrollTop = 0;
  }

  #statusLine() {
    const { status, running, outcome, entries, current, shown } = this.#answer;
    if (status) return translate(status);
    if (!running) return translate(OUTCOMES[outcome] ?? (entries.length ? "" : "The answer appears here"));
    const { thinking, text } = entries[current] ?? {};
    const activity = translate(thinking && !text ? "Thinking" : "Answering");
    return current === shown ? activity : `${activity} ${current + 1}`;
  }

  #onKey(event) {
    const { key, ctrlKey, metaKey, altKey } = event;
    if (ctrlKey || metaKey) {
      if (key.toLowerCase() !== "a") return;
      getSelection().selectAllChildren(this.text);
      event.preventDefault();
    } else if (altKey || !OWN_KEYS.has(key)) return;
    else if (key === "ArrowLeft") this.turnPage(-1);
    else if (key === "ArrowRight") this.turnPage(1);
    event.stopPropagation(); // ComfyUI would move, remove or select nodes
  }
}

/** A text of the pack itself, in the page's language. */
const translateLines = (text) => text.split("\n").map((line) => translate(line)).join("\n");

/** What the user should know about one answer, without what `message` says already. */
function noticesOf({ error, notes, finish_reason }, message) {
  const ending = notes.length || error ? [] : [NOTICES[finish_reason] ?? ""];
  const lines = [error, ...notes, ...ending];
  return lines.filter((line) => line && !message.includes(line)).map((line) => translate(line));
}

/** Changes only what differs, so that a selection in a growing text is kept. */
function setText(element, text) {
  const shown = element.textContent;
  if (text === shown) return;
  if (shown && text.startsWith(shown)) element.firstChild.appendData(text.slice(shown.length));
  else element.textContent = text;
}

/** Pages that are served neither from this machine nor by HTTPS have no `navigator.clipboard`. */
async function toClipboard(text, parent) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      console.debug("The clipboard refused; trying execCommand:", error);
    }
  }
  const area = make("textarea", "clipboard");
  area.value = text;
  parent.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
