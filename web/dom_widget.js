/** What elements in nodes need beyond what ComfyUI does for them. */

import { app } from "../../scripts/app.js";

const owners = new WeakMap(); // nodes, by element

/** Adds `element` to a node as a widget that is neither run nor saved. `leastHeight()` in pixels,
 * with the margins. */
export function addElement(node, name, element, leastHeight) {
  owners.set(element, node);
  const widget = node.addDOMWidget(name, name, element, {
    serialize: false, // in what is run
    hideOnZoom: false,
    getValue: () => "",
    setValue: () => {},
    getMinHeight: leastHeight,
  });
  widget.serialize = false; // in what is saved, where values go by their place
  letCanvasMove(element);
}

/**
 * With Vue nodes, undo and a change of tabs make the graph's nodes anew but keep what is drawn of
 * those with equal ids, and with it the elements of the old nodes: they are exchanged here.
 * `elementOf(node)` is the element that belongs there.
 */
export async function remount(selector, elementOf) {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // drawn by then
  for (const element of document.querySelectorAll(selector)) {
    const id = element.closest("[data-node-id]")?.dataset.nodeId;
    const node = id && app.canvas.graph.getNodeById(id);
    const wanted = node && node !== owners.get(element) && elementOf(node);
    if (wanted) element.replaceWith(wanted);
  }
}

/** On the legacy canvas the element lies over it: the wheel and the middle button are for below. */
function letCanvasMove(element) {
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
