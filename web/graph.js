/** The graph on the page: its nodes by execution id, and which workflow a run belongs to. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/**
 * Every node of the workflow on the page with the id that it runs under: "12:5" is node 5 of the
 * subgraph in node 12. A node in a subgraph that is used twice comes twice.
 */
export function* nodesById(graph = app.rootGraph, path = "") {
  for (const node of graph.nodes) {
    yield [`${path}${node.id}`, node];
    if (node.subgraph) yield* nodesById(node.subgraph, `${path}${node.id}:`);
  }
}

export function nodeAt(executionId) {
  for (const [id, node] of nodesById()) if (id === String(executionId)) return node;
  return null;
}

/** Where ComfyUI keeps a node's output on the page: `app.nodeOutputs[outputKey(node)]`. */
export function outputKey(node) {
  return node.graph === app.rootGraph ? `${node.id}` : `${node.graph.id}:${node.id}`;
}

const workflows = new Map(); // promises of workflow ids, by prompt id

/**
 * The id of the workflow that a run was queued from, which need not be in the tab on view.
 * A run of unknown origin is taken to be of the workflow on view.
 */
export async function workflowOf(promptId) {
  if (!workflows.has(promptId)) workflows.set(promptId, fetchWorkflow(promptId));
  return (await workflows.get(promptId)) ?? app.rootGraph.id;
}

async function fetchWorkflow(promptId) {
  try {
    const response = await api.fetchApi(`/jobs/${encodeURIComponent(promptId)}`);
    return response.ok ? (await response.json()).workflow_id : null;
  } catch (error) {
    console.warn("Qwen-VL: the workflow of a run is not known:", error);
    return null;
  }
}
