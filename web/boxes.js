/**
 * Boxes over the picture in the nodes that find them or choose among them. A click switches a box
 * off in every Pick Boxes node that the boxes reach.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { turn, watch } from "./answers.js";
import { entryOf, keyOf, reached, readChoice, writeChoice } from "./box_choice.js";
import { BoxView } from "./box_view.js";
import { addElement } from "./dom_widget.js";
import { nodesById } from "./nodes.js";
import { addStyle } from "./style.js";
import "./text.js"; // first, so that the text stands above the picture
import { say } from "./words.js";

const PICKER = "QVL_PickBoxes";
const FINDERS = new Set(["QVL_Grounding", "QVL_OCR"]);
const LEAST_HEIGHT = 220; // pixels
const HINT = "Add Qwen-VL Pick Boxes to use this choice";
const WAITING = "The boxes appear here";

const overlays = new WeakMap(); // by node; a node is made anew by undo and by changing tabs

class Overlay {
  constructor(node) {
    this.node = node;
    this.own = new Map(); // the choice while there is no Pick Boxes to hold it
    this.choices = [this.own];
    this.view = new BoxView({
      isOff: (picture, box) => this.isOff(keyOf(entryOf(picture, box))),
      onSwitch: (picture, off, on) => this.switch(picture, off, on),
      onTurn: (index) => turn(this.answer, index),
      urlOf: (picture) => api.apiURL(`/view?${new URLSearchParams(picture)}`),
      onAdd: () => this.addPicker(),
    });
    this.view.element.addEventListener("pointerenter", () => this.refresh());
    keepKeys(this.view.element);
    addElement(node, this.view.element, () => LEAST_HEIGHT);
    watch(node, (answer) => this.show(answer));
    if (this.picks) this.view.wait(say(WAITING));
  }

  get picks() {
    return this.node.comfyClass === PICKER;
  }

  /** Of the node's answer, what there is to draw: nothing for text without boxes. While a run goes
   * on, and after one that was stopped, that of the last one. */
  show(answer) {
    this.answer = answer;
    const { entries, shown, outcome, error, running } = answer;
    const isDrawn = entries.length && entries.every(({ size }) => size);
    if (isDrawn) this.view.show(entries, shown);
    else if (running || outcome === "stopped") this.view.show(this.view.entries, shown);
    else if (this.picks) this.view.wait(error || say(WAITING), Boolean(error));
    else this.view.wait("");
    this.refresh();
  }

  /** The Pick Boxes nodes that hold the choice. */
  pickers() {
    if (this.picks) return [this.node];
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
    this.view.suggest(this.own.size ? say(HINT) : "");
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

app.registerExtension({
  name: "qwenvlsuite.boxes",
  setup: () => addStyle("boxes.css"),
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
});

function hide(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
}
