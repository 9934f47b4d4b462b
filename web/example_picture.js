/** The chosen picture in Example Picture, before anything runs. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addElement, remount } from "./dom_widget.js";

const EXAMPLE = "QVL_ExamplePicture";
const LEAST_HEIGHT = 160; // with the margins around a widget
// ComfyUI serves a pack's example workflows, with what lies beside them, under the pack's folder.
const PACK = new URL(import.meta.url).pathname.split("/").at(-2);

const pictures = new WeakMap(); // elements, by node

function addPicture(node) {
  const picture = document.createElement("img");
  picture.className = "qvl-example";
  picture.alt = "";
  picture.draggable = false;
  Object.assign(picture.style, { objectFit: "contain", minHeight: "0", pointerEvents: "none" });
  pictures.set(node, picture);
  const choice = node.widgets.find(({ name }) => name === "picture");
  const show = () => {
    const file = encodeURIComponent(`${choice.value}.png`);
    picture.src = api.apiURL(`/workflow_templates/${PACK}/pictures/${file}`);
  };
  then(choice, "callback", show);
  then(node, "onConfigure", show); // a saved workflow sets its values without a callback
  show();
  addElement(node, "qwen_vl_example", picture, () => LEAST_HEIGHT);
}

function then(owner, name, action) {
  const before = owner[name];
  owner[name] = function (...values) {
    const result = before?.apply(this, values);
    action();
    return result;
  };
}

app.registerExtension({
  name: "qwenvlsuite.example_picture",
  nodeCreated(node) {
    if (node.comfyClass === EXAMPLE) addPicture(node);
  },
  afterConfigureGraph() {
    remount(".qvl-example", (node) => pictures.get(node));
  },
});
