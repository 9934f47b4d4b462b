/** Box selection: which boxes are switched off, as the text of a widget. Knows no ComfyUI. */

/** What identifies a box over several runs: its place and label, as in nodes/picking.py. */
export function entryOf(picture, { x1, y1, x2, y2, label }) {
  return { picture, x: x1, y: y1, width: x2 - x1, height: y2 - y1, label };
}

/** The same as one string, for lookup. */
export function keyOf(entry) {
  const { picture, x, y, width, height, label } = entry;
  return JSON.stringify([picture, x, y, width, height, label ?? ""]);
}

/** A widget's text as a map from key to entry. Invalid text counts as empty: the node itself
 * reports it when it runs. */
export function parseSelection(text) {
  try {
    const entries = JSON.parse(text || "[]");
    return new Map(entries.map((entry) => [keyOf(entry), entry]));
  } catch (error) {
    console.warn("Qwen-VL: the selection of boxes cannot be read and starts empty.", error);
    return new Map();
  }
}

/** The text of a map, the same for equal selections in whatever order they were made. */
export function formatSelection(selection) {
  if (!selection.size) return "";
  const entries = [...selection].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  return JSON.stringify(entries);
}
