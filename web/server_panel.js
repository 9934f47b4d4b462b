/** Server panel: a button that lists the models of the server that a node names, of which one can be
 * chosen. Nothing is asked before it is pressed. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { definePanel } from "./declared_panels.js";
import { after } from "./hooks.js";
import { addToStack, refit } from "./panel_stack.js";
import { ServerView } from "./server_view.js";
import { translate } from "./translate.js";

/** The models that the server has, each with `name` and `family`. Throws an error for the user. */
async function modelsOf(route, settings) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(settings);
  let response, answer;
  try {
    response = await api.fetchApi(route, { method: "POST", headers, body });
    answer = await response.json();
  } catch (error) {
    console.warn("Qwen-VL: nothing is known of the server:", error);
    throw new Error(translate("ComfyUI does not answer."));
  }
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer.models;
}

definePanel("server", "server_view.css", (node, { settings, into, route }) => {
  const find = (wanted) => node.widgets.find(({ name }) => name === wanted);
  let requests = 0;

  const ask = async () => {
    const request = ++requests;
    view.showStatus(translate("Asking the server"));
    const linked = (node.inputs ?? []).filter((input) => input.link != null);
    if (linked.some(({ name }) => settings.includes(name))) {
      view.showError(translate("Known when it runs: a setting comes from a link"));
      return;
    }
    const values = Object.fromEntries(settings.map((name) => [name, String(find(name).value)]));
    try {
      const models = await modelsOf(route, values);
      if (request === requests) view.draw(models, find(into).value);
    } catch (error) {
      if (request === requests) view.showError(error.message);
    }
  };

  const choose = (name) => {
    const widget = find(into);
    widget.value = name;
    widget.callback?.(name);
    app.graph?.setDirtyCanvas(true, true);
  };

  const view = new ServerView(ask, choose);
  addToStack(node, view.element, () => view.height, { fixed: true });
  // How the list wraps is known only once it is on the page.
  new ResizeObserver(() => refit(node)).observe(view.content);
  after(find(into), "callback", () => view.mark(find(into).value));
  for (const name of settings) {
    after(find(name), "callback", () => {
      requests += 1; // what is on its way is of another server
      view.clear();
    });
  }
});
