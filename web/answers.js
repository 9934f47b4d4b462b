/** What the nodes of the page answered: as it is written, and as it was at the end. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Answer } from "./answer.js";
import { nodeAt, nodesById, outputPlace, workflowOf } from "./nodes.js";

const KEY = "qwen_vl"; // of a node's output
const LIVE = "qwen_vl.live";

const views = new WeakMap(); // by node; a node is made anew by undo and by changing tabs
const answers = new Map(); // by workflow and execution id, so that they outlast the nodes

/** From now on calls `draw(answer)` whenever there is something new to show of `node`. */
export function watch(node, draw) {
  views.set(node, [...(views.get(node) ?? []), draw]);
}

/** Shows picture `index` in all that shows `answer`. */
export function turn(answer, index) {
  answer.turn(index);
  draw(answer);
}

function answerAt(workflow, id) {
  const key = `${workflow} ${id}`;
  if (!answers.has(key)) answers.set(key, Object.assign(new Answer(), { workflow, id }));
  return answers.get(key);
}

function draw(answer) {
  const node = answer.workflow === app.rootGraph.id && nodeAt(answer.id);
  for (const view of views.get(node) ?? []) view(answer);
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

function resultsOf(output) {
  const results = output?.[KEY];
  return Array.isArray(results) ? results : null;
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

async function onStart({ detail }) {
  const workflow = await workflowOf(detail.prompt_id);
  for (const answer of answers.values()) {
    if (answer.workflow !== workflow || !answer.error) continue;
    answer.forgive();
    draw(answer);
  }
}

/** The end of all that still runs; after the words that are still waiting for their workflow. */
async function endAll(outcome, { prompt_id }) {
  await workflowOf(prompt_id);
  for (const answer of answers.values()) {
    if (!answer.running || answer.prompt !== prompt_id) continue;
    answer.end(outcome);
    draw(answer);
  }
}

/** The node that failed shows why: ComfyUI itself says so only where one asks for it. */
async function onError({ detail }) {
  const id = String(detail.node_id);
  const failed = answerAt(await workflowOf(detail.prompt_id), id);
  if (!failed.running || failed.prompt !== detail.prompt_id) failed.begin();
  failed.end("failed", (detail.exception_message ?? "").trim());
  draw(failed);
  await endAll("failed", detail);
}

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
    const results = views.has(node) && resultsOf(outputs[outputPlace(node)]);
    if (!results) continue;
    const answer = answerAt(app.rootGraph.id, id);
    // What is known already may be older than the words of a run that goes on or was stopped.
    if (!answer.running && answer.results !== JSON.stringify(results)) finish(answer, results);
  }
}

app.registerExtension({
  name: "qwenvlsuite.answers",
  setup() {
    api.addEventListener("execution_start", onStart);
    api.addEventListener(LIVE, onLive);
    api.addEventListener("executed", onExecuted);
    api.addEventListener("execution_interrupted", ({ detail }) => endAll("stopped", detail));
    api.addEventListener("execution_error", onError);
    api.addEventListener("status", onStatus);
  },
  afterConfigureGraph() {
    for (const answer of answers.values()) draw(answer);
  },
  onNodeOutputsUpdated: onOutputs,
});
