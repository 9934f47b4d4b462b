/** Appearance of all nodes of the pack: their size, and the names of the choices in their lists. */

import { app } from "../../scripts/app.js";
import { isOurs } from "./declared_panels.js";
import { choiceNames } from "./locale.js";

const MAX_WIDTH = 480; // pixels, of a new node
const ROW_PADDING = 90; // pixels of a list's row beside its name and its value
const FONT = "12px Arial, sans-serif"; // about that of either renderer

const pen = new OffscreenCanvas(1, 1).getContext("2d");
pen.font = FONT;
const textWidth = (text) => pen.measureText(text).width;

const comboWidgets = (node) => (node.widgets ?? []).filter(({ type }) => type === "combo");

/** Names the choices in the page's language, with the value itself, which messages and help use. */
function translateChoices(widget) {
  const names = choiceNames(widget.name.split(".").at(-1)); // of one within another: "task.style"
  if (!Object.keys(names).length) return;
  const label = (value) => (names[value] ? `${names[value]} (${value})` : `${value ?? ""}`);
  widget.options.getOptionLabel = label;
}

/** Makes the node wide enough for the longest choice of each list, such as a model's full name. */
function widen(node) {
  const rows = comboWidgets(node).flatMap(({ name, label, options }) => {
    const values = Array.isArray(options.values) ? options.values : [];
    const optionLabel = options.getOptionLabel ?? String;
    return values.map((value) => textWidth(label ?? name) + textWidth(optionLabel(value)) + ROW_PADDING);
  });
  const width = Math.min(MAX_WIDTH, Math.max(node.size[0], ...rows));
  if (width > node.size[0]) node.setSize([width, node.size[1]]);
}

/** A choice that brings inputs of its own makes ComfyUI shrink the node to its least height, also
 * while a workflow is opened: this keeps the height that the node has, and names their choices. */
function keepHeight(node) {
  const leastSize = node.computeSize;
  node.computeSize = function (size) {
    for (const widget of comboWidgets(this)) translateChoices(widget); // new ones too
    const height = size?.[1] ?? 0;
    const least = leastSize.call(this, size);
    least[1] = Math.max(least[1], height);
    return least;
  };
}

app.registerExtension({
  name: "qwenvlsuite.node_appearance",
  nodeCreated(node) {
    if (!isOurs(node)) return;
    for (const widget of comboWidgets(node)) translateChoices(widget);
    widen(node);
    keepHeight(node);
  },
});
