/**
 * Boxes over the picture in the nodes that find them or choose among them. A click switches a box
 * off in every Pick Boxes node that the boxes reach.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { entryOf, keyOf, reached, readChoice, writeChoice } from "./box_choice.js";
import "./answers.js"; // first, so that the text stands above the picture
import { BoxView } from "./box_view.js";
import { addElement, remount } from "./dom_widget.js";
import { nodeAt, nodesById, outputPlace, workflowOf } from "./nodes.js";
import { addStyle } from "./style.js";

const PICKER = "QVL_PickBoxes";
const FINDERS = new Set(["QVL_Grounding", "QVL_OCR"]);
const KEY = "qwen_vl"; // of a node's output
const LEAST_HEIGHT = 260; // with the margins around a widget
const HINT = "Add Qwen-VL Pick Boxes to use this choice";

const overlays = new WeakMap(); // by node; a node is made anew by undo and by changing tabs
const late = new Map(); // outputs of runs from a tab that was not on view, see keptAs

class Overlay {
  constructor(node) {
    this.node = node;
    this.own = new Map(); // the choice while there is no Pick Boxes to hold it
    this.choices = [this.own];
    this.view = new BoxView({
      isOff: (picture, box) => this.isOff(keyOf(entryOf(picture, box))),
      onSwitch: (picture, off, on) => this.switch(picture, off, on),
      urlOf: (picture) => api.apiURL(`/view?${new URLSearchParams(picture)}`),
      onAdd: () => this.addPicker(),
    });
    this.view.element.addEventListener("pointerenter", () => this.refresh());
    const isShown = () => this.view.entries.length > 0;
    keepKeys(this.view.element);
    addElement(node, "qwen_vl_boxes", this.view.element, () => (isShown() ? LEAST_HEIGHT : 0));
  }

  /** Of the node's output, what there is to draw; nothing for text without boxes. */
  show(output) {
    const entries = (output?.[KEY] ?? []).filter((entry) => entry.size);
    const found = entries.some((entry) => entry.boxes.length || entry.points.length);
    const shown = found || this.node.comfyClass !== "QVL_OCR" ? entries : [];
    this.view.show(shown);
    this.refresh();
    app.graph.setDirtyCanvas(true, true); // the node grows by the picture's least height
  }

  /** The Pick Boxes nodes that hold the choice. */
  pickers() {
    if (this.node.comfyClass === PICKER) return [this.node];
    const isPicker = (node, input) => node.comfyClass === PICKER && input.name === "bboxes";
    return reached(this.node, "bboxes", isPicker, app.rootGraph);
  }

  refresh() {
    if (!this.view.entries.length) return;
    const pickers = this.pickers();
    if (pickers.length && this.own.size) {
      this.change(pickers, (choice) => this.own.forEach((entry, key) => choice.set(key, entry)));
      this.own.clear();
    }
    this.choices = pickers.length ? pickers.map(read) : [this.own];
    this.view.say(this.own.size ? HINT : "");
    this.view.refresh();
  }

  isOff(key) {
    return this.choices.every((choice) => choice.has(key));
  }

  switch(picture, off, on) {
    const edit = (choice) => {
      for (const entry of off.map((box) => entryOf(picture, box))) choice.set(keyOf(entry), entry);
      for (const box of on) choice.delete(keyOf(entryOf(picture, box)));
    };
    const pickers = this.pickers();
    if (pickers.length) this.change(pickers, edit);
    else edit(this.own);
    refreshAll();
  }

  /** Edits the choice in every one of `pickers`, and forgets boxes that are no longer there. */
  change(pickers, edit) {
    const here = new Set(
      this.view.entries.flatMap(({ boxes }, picture) =>
        boxes.map((box) => keyOf(entryOf(picture, box))),
      ),
    );
    for (const node of pickers) {
      const choice = read(node);
      edit(choice);
      write(node, new Map([...choice].filter(([key]) => here.has(key))));
    }
  }

  /** A Pick Boxes beside the node, on the same boxes and pictures; the choice goes to it. */
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
const offOf = (node) => node.widgets.find((widget) => widget.name === "off");
const read = (node) => readChoice(offOf(node).value);

function write(node, choice) {
  const widget = offOf(node);
  undoable(() => {
    widget.value = writeChoice(choice);
    widget.callback?.(widget.value);
  });
}

/** One step of ComfyUI's undo, which by itself looks for changes before a click is heard. */
function undoable(change) {
  app.canvas.emitBeforeChange();
  change();
  app.canvas.emitAfterChange();
  app.graph.setDirtyCanvas(true, true);
}

function refreshAll() {
  for (const [, node] of nodesById()) overlays.get(node)?.refresh();
}

/** The keys that press a button are no shortcuts of the canvas. */
function keepKeys(element) {
  for (const kind of ["keydown", "keyup"]) {
    element.addEventListener(kind, (event) => {
      if (event.key === " " || event.key === "Enter") event.stopPropagation();
    });
  }
}

const keptAs = (workflow, executionId) => `${workflow} ${executionId}`;

async function onExecuted({ detail }) {
  if (!detail.output?.[KEY]) return;
  const id = detail.display_node || detail.node;
  const workflow = await workflowOf(detail.prompt_id);
  const key = keptAs(workflow, id);
  if (workflow === app.rootGraph.id) {
    late.delete(key);
    overlays.get(nodeAt(id))?.show(detail.output);
  } else {
    late.set(key, detail.output);
  }
}

/** Outputs that are there already: after undo, in another tab, of a run opened from the history. */
function restore() {
  for (const [id, node] of nodesById()) {
    const output = late.get(keptAs(app.rootGraph.id, id)) ?? app.nodeOutputs[outputPlace(node)];
    if (output) overlays.get(node)?.show(output);
  }
}

app.registerExtension({
  name: "qwenvlsuite.boxes",
  setup() {
    addStyle("boxes.css");
    api.addEventListener("executed", onExecuted);
  },
  nodeCreated(node) {
    const picks = node.comfyClass === PICKER;
    if (!picks && !FINDERS.has(node.comfyClass)) return;
    overlays.set(node, new Overlay(node));
    const before = node.onConnectionsChange;
    node.onConnectionsChange = function (...change) {
      queueMicrotask(refreshAll); // when the change is made
      return before?.apply(this, change);
    };
    if (picks) hide(offOf(node));
  },
  afterConfigureGraph() {
    restore();
    remount(".qvl-boxes", (node) => overlays.get(node)?.view.element);
  },
  onNodeOutputsUpdated: restore,
});

function hide(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
}
