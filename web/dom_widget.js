/** What elements in nodes need beyond what ComfyUI does for them. */

import { app } from "../../scripts/app.js";
import { addStyle } from "./style.js";

const NAME = "qwen_vl_panels";
const MARGIN = 10; // around a widget on the legacy canvas, as ComfyUI's own text widgets have
const GAP = 6; // between two elements

const stacks = new WeakMap(); // by node
const owners = new WeakMap(); // nodes, by a stack's element

/**
 * Shows `element` in a node, below what was shown there before; it is neither run nor saved.
 *
 * `leastHeight()`, in pixels, is kept free from the beginning, also while the element is hidden: a
 * node does not grow over its neighbours when there is something to show. `fixed`: it takes no more
 * than that in a taller node.
 */
export function addElement(node, element, leastHeight, { fixed = false } = {}) {
  const stack = stacks.get(node) ?? addStack(node, fixed);
  stack.parts.push({ element, leastHeight });
  stack.element.append(element);
  refit(node);
}

/** To be called when a least height changed. */
export function refit(node) {
  const { element, parts, height } = stacks.get(node);
  for (const part of parts) part.element.style.flex = `1 1 ${part.leastHeight()}px`;
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

function addStack(node, fixed) {
  const element = document.createElement("div");
  element.className = "qvl-panels";
  const parts = [];
  const height = () => {
    const shown = parts.map(({ leastHeight }) => leastHeight()).filter(Boolean);
    return shown.reduce((sum, least) => sum + least + GAP, shown.length ? -GAP : 0);
  };
  const outer = () => (height() ? height() + 2 * MARGIN : 0);
  const widget = node.addDOMWidget(NAME, NAME, element, {
    serialize: false, // in what is run
    hideOnZoom: false,
    hideInPanel: true, // of the node's parameters
    margin: MARGIN,
    getMinHeight: outer,
    getMaxHeight: () => (fixed || !height() ? outer() : undefined),
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // in what is saved, where values go by their place
  letCanvasMove(element);
  owners.set(element, node);
  const stack = { element, parts, height };
  stacks.set(node, stack);
  return stack;
}

/**
 * With Vue nodes, undo and a change of tabs make the graph's nodes anew but keep what is drawn of
 * those with equal ids, and with it the elements of the old nodes: they are exchanged here.
 */
async function remount() {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // drawn by then
  for (const element of document.querySelectorAll(".qvl-panels")) {
    const id = element.closest("[data-node-id]")?.dataset.nodeId;
    const node = id && app.canvas.graph.getNodeById(id);
    const wanted = node && node !== owners.get(element) && stacks.get(node)?.element;
    if (wanted) element.replaceWith(wanted);
  }
}

/** On the legacy canvas the element lies over it: what is not for a text that scrolls is for below. */
function letCanvasMove(element) {
  const isOver = () => element.closest(".dom-widget");
  const scrolls = ({ target, ctrlKey, metaKey, deltaX, deltaY }) => {
    const text = target.closest("[data-capture-wheel]");
    const sideways = ctrlKey || metaKey || Math.abs(deltaX) > Math.abs(deltaY);
    return text && text.scrollHeight > text.clientHeight && !sideways;
  };
  element.addEventListener("wheel", (event) => {
    if (!isOver() || scrolls(event)) return;
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

app.registerExtension({
  name: "qwenvlsuite.panels",
  setup: () => addStyle("panels.css"),
  afterConfigureGraph: () => void remount(),
});
