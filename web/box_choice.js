/**
 * Which boxes are switched off, as text in a widget, and which nodes a choice reaches.
 * Knows no page and no ComfyUI module.
 */

/** What makes a box the same box in another run: place and label, as in nodes/picking.py. */
export function entryOf(picture, { x1, y1, x2, y2, label }) {
  return { picture, x: x1, y: y1, width: x2 - x1, height: y2 - y1, label };
}

/** The same as one text, to look boxes up by. */
export function keyOf(entry) {
  const { picture, x, y, width, height, label } = entry;
  return JSON.stringify([picture, x, y, width, height, label ?? ""]);
}

/** A widget's text as a map from key to entry. Text that is no choice counts as none: the node
 * itself says so when it runs. */
export function readChoice(text) {
  try {
    const entries = JSON.parse(text || "[]");
    return new Map(entries.map((entry) => [keyOf(entry), entry]));
  } catch (error) {
    console.warn("Qwen-VL: the choice of boxes cannot be read and is begun anew.", error);
    return new Map();
  }
}

/** The text of a map, the same for the same choice however it came about. */
export function writeChoice(choice) {
  if (!choice.size) return "";
  const entries = [...choice].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  return JSON.stringify(entries);
}

/**
 * The nodes that an output reaches and `wanted(node, input)` accepts: over links, reroute nodes,
 * and the borders of subgraphs.
 */
export function reached(node, outputName, wanted, rootGraph) {
  const found = new Set();
  const seen = new Set();
  const walk = (graph, linkIds) => {
    for (const id of linkIds ?? []) {
      const link = graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id];
      if (link && !seen.has(link)) {
        seen.add(link);
        arrive(graph, link);
      }
    }
  };
  const arrive = (graph, link) => {
    if (graph.outputNode && link.target_id === graph.outputNode.id) {
      for (const host of hostsOf(graph, rootGraph)) {
        walk(host.graph, host.outputs[link.target_slot]?.links);
      }
      return;
    }
    const target = graph.getNodeById(link.target_id);
    const input = target?.inputs?.[link.target_slot];
    if (!input) return;
    if (target.subgraph) {
      walk(target.subgraph, target.subgraph.inputs.find((i) => i.name === input.name)?.linkIds);
    } else if (wanted(target, input)) {
      found.add(target);
    } else if (target.type === "Reroute") {
      walk(graph, target.outputs[0]?.links);
    }
  };
  walk(node.graph, node.outputs?.find((output) => output.name === outputName)?.links);
  return [...found];
}

/** The nodes that stand for `graph` where it is used as a subgraph. */
function hostsOf(graph, rootGraph) {
  const graphs = [rootGraph, ...(rootGraph.subgraphs?.values() ?? [])];
  return graphs.flatMap((each) => each.nodes).filter((node) => node.subgraph === graph);
}
