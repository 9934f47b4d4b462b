/** Server view: a button, and the models that a server has, of which one is chosen. Knows no
 * ComfyUI. */

import { button, element } from "./dom.js";
import { translate } from "./translate.js";

const make = (tag, name, ...children) => element(tag, `qvl-server-${name}`, {}, ...children);

export class ServerView {
  /** `onAsk`: the models are wanted. `onChoose(name)`: one of them is. */
  constructor(onAsk, onChoose) {
    this.onChoose = onChoose;
    this.ask = button("qvl-server-ask", translate("List the server's models"), {}, onAsk);
    this.line = element("div", "qvl-server-line", { role: "status" });
    this.list = make("div", "list");
    this.content = make("div", "content", this.ask, this.line, this.list);
    this.element = make("div", "panel", this.content);
    this.clear();
  }

  /** Height that the content needs, in pixels at zoom 1. */
  get height() {
    return this.content.offsetHeight || 36;
  }

  /** Shows `models`, each with `name` and `family`, and which of them is `chosen`. */
  draw(models, chosen) {
    this.#say("", "");
    const entries = models.map(({ name, family }) => {
      const said = family ? `${name} (${family})` : name;
      const entry = button("qvl-server-model", name, { title: said }, () => this.onChoose(name));
      entry.dataset.name = name;
      if (family) entry.append(make("span", "family", family));
      return entry;
    });
    this.list.replaceChildren(...entries);
    this.mark(chosen);
  }

  /** Marks which of the models is chosen. */
  mark(chosen) {
    for (const entry of this.list.children) {
      entry.setAttribute("aria-pressed", String(entry.dataset.name === chosen));
    }
  }

  showStatus(line) {
    this.#say("running", line);
  }

  showError(message) {
    this.list.replaceChildren();
    this.#say("warning", message);
  }

  /** As if nothing had been asked. */
  clear() {
    this.list.replaceChildren();
    this.#say("", "");
  }

  #say(state, line) {
    this.element.dataset.state = state;
    this.line.textContent = line;
    this.line.hidden = !line;
  }
}
