// The part of ComfyUI's scripts/app.js that web/ uses: a graph without a canvas, whose DOM widgets
// lie on the page as they lie over the legacy canvas. Node types are those of the pack itself, and
// are registered when the first node is made, which is after all extensions have been loaded.

const nodeDefs = await (await fetch("/object_info")).json();

const extensions = [];
const hook = (name, ...values) => extensions.forEach((extension) => extension[name]?.(...values));

let registered = false;

function registerNodeTypes() {
  if (registered) return;
  registered = true;
  for (const nodeDef of Object.values(nodeDefs)) hook("beforeRegisterNodeDef", class {}, nodeDef);
}

class Graph {
  constructor(id) {
    this.id = id;
    this.nodes = [];
  }

  add(id, comfyClass, subgraph) {
    registerNodeTypes();
    const node = new Node(id, comfyClass, subgraph);
    node.graph = this;
    this.nodes.push(node);
    hook("nodeCreated", node);
    return node;
  }

  remove(node) {
    this.nodes = this.nodes.filter((other) => other !== node);
    node.widgets.forEach(({ element }) => element.parentElement.remove());
    node.graph = null;
  }

  getNodeById(id) {
    return this.nodes.find((node) => node.id === Number(id)) ?? null;
  }

  setDirtyCanvas() {
    this.changes = (this.changes ?? 0) + 1;
  }
}

class Node {
  widgets = [];
  size = [300, 200];

  constructor(id, comfyClass, subgraph) {
    Object.assign(this, { id, comfyClass, subgraph });
    if (nodeDefs[comfyClass]?.input.optional?.off) {
      this.widgets.push({ name: "off", value: "", options: {} });
    }
  }

  computeSize() {
    return [...this.size];
  }

  setSize(size) {
    this.size = size;
  }

  addDOMWidget(name, type, element, options) {
    const widget = { name, type, element, options };
    const place = document.createElement("div");
    place.className = "dom-widget";
    place.style = "width: 320px; height: 170px";
    place.append(element);
    element.style = "width: 100%; height: 100%";
    document.body.append(place);
    this.widgets.push(widget);
    return widget;
  }
}

const canvas = { calls: [] };
for (const name of ["processMouseWheel", "processMouseDown", "processMouseMove", "processMouseUp"]) {
  canvas[name] = () => canvas.calls.push(name);
}

export const app = {
  nodeDefs, // those registered when the first node is made
  rootGraph: new Graph("one"),
  nodeOutputs: {},
  canvas,
  Graph,
  locale: "en",
  extensionManager: { setting: { get: () => app.locale } },

  get graph() {
    return this.rootGraph;
  },

  registerExtension(extension) {
    extensions.push(extension);
    extension.setup?.();
  },

  // Another tab, or undo: all nodes are made anew, then what is known of their outputs is there.
  load(workflow, build, outputs = {}) {
    [...this.rootGraph.nodes].forEach((node) => this.rootGraph.remove(node));
    this.rootGraph.id = workflow;
    build(this.rootGraph);
    hook("afterConfigureGraph");
    this.nodeOutputs = outputs;
    hook("onNodeOutputsUpdated", outputs);
  },
};
