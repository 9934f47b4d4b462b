/** The text of the nodes that answer: as it is written, and as it was at the end. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Answer } from "./answer.js";
import { nodeAt, nodesById, outputPlace, workflowOf } from "./nodes.js";
import { addStyle } from "./style.js";
import { TextPanel } from "./text_panel.js";

const ANSWERING = new Set(["QVL_Describe", "QVL_OCR", "QVL_Grounding"]);
const KEY = "qwen_vl"; // of a node's output
const LIVE = "qwen_vl.live";
const MARGIN = 10; // as ComfyUI's own text widgets have
const HEIGHT = { empty: 26, shown: 150 }; // the least, in the canvas's units

const panels = new WeakMap(); // by node; a node is made anew by undo and by changing tabs
const answers = new Map(); // by workflow and execution id, so that they outlast the nodes

function answerAt(workflow, id) {
  const key = `${workflow} ${id}`;
  if (!answers.has(key)) answers.set(key, Object.assign(new Answer(), { workflow, id }));
  return answers.get(key);
}

function draw(answer) {
  const node = answer.workflow === app.rootGraph.id && nodeAt(answer.id);
  const panel = node && panels.get(node);
  if (!panel) return;
  const was = panel.isEmpty;
  panel.draw(answer);
  if (was !== panel.isEmpty) redraw(); // its least height changed
}

/** Twice: a node takes its new size while it is drawn, and is drawn in it the next time. */
function redraw(again = true) {
  app.graph.setDirtyCanvas(true, true);
  if (again) requestAnimationFrame(() => requestAnimationFrame(() => redraw(false)));
}

async function onLive({ detail }) {
  const answer = answerAt(await workflowOf(detail.prompt_id), detail.node);
  answer.prompt = detail.prompt_id;
  answer.hear(detail);
  draw(answer);
}

async function onExecuted({ detail }) {
  const results = resultsOf(detail.output);
  if (!results) return;
  const id = detail.display_node || detail.node;
  const answer = answerAt(await workflowOf(detail.prompt_id), id);
  finish(answer, results);
  if (answer.workflow !== app.rootGraph.id) forgetForeign(id, answer.results);
}

/** Each entry of a text node has a text; other nodes of ours show other things under the key. */
function resultsOf(output) {
  const results = output?.[KEY];
  return Array.isArray(results) && results.every((entry) => "text" in entry) ? results : null;
}

function finish(answer, results) {
  answer.results = JSON.stringify(results);
  answer.finish(results);
  draw(answer);
}

/** ComfyUI files every output under the tab on view, also that of a run from another tab. */
function forgetForeign(id, results) {
  const node = nodeAt(id);
  const place = node && outputPlace(node);
  const filed = JSON.stringify(app.nodeOutputs[place]?.[KEY]); // a copy in newer front ends
  if (filed === results) delete app.nodeOutputs[place];
}

const onEnd = (outcome) =>
  async function ({ detail }) {
    await workflowOf(detail.prompt_id); // after the words that are still waiting for it
    for (const answer of answers.values()) {
      if (!answer.running || answer.prompt !== detail.prompt_id) continue;
      answer.end(outcome);
      draw(answer);
    }
  };

/** Nothing is queued any more: what still seems to run lost its end with a server that went down. */
function onStatus({ detail }) {
  if (detail?.exec_info?.queue_remaining !== 0) return;
  for (const answer of answers.values()) {
    if (!answer.running) continue;
    answer.end("stopped");
    draw(answer);
  }
}

/** Outputs that ComfyUI has anew: of a tab, or of a run that was opened from the history. */
function onOutputs(outputs) {
  for (const [id, node] of nodesById()) {
    const results = panels.has(node) && resultsOf(outputs[outputPlace(node)]);
    if (!results) continue;
    const answer = answerAt(app.rootGraph.id, id);
    // What is known already may be older than the words of a run that goes on or was stopped.
    if (!answer.running && answer.results !== JSON.stringify(results)) finish(answer, results);
  }
}

function addPanel(node) {
  const panel = new TextPanel();
  panels.set(node, panel);
  const widget = node.addDOMWidget("qwen_vl_text", "qwen_vl_text", panel.element, {
    serialize: false, // not in the prompt
    margin: MARGIN,
    getMinHeight: () => (panel.isEmpty ? HEIGHT.empty : HEIGHT.shown) + 2 * MARGIN,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // not in the saved workflow
  letCanvasMove(panel);
}

/** On the legacy canvas the panel lies over it: what is not for the text goes below. */
function letCanvasMove({ element, body }) {
  const isOver = () => element.closest(".dom-widget");
  const scrolls = ({ target, ctrlKey, metaKey, deltaX, deltaY }) =>
    body.contains(target) &&
    body.scrollHeight > body.clientHeight &&
    !(ctrlKey || metaKey || Math.abs(deltaX) > Math.abs(deltaY));
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
  name: "qwenvlsuite.answers",
  setup() {
    addStyle("text_panel.css");
    api.addEventListener(LIVE, onLive);
    api.addEventListener("executed", onExecuted);
    api.addEventListener("execution_interrupted", onEnd("stopped"));
    api.addEventListener("execution_error", onEnd("failed"));
    api.addEventListener("status", onStatus);
  },
  nodeCreated(node) {
    if (ANSWERING.has(node.comfyClass)) addPanel(node);
  },
  afterConfigureGraph() {
    for (const answer of answers.values()) draw(answer);
  },
  onNodeOutputsUpdated: onOutputs,
});
