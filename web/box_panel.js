/**
 * Box panel: the boxes over the picture, in nodes that find them or choose among them. A click
 * switches a box off in every node downstream that chooses: one that declares the widget which
 * holds the selection.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { showPicture, watch } from "./answer_store.js";
import { entryOf, formatSelection, keyOf, parseSelection } from "./box_selection.js";
import { BoxView } from "./box_view.js";
import { definePanel, panelOptions } from "./declared_panels.js";
import { nodesById } from "./graph.js";
import { after } from "./hooks.js";
import { reachedNodes } from "./links.js";
import { addToStack } from "./panel_stack.js";
import { translate } from "./translate.js";

const PICKER = "QVL_PickBoxes"; // the node that the hint adds
const LEAST_HEIGHT = 220; // pixels
const HINT = "Add Qwen-VL Pick Boxes to use this choice";
const WAITING = "The boxes appear here";

const panels = new WeakMap(); // by node; undo and a change of tabs replace the nodes

class BoxPanel {
  constructor(node) {
    this.node = node;
    this.own = new Map(); // the selection while no node downstream holds it
    this.selections = [this.own];
    this.view = new BoxView({
      isOff: (picture, box) => this.isOff(keyOf(entryOf(picture, box))),
      onSwitch: (picture, off, on) => this.switch(picture, off, on),
      onTurn: (index) => showPicture(this.answer, index),
      urlOf: (picture) => api.apiURL(`/view?${new URLSearchParams(picture)}`),
      onHint: () => this.addPicker(),
    });
    this.view.element.addEventListener("pointerenter", () => this.refresh());
    keepKeys(this.view.element);
    addToStack(node, this.view.element, () => LEAST_HEIGHT);
    watch(node, (answer) => this.show(answer));
    if (isPicker(node)) this.view.showMessage(translate(WAITING));
  }

  /** Draws the pictures and boxes of the node's answer; nothing for text without boxes. During a
   * run, and after a stopped one, those of the last run stay. */
  show(answer) {
    this.answer = answer;
    const { entries, shown, outcome, error, running } = answer;
    const hasPictures = entries.length && entries.every(({ size }) => size);
    if (hasPictures) this.view.show(entries, shown);
    else if (running || outcome === "stopped") this.view.show(this.view.entries, shown);
    else if (isPicker(this.node)) this.view.showMessage(error || translate(WAITING), Boolean(error));
    else this.view.showMessage("");
    this.refresh();
  }

  /** The nodes that hold the selection. */
  pickers() {
    if (isPicker(this.node)) return [this.node];
    const accepts = (node, input) => isPicker(node) && input.name === "bboxes";
    return reachedNodes(this.node, "bboxes", accepts, app.rootGraph);
  }

  refresh() {
    if (!this.view.entries.length) return;
    const pickers = this.pickers();
    if (pickers.length && this.own.size) {
      this.edit(pickers, (selection) =>
        this.own.forEach((entry, key) => selection.set(key, entry)),
      );
      this.own.clear();
    }
    this.selections = pickers.length ? pickers.map(read) : [this.own];
    this.view.showHint(this.own.size ? translate(HINT) : "");
    this.view.refresh();
  }

  isOff(key) {
    return this.selections.every((selection) => selection.has(key));
  }

  switch(picture, off, on) {
    const change = (selection) => {
      for (const entry of off.map((box) => entryOf(picture, box))) {
        selection.set(keyOf(entry), entry);
      }
      for (const box of on) selection.delete(keyOf(entryOf(picture, box)));
    };
    const pickers = this.pickers();
    if (pickers.length) this.edit(pickers, change);
    else change(this.own);
    refreshAll();
  }

  /** Applies `change` to the selection of each of `pickers`, and drops boxes that are gone. */
  edit(pickers, change) {
    const present = new Set(
      this.view.entries.flatMap(({ boxes }, picture) =>
        boxes.map((box) => keyOf(entryOf(picture, box))),
      ),
    );
    for (const node of pickers) {
      const selection = read(node);
      change(selection);
      write(node, new Map([...selection].filter(([key]) => present.has(key))));
    }
  }

  /** Adds a Pick Boxes beside the node, on the same boxes and pictures; it gets the selection. */
  addPicker() {
    const { node } = this;
    undoable(() => {
      const picker = globalThis.LiteGraph.createNode(PICKER);
      picker.pos = [node.pos[0] + node.size[0] + 40, node.pos[1]];
      node.graph.add(picker);
      node.connect(slotOf(node.outputs, "bboxes"), picker, slotOf(picker.inputs, "bboxes"));
      const link = node.getInputLink(slotOf(node.inputs, "images"));
      const source = link && node.graph.getNodeById(link.origin_id);
      source?.connect(link.origin_slot, picker, slotOf(picker.inputs, "images"));
      refreshAll();
    });
  }
}

const slotOf = (slots, name) => slots.findIndex((slot) => slot.name === name);
const selectionName = (node) => panelOptions(node, "boxes")?.selection;
const isPicker = (node) => Boolean(selectionName(node));
const selectionWidget = (node) => node.widgets.find(({ name }) => name === selectionName(node));
const read = (node) => parseSelection(selectionWidget(node).value);

function write(node, selection) {
  const widget = selectionWidget(node);
  undoable(() => {
    widget.value = formatSelection(selection);
    widget.callback?.(widget.value);
  });
}

/** Makes `change` one step of ComfyUI's undo, which by itself looks for changes before a click. */
function undoable(change) {
  app.canvas.emitBeforeChange();
  change();
  app.canvas.emitAfterChange();
  app.graph.setDirtyCanvas(true, true);
}

function refreshAll() {
  for (const [, node] of nodesById()) panels.get(node)?.refresh();
}

/** Keeps the keys that press a button from being shortcuts of the canvas. */
function keepKeys(element) {
  for (const kind of ["keydown", "keyup"]) {
    element.addEventListener(kind, (event) => {
      if (event.key === " " || event.key === "Enter") event.stopPropagation();
    });
  }
}

definePanel("boxes", "box_view.css", (node) => {
  panels.set(node, new BoxPanel(node));
  after(node, "onConnectionsChange", () => queueMicrotask(refreshAll)); // once the change is made
  if (isPicker(node)) hide(selectionWidget(node));
});

function hide(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
}
