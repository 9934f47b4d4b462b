/** Appearance of all nodes of the pack: their size, and the names of the choices in their lists and
 * of slots that grow. */

import { app } from "../../scripts/app.js";
import { isOurs } from "./declared_panels.js";
import { after } from "./hooks.js";
import { choiceNames } from "./locale.js";
import { translate } from "./translate.js";

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

/** Names the slots of inputs that grow, such as "images.image_0", in the page's language. ComfyUI
 * gives each of them the label "image_0", which goes before any translation and into the saved
 * workflow: it is taken away where there is a translation, and given back where there is none. */
function nameSlots(node) {
  for (const input of node.inputs ?? []) {
    const [, own, kind, number] = input.name.match(/^\w+\.((\w+)_(\d+))$/) ?? [];
    if (!own || (input.label && input.label !== own)) continue; // or it has a name of the user's
    const name = translate(`${kind}_{number}`, { number });
    input.label = name === own ? own : undefined;
    input.localized_name = name;
  }
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
    for (const event of ["onConnectionsChange", "onConfigure"]) {
      after(node, event, () => nameSlots(node));
    }
    nameSlots(node);
    widen(node);
    keepHeight(node);
  },
});
