/**
 * Store of all answers, by workflow and node: it listens to ComfyUI's events and tells the panels
 * that watch a node. Answers outlast the nodes of the page, which undo and a change of tabs replace.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { AnswerState } from "./answer_state.js";
import { nodeAt, nodesById, outputKey, workflowOf } from "./graph.js";

const UI_KEY = "qwen_vl"; // in a node's output
const LIVE_EVENT = "qwen_vl.live";

const watchers = new WeakMap(); // functions by node
const answers = new Map(); // by workflow and execution id

/** From now on calls `draw(answer)` whenever the answer of `node` has changed. */
export function watch(node, draw) {
  watchers.set(node, [...(watchers.get(node) ?? []), draw]);
}

/** Shows picture `index` in all panels that show `answer`. */
export function showPicture(answer, index) {
  answer.show(index);
  notify(answer);
}

function answerAt(workflow, id) {
  const key = `${workflow} ${id}`;
  if (!answers.has(key)) answers.set(key, Object.assign(new AnswerState(), { workflow, id }));
  return answers.get(key);
}

function notify(answer) {
  const node = answer.workflow === app.rootGraph.id && nodeAt(answer.id);
  for (const draw of watchers.get(node) ?? []) draw(answer);
}

async function onLive({ detail }) {
  const answer = answerAt(await workflowOf(detail.prompt_id), detail.node);
  answer.prompt = detail.prompt_id;
  answer.receive(detail);
  notify(answer);
}

async function onExecuted({ detail }) {
  const results = resultsIn(detail.output);
  if (!results) return;
  const id = detail.display_node || detail.node;
  const answer = answerAt(await workflowOf(detail.prompt_id), id);
  finish(answer, results);
  if (answer.workflow !== app.rootGraph.id) removeForeignOutput(id, answer.results);
}

function resultsIn(output) {
  const results = output?.[UI_KEY];
  return Array.isArray(results) ? results : null;
}

function finish(answer, results) {
  answer.results = JSON.stringify(results);
  answer.finish(results);
  notify(answer);
}

/** ComfyUI stores each output with the tab on view, also that of a run from another tab. */
function removeForeignOutput(id, results) {
  const node = nodeAt(id);
  const key = node && outputKey(node);
  const stored = JSON.stringify(app.nodeOutputs[key]?.[UI_KEY]); // a copy in newer front ends
  if (stored === results) delete app.nodeOutputs[key];
}

async function onStart({ detail }) {
  const workflow = await workflowOf(detail.prompt_id);
  for (const answer of answers.values()) {
    if (answer.workflow !== workflow || !answer.error) continue;
    answer.clearError();
    notify(answer);
  }
}

/** Ends all answers of a run. Waits for its workflow, as the live messages before this one do. */
async function endAll(outcome, { prompt_id }) {
  await workflowOf(prompt_id);
  for (const answer of answers.values()) {
    if (!answer.running || answer.prompt !== prompt_id) continue;
    answer.end(outcome);
    notify(answer);
  }
}

/** The node that failed shows the reason: ComfyUI itself does so only on request. */
async function onError({ detail }) {
  const id = String(detail.node_id);
  const failed = answerAt(await workflowOf(detail.prompt_id), id);
  if (!failed.running || failed.prompt !== detail.prompt_id) failed.begin();
  failed.end("failed", (detail.exception_message ?? "").trim());
  notify(failed);
  await endAll("failed", detail);
}

/** The queue is empty: what still counts as running lost its end when a server went down. */
function onStatus({ detail }) {
  if (detail?.exec_info?.queue_remaining !== 0) return;
  for (const answer of answers.values()) {
    if (!answer.running) continue;
    answer.end("stopped");
    notify(answer);
  }
}

/** ComfyUI has loaded outputs: of a tab, or of a run that was opened from the history. */
function onOutputs(outputs) {
  for (const [id, node] of nodesById()) {
    const results = watchers.has(node) && resultsIn(outputs[outputKey(node)]);
    if (!results) continue;
    const answer = answerAt(app.rootGraph.id, id);
    // Known results may be older than the words of a run that is going on or was stopped.
    if (!answer.running && answer.results !== JSON.stringify(results)) finish(answer, results);
  }
}

app.registerExtension({
  name: "qwenvlsuite.answer_store",
  setup() {
    api.addEventListener("execution_start", onStart);
    api.addEventListener(LIVE_EVENT, onLive);
    api.addEventListener("executed", onExecuted);
    api.addEventListener("execution_interrupted", ({ detail }) => endAll("stopped", detail));
    api.addEventListener("execution_error", onError);
    api.addEventListener("status", onStatus);
  },
  afterConfigureGraph() {
    for (const answer of answers.values()) notify(answer);
  },
  onNodeOutputsUpdated: onOutputs,
});
