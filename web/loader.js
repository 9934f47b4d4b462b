/** What the Loader will load, on its node: on disk or not, how much memory, and whether it fits. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ModelPanel } from "./model_panel.js";
import { nodeAt, workflowOf } from "./nodes.js";
import { addStyle } from "./style.js";

const LOADER = "QVL_Loader";
const DECIDING = ["model", "quantization", "precision", "attention", "device"];
const CHANGES = ["executed", "execution_success", "execution_error", "execution_interrupted"];
const DELAY = 200; // milliseconds; several changes at once are one question
const MARGIN = 6;

const pages = new Set();

class Page {
  #timer;
  #question = 0;

  constructor(node) {
    this.node = node;
    this.panel = new ModelPanel(refreshAll);
    passOn(this.panel.element);
    const height = () => this.panel.height + 2 * MARGIN;
    const widget = node.addDOMWidget("qwen_vl_model", "qwen_vl_model", this.panel.element, {
      serialize: false, // not in the prompt
      margin: MARGIN,
      getMinHeight: height,
      getMaxHeight: height,
      getValue: () => "",
      setValue: () => {},
    });
    widget.serialize = false; // not in the saved workflow
    // How its text wraps is known only once it is on the page.
    new ResizeObserver(redraw).observe(this.panel.content);
    for (const each of this.#deciding()) chain(each, "callback", () => this.ask());
    chain(node, "onConnectionsChange", () => this.ask());
    chain(node, "onRemoved", () => pages.delete(this));
  }

  /** Asks the server soon. */
  ask() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), DELAY);
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
      this.say("Known when it runs: a setting comes from a link");
      return;
    }
    const question = ++this.#question;
    const told = await answer(this.#deciding());
    if (question !== this.#question) return;
    if (told.error) this.panel.fail(told.error);
    else this.panel.draw(told);
  }
}

async function answer(widgets) {
  const query = new URLSearchParams(widgets.map(({ name, value }) => [name, value]));
  try {
    return await (await api.fetchApi(`/qwen_vl/model?${query}`)).json();
  } catch (error) {
    console.warn("Qwen-VL: nothing is known of the model:", error);
    return { error: "ComfyUI does not answer." };
  }
}

const askAll = () => pages.forEach((page) => page.ask());

/** Twice: the legacy canvas notices while it draws a node that it must be larger. */
function redraw() {
  app.graph.setDirtyCanvas(true, true);
  requestAnimationFrame(() => app.graph.setDirtyCanvas(true, true));
}

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

/** On the legacy canvas the panel lies over it: the wheel and the middle button are the canvas's. */
function passOn(element) {
  const isOver = () => element.closest(".dom-widget");
  element.addEventListener("wheel", (event) => {
    if (!isOver()) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  });
  const middle = { pointerdown: "processMouseDown", pointerup: "processMouseUp" };
  for (const [kind, process] of Object.entries(middle)) {
    element.addEventListener(kind, (event) => {
      if (event.button === 1 && isOver()) app.canvas[process](event);
    });
  }
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & 4 && isOver()) app.canvas.processMouseMove(event);
  });
}

/** How far a download is, while the Loader itself runs. */
async function onLive({ detail }) {
  const known = await workflowOf(detail.prompt_id);
  const node = known === app.rootGraph.id && detail.status && nodeAt(detail.node);
  for (const page of pages) if (page.node === node) page.say(detail.status);
}

app.registerExtension({
  name: "qwenvlsuite.loader",
  setup() {
    addStyle("model_panel.css");
    api.addEventListener("qwen_vl.live", onLive);
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
