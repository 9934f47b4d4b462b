/** Links of the graph: which nodes an output reaches. Knows no page and no ComfyUI module. */

/**
 * The nodes that an output reaches and `accepts(node, input)` accepts: over links, reroute nodes,
 * and the borders of subgraphs.
 */
export function reachedNodes(node, outputName, accepts, rootGraph) {
  const reached = new Set();
  const visited = new Set();
  const follow = (graph, linkIds) => {
    for (const id of linkIds ?? []) {
      const link = graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id];
      if (link && !visited.has(link)) {
        visited.add(link);
        arrive(graph, link);
      }
    }
  };
  const arrive = (graph, link) => {
    if (graph.outputNode && link.target_id === graph.outputNode.id) {
      for (const host of hostsOf(graph, rootGraph)) {
        follow(host.graph, host.outputs[link.target_slot]?.links);
      }
      return;
    }
    const target = graph.getNodeById(link.target_id);
    const input = target?.inputs?.[link.target_slot];
    if (!input) return;
    if (target.subgraph) {
      follow(target.subgraph, target.subgraph.inputs.find((i) => i.name === input.name)?.linkIds);
    } else if (accepts(target, input)) {
      reached.add(target);
    } else if (target.type === "Reroute") {
      follow(graph, target.outputs[0]?.links);
    }
  };
  follow(node.graph, node.outputs?.find((output) => output.name === outputName)?.links);
  return [...reached];
}

/** The nodes that stand for `graph` where it is used as a subgraph. */
function hostsOf(graph, rootGraph) {
  const graphs = [rootGraph, ...(rootGraph.subgraphs?.values() ?? [])];
  return graphs.flatMap((each) => each.nodes).filter((node) => node.subgraph === graph);
}
