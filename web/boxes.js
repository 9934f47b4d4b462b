/**
 * Boxes over the picture in the nodes that find them or choose among them. A click switches a box
 * off in every Pick Boxes node that the boxes reach.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { entryOf, keyOf, reached, readChoice, writeChoice } from "./box_choice.js";
import { BoxView } from "./box_view.js";

const PICKER = "QVL_PickBoxes";
const FINDERS = new Set(["QVL_Grounding", "QVL_OCR"]);
const KEY = "qwen_vl"; // of a node's output
const LEAST_HEIGHT = 260; // with the margins around a widget
const HINT = "Add Qwen-VL Pick Boxes to use this choice";

const overlays = new Set();

class Overlay {
  constructor(node) {
    this.node = node;
    this.own = new Map(); // the choice while there is no Pick Boxes to hold it
    this.choices = [this.own];
    this.view = new BoxView({
      isOff: (picture, box) => this.isOff(keyOf(entryOf(picture, box))),
      onSwitch: (picture, boxes, off) => this.switch(picture, boxes, off),
      urlOf: (picture) => api.apiURL(`/view?${new URLSearchParams(picture)}`),
      onAdd: () => this.addPicker(),
    });
    this.view.element.addEventListener("pointerenter", () => this.refresh());
    passOn(this.view.element);
    const widget = node.addDOMWidget("qwen_vl_boxes", "qwen_vl_boxes", this.view.element, {
      serialize: false, // in what is run
      hideOnZoom: false,
      getValue: () => "",
      setValue: () => {},
      getMinHeight: () => (this.view.entries.length ? LEAST_HEIGHT : 0),
    });
    widget.serialize = false; // in what is saved, where values go by their place
  }

  /** Of the node's output, what there is to draw; nothing for text without boxes. */
  show(output) {
    const entries = (output?.[KEY] ?? []).filter((entry) => entry.size);
    const found = entries.some((entry) => entry.boxes.length || entry.points.length);
    const shown = found || this.node.comfyClass !== "QVL_OCR" ? entries : [];
    const grows = shown.length && !this.view.entries.length;
    this.view.show(shown);
    this.refresh();
    if (grows) this.grow();
  }

  /** Room for the picture, once; afterwards the size is the person's. */
  grow() {
    const [width, height] = this.node.size;
    const least = this.node.computeSize();
    this.node.setSize([Math.max(width, least[0], 300), Math.max(height, least[1])]);
    app.graph.setDirtyCanvas(true, true);
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

  switch(picture, boxes, off) {
    const edit = (choice) => {
      for (const entry of boxes.map((box) => entryOf(picture, box))) {
        if (off) choice.set(keyOf(entry), entry);
        else choice.delete(keyOf(entry));
      }
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

  addPicker() {
    const { node } = this;
    const picker = globalThis.LiteGraph.createNode(PICKER);
    picker.pos = [node.pos[0] + node.size[0] + 40, node.pos[1]];
    node.graph.add(picker);
    node.connect(slotOf(node.outputs, "bboxes"), picker, slotOf(picker.inputs, "bboxes"));
    const link = node.getInputLink(slotOf(node.inputs, "images"));
    const source = link && node.graph.getNodeById(link.origin_id);
    source?.connect(link.origin_slot, picker, slotOf(picker.inputs, "images"));
    refreshAll();
  }
}

const slotOf = (slots, name) => slots.findIndex((slot) => slot.name === name);
const offOf = (node) => node.widgets.find((widget) => widget.name === "off");
const read = (node) => readChoice(offOf(node).value);

function write(node, choice) {
  const widget = offOf(node);
  widget.value = writeChoice(choice);
  widget.callback?.(widget.value);
  app.graph.setDirtyCanvas(true, true);
}

function refreshAll() {
  for (const overlay of overlays) {
    if (overlay.node.graph) overlay.refresh();
    else overlays.delete(overlay);
  }
}

/** The canvas below still zooms and pans, and its keys do not answer to ours. */
function passOn(element) {
  const onLegacyCanvas = () => element.closest(".dom-widget");
  element.addEventListener("wheel", (event) => {
    if (onLegacyCanvas()) app.canvas.processMouseWheel(event);
  });
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 1 && onLegacyCanvas()) app.canvas.processMouseDown(event);
  });
  for (const kind of ["keydown", "keyup"]) {
    element.addEventListener(kind, (event) => {
      if (event.key === " " || event.key === "Enter") event.stopPropagation();
    });
  }
}

function chain(node, name, then) {
  const before = node[name];
  node[name] = function (...values) {
    const result = before?.apply(this, values);
    then(...values);
    return result;
  };
}

/** Results that ComfyUI still has, for nodes that are made anew: another tab, undo. */
function restore(overlay) {
  const { node } = overlay;
  const place = node.graph === app.rootGraph ? `${node.id}` : `${node.graph?.id}:${node.id}`;
  const output = app.nodeOutputs?.[place];
  if (output?.[KEY] && !overlay.view.entries.length) overlay.show(output);
}

function addStyle() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("./boxes.css", import.meta.url).href;
  document.head.append(style);
}

app.registerExtension({
  name: "QwenVL.Boxes",
  setup: addStyle,
  nodeCreated(node) {
    if (node.comfyClass !== PICKER && !FINDERS.has(node.comfyClass)) return;
    const overlay = new Overlay(node);
    overlays.add(overlay);
    chain(node, "onExecuted", (output) => overlay.show(output));
    chain(node, "onConnectionsChange", () => queueMicrotask(refreshAll));
    if (node.comfyClass === PICKER) {
      const off = offOf(node);
      off.hidden = true;
      off.options.hidden = true;
    }
  },
  afterConfigureGraph() {
    overlays.forEach(restore);
  },
  onNodeOutputsUpdated() {
    overlays.forEach(restore);
  },
});
