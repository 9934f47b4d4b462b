/** How all nodes of the pack look: their size, and what the choices in their lists are called. */

import { app } from "../../scripts/app.js";
import { choicesOf } from "./language.js";
import { isOurs } from "./nodes.js";

const WIDEST = 480; // pixels, of a node that was just made
const BESIDE = 90; // of a list's row, what is neither its name nor its value
const FONT = "12px Arial, sans-serif"; // about that of either renderer

const pen = new OffscreenCanvas(1, 1).getContext("2d");
pen.font = FONT;
const widthOf = (text) => pen.measureText(text).width;

const listsOf = (node) => (node.widgets ?? []).filter(({ type }) => type === "combo");

/** In words of the page's language, with the value itself: messages and help speak of that. */
function nameChoices(widget) {
  const names = choicesOf(widget.name);
  if (!Object.keys(names).length) return;
  const nameOf = (value) => (names[value] ? `${names[value]} (${value})` : `${value ?? ""}`);
  widget.options.getOptionLabel = nameOf;
}

/** Wide enough for the longest choice of every list, such as a model's whole name. */
function widen(node) {
  const rows = listsOf(node).flatMap(({ name, label, options }) => {
    const values = Array.isArray(options.values) ? options.values : [];
    const nameOf = options.getOptionLabel ?? String;
    return values.map((value) => widthOf(label ?? name) + widthOf(nameOf(value)) + BESIDE);
  });
  const width = Math.min(WIDEST, Math.max(node.size[0], ...rows));
  if (width > node.size[0]) node.setSize([width, node.size[1]]);
}

/** Choices that bring inputs of their own ask how high the node must be now, and make it so, also
 * while a workflow is opened: it stays as high as it was made. */
function keepHeight(node) {
  const leastSize = node.computeSize;
  node.computeSize = function (size) {
    const height = size?.[1] ?? 0;
    const least = leastSize.call(this, size);
    least[1] = Math.max(least[1], height);
    return least;
  };
}

app.registerExtension({
  name: "qwenvlsuite.look",
  nodeCreated(node) {
    if (!isOurs(node)) return;
    for (const widget of listsOf(node)) nameChoices(widget);
    widen(node);
    keepHeight(node);
  },
});
