/** What the Loader will load, on its node: on disk or not, how much memory, and whether it fits. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { watch } from "./answers.js";
import { addElement, refit } from "./dom_widget.js";
import { ModelPanel } from "./model_panel.js";
import { addStyle } from "./style.js";
import { say } from "./words.js";

const LOADER = "QVL_Loader";
const DECIDING = ["model", "quantization", "precision", "attention", "device"];
const CHANGES = ["executed", "execution_success", "execution_error", "execution_interrupted"];
const DELAY = 200; // milliseconds; several changes at once are one question

const pages = new Set();

class Page {
  #timer;
  #question = 0;
  #error = "";

  constructor(node) {
    this.node = node;
    this.panel = new ModelPanel(refreshAll);
    addElement(node, this.panel.element, () => this.panel.height, { fixed: true });
    // How its text wraps is known only once it is on the page.
    new ResizeObserver(() => refit(node)).observe(this.panel.content);
    watch(node, (answer) => this.#hear(answer));
    for (const each of this.#deciding()) chain(each, "callback", () => this.#change());
    chain(node, "onConnectionsChange", () => this.ask());
    chain(node, "onRemoved", () => pages.delete(this));
  }

  /** Asks the server soon. */
  ask() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), DELAY);
  }

  /** Another setting: why the last one failed is past. */
  #change() {
    this.#error = "";
    this.ask();
  }

  /** How far a download is while the Loader itself runs, and why it failed. */
  #hear({ status, running, error }) {
    this.#error = error;
    if (running && status) this.say(say(status));
    else this.ask();
  }

  /** A line that stands until something is asked again. */
  say(line) {
    clearTimeout(this.#timer);
    this.#question += 1;
    this.panel.say(line);
  }

  #deciding() {
    return this.node.widgets.filter(({ name }) => DECIDING.includes(name));
  }

  async #look() {
    if (!pages.has(this)) return;
    const linked = (this.node.inputs ?? []).filter((input) => input.link != null);
    if (linked.some(({ name }) => DECIDING.includes(name))) {
      this.say(say("Known when it runs: a setting comes from a link"));
      return;
    }
    const question = ++this.#question;
    const told = await answer(this.#deciding());
    if (question !== this.#question) return;
    const error = told.error || this.#error;
    if (error) this.panel.fail(error);
    else this.panel.draw(told);
  }
}

async function answer(widgets) {
  const query = new URLSearchParams(widgets.map(({ name, value }) => [name, value]));
  try {
    return await (await api.fetchApi(`/qwen_vl/model?${query}`)).json();
  } catch (error) {
    console.warn("Qwen-VL: nothing is known of the model:", error);
    return { error: say("ComfyUI does not answer.") };
  }
}

const askAll = () => pages.forEach((page) => page.ask());

/** New models in the list; the hook below asks for the figures. */
async function refreshAll() {
  await app.refreshComboInNodes();
}

function chain(owner, name, then) {
  const before = owner[name];
  owner[name] = function (...values) {
    const result = before?.apply(this, values);
    then();
    return result;
  };
}

app.registerExtension({
  name: "qwenvlsuite.loader",
  setup() {
    addStyle("model_panel.css");
    for (const kind of CHANGES) api.addEventListener(kind, askAll);
    api.addEventListener("reconnected", askAll);
  },
  nodeCreated(node) {
    if (node.comfyClass !== LOADER) return;
    const page = new Page(node);
    pages.add(page);
    page.ask();
  },
  refreshComboInNodes: askAll,
});
