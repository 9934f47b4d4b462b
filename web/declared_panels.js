/**
 * Panels that nodes declare in their schemas (see nodes/panels.py): which kinds of panel a node
 * has, from top to bottom, and the options of each. Nothing here knows a node by its name.
 */

import { app } from "../../scripts/app.js";
import { addStylesheet } from "./stylesheets.js";

const KEY = "qwen_vl_panels"; // among the options of a node's first input

const declarations = new Map(); // options by kind of panel, by node type
const kinds = new Map(); // functions that add a panel, by kind

/** Whether it is a node of this pack: each of them declares its panels, if only that it has none. */
export const isOurs = (node) => declarations.has(node.comfyClass);

/** The options with which `node` declares a panel of that kind; undefined where it does not. */
export const panelOptions = (node, kind) => declarations.get(node.comfyClass)?.[kind];

/** Each new node that declares a panel of that kind gets it by `addPanel(node, options)`. */
export function definePanel(kind, stylesheet, addPanel) {
  kinds.set(kind, addPanel);
  app.registerExtension({
    name: `qwenvlsuite.${kind}_panel`,
    setup: () => stylesheet && addStylesheet(stylesheet),
  });
}

app.registerExtension({
  name: "qwenvlsuite.declared_panels",
  beforeRegisterNodeDef(nodeType, { name, input }) {
    for (const [, options] of Object.values({ ...input?.required, ...input?.optional })) {
      if (options?.[KEY]) declarations.set(name, options[KEY]);
    }
  },
  nodeCreated(node) {
    const declared = declarations.get(node.comfyClass) ?? {};
    for (const [kind, options] of Object.entries(declared)) kinds.get(kind)?.(node, options);
  },
});
