/** Model panel: the forecast for the model that a node will load, asked of the server. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { watch } from "./answer_store.js";
import { definePanel } from "./declared_panels.js";
import { after } from "./hooks.js";
import { ModelView } from "./model_view.js";
import { addToStack, refit } from "./panel_stack.js";
import { translate } from "./translate.js";

const CHANGES = ["executed", "execution_success", "execution_error", "execution_interrupted"];
const DELAY = 200; // milliseconds, so that several changes make one request
const TYPING = 1000; // while a name is typed, of which a hub may be asked
const TEXTS = new Set(["text", "string", "customtext"]);

const panels = new Set();

class ModelPanel {
  #timer;
  #requests = 0;
  #error = "";

  /** `settings`: names of the inputs that the forecast depends on; `route`: tells it. */
  constructor(node, settings, route) {
    Object.assign(this, { node, settings, route });
    const refresh = () => app.refreshComboInNodes(); // which refreshes the panels too
    this.view = new ModelView(refresh, () => this.#agree());
    addToStack(node, this.view.element, () => this.view.height, { fixed: true });
    // How its text wraps is known only once it is on the page.
    new ResizeObserver(() => refit(node)).observe(this.view.content);
    watch(node, (answer) => this.#onAnswer(answer));
    for (const widget of this.#widgets()) {
      after(widget, "callback", () => this.#onSetting(TEXTS.has(widget.type) ? TYPING : DELAY));
    }
    after(node, "onConnectionsChange", () => this.refresh());
    after(node, "onRemoved", () => panels.delete(this));
  }

  /** Asks the server soon. */
  refresh(delay = DELAY) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#request(), delay);
  }

  /** Another setting: the error of the last run is outdated. */
  #onSetting(delay) {
    this.#error = "";
    this.refresh(delay);
  }

  /** The progress of a download while the node itself runs, and the error that ended it. */
  #onAnswer({ status, running, error }) {
    this.#error = error;
    if (running && status) this.#showStatus(translate(status));
    else this.refresh();
  }

  /** Shows a line until the next request. */
  #showStatus(line) {
    clearTimeout(this.#timer);
    this.#requests += 1;
    this.view.showStatus(line);
  }

  #widgets() {
    return this.node.widgets.filter(({ name }) => this.settings.includes(name));
  }

  /** The user wants the size of the model that the widgets name, or allows its download. */
  async #agree() {
    const route = this.view.consent === "needed" ? "allow_download" : "download_size";
    this.#showStatus("");
    const settings = Object.fromEntries(this.#widgets().map(({ name, value }) => [name, String(value)]));
    const error = await send(route, settings);
    if (error) this.view.showError(error);
    else refreshAll();
  }

  async #request() {
    if (!panels.has(this)) return;
    const linked = (this.node.inputs ?? []).filter((input) => input.link != null);
    if (linked.some(({ name }) => this.settings.includes(name))) {
      this.#showStatus(translate("Known when it runs: a setting comes from a link"));
      return;
    }
    const request = ++this.#requests;
    const forecast = await fetchForecast(this.route, this.#widgets());
    if (request !== this.#requests) return;
    // A run that failed for want of the user's consent: here it can be given.
    const error = forecast.error || (["needed", "not asked"].includes(forecast.consent) ? "" : this.#error);
    if (error) this.view.showError(error);
    else this.view.draw(forecast);
  }
}

async function fetchForecast(route, widgets) {
  const query = new URLSearchParams(widgets.map(({ name, value }) => [name, value]));
  try {
    return await (await api.fetchApi(`${route}?${query}`)).json();
  } catch (error) {
    console.warn("Qwen-VL: nothing is known of the model:", error);
    return { error: translate("ComfyUI does not answer.") };
  }
}

/** Gives what went wrong; empty where nothing did. */
async function send(route, settings) {
  const headers = { "Content-Type": "application/json" };
  try {
    const body = JSON.stringify(settings);
    const response = await api.fetchApi(`/qwen_vl/${route}`, { method: "POST", headers, body });
    return response.ok ? "" : (await response.json()).error;
  } catch (error) {
    console.warn("Qwen-VL: the server does not answer:", error);
    return translate("ComfyUI does not answer.");
  }
}

const refreshAll = () => panels.forEach((panel) => panel.refresh());

definePanel("model", "model_view.css", (node, { settings, route }) => {
  const panel = new ModelPanel(node, settings, route);
  panels.add(panel);
  panel.refresh();
});

app.registerExtension({
  name: "qwenvlsuite.model_refresh",
  setup() {
    for (const kind of [...CHANGES, "reconnected"]) api.addEventListener(kind, refreshAll);
  },
  refreshComboInNodes: refreshAll,
});
