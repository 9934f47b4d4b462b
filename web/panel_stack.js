/** Panel stack: the DOM widget of a node that holds its panels, one below the other. */

import { app } from "../../scripts/app.js";
import { addStylesheet } from "./stylesheets.js";

const NAME = "qwen_vl_panels";
const MARGIN = 10; // pixels around a widget on the legacy canvas, as around ComfyUI's text widgets
const GAP = 6; // pixels between two panels

const stacks = new WeakMap(); // by node
const owners = new WeakMap(); // nodes, by a stack's element

/**
 * Adds `element` below the panels that the node has; it is neither run nor saved.
 *
 * `leastHeight()`, in pixels, is reserved from the beginning, also while the element is hidden, so
 * that a node does not grow over its neighbours once there is something to show. `fixed`: it takes
 * no more than that in a taller node.
 */
export function addToStack(node, element, leastHeight, { fixed = false } = {}) {
  const stack = stacks.get(node) ?? makeStack(node, fixed);
  stack.panels.push({ element, leastHeight });
  stack.element.append(element);
  refit(node);
}

/** To be called when a least height has changed. */
export function refit(node) {
  const { element, panels, height } = stacks.get(node);
  for (const panel of panels) panel.element.style.flex = `1 1 ${panel.leastHeight()}px`;
  const least = `${height()}px`;
  if (element.style.minHeight === least) return;
  element.style.minHeight = least;
  redraw();
}

/** Twice: a node takes its new size while it is drawn, and is drawn in it the next time. */
function redraw() {
  app.graph?.setDirtyCanvas(true, true);
  requestAnimationFrame(() => app.graph?.setDirtyCanvas(true, true));
}

function makeStack(node, fixed) {
  const element = document.createElement("div");
  element.className = "qvl-panels";
  const panels = [];
  const height = () => {
    const shown = panels.map(({ leastHeight }) => leastHeight()).filter(Boolean);
    return shown.reduce((sum, least) => sum + least + GAP, shown.length ? -GAP : 0);
  };
  const outerHeight = () => (height() ? height() + 2 * MARGIN : 0);
  const widget = node.addDOMWidget(NAME, NAME, element, {
    serialize: false, // in what is run
    hideOnZoom: false,
    hideInPanel: true, // of the node's parameters
    margin: MARGIN,
    getMinHeight: outerHeight,
    getMaxHeight: () => (fixed || !height() ? outerHeight() : undefined),
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // in what is saved, where values go by their position
  forwardToCanvas(element);
  owners.set(element, node);
  const stack = { element, panels, height };
  stacks.set(node, stack);
  return stack;
}

/**
 * With Vue nodes, undo and a change of tabs replace the graph's nodes but keep the drawn ones with
 * equal ids, and in them the elements of the replaced nodes: these are exchanged here.
 */
async function remount() {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // drawn by then
  for (const element of document.querySelectorAll(".qvl-panels")) {
    const id = element.closest("[data-node-id]")?.dataset.nodeId;
    const node = id && app.canvas.graph.getNodeById(id);
    const replacement = node && node !== owners.get(element) && stacks.get(node)?.element;
    if (replacement) element.replaceWith(replacement);
  }
}

/** On the legacy canvas the element lies over it: passes on the wheel, except to text that scrolls,
 * and the middle button. */
function forwardToCanvas(element) {
  const isOverCanvas = () => element.closest(".dom-widget");
  const scrollsText = ({ target, ctrlKey, metaKey, deltaX, deltaY }) => {
    const text = target.closest("[data-capture-wheel]");
    const sideways = ctrlKey || metaKey || Math.abs(deltaX) > Math.abs(deltaY);
    return text && text.scrollHeight > text.clientHeight && !sideways;
  };
  element.addEventListener("wheel", (event) => {
    if (!isOverCanvas() || scrollsText(event)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  });
  const middleButton = { pointerdown: "processMouseDown", pointerup: "processMouseUp" };
  for (const [kind, process] of Object.entries(middleButton)) {
    element.addEventListener(kind, (event) => {
      if (event.button === 1 && isOverCanvas()) app.canvas[process](event);
    });
  }
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & 4 && isOverCanvas()) app.canvas.processMouseMove(event);
  });
}

app.registerExtension({
  name: "qwenvlsuite.panel_stack",
  setup: () => addStylesheet("panel_stack.css"),
  afterConfigureGraph: () => void remount(),
});
