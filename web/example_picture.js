/** The chosen picture in Example Picture, before anything runs. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addElement } from "./dom_widget.js";

const EXAMPLE = "QVL_ExamplePicture";
const LEAST_HEIGHT = 160;
// ComfyUI serves a pack's example workflows, with what lies beside them, under the pack's folder.
const PACK = new URL(import.meta.url).pathname.split("/").at(-2);

function addPicture(node) {
  // In a frame, since a picture by itself would make the node as large as its own pixels.
  const frame = document.createElement("div");
  frame.className = "qvl-example";
  Object.assign(frame.style, { position: "relative", pointerEvents: "none" });
  const picture = document.createElement("img");
  picture.alt = "";
  Object.assign(picture.style, { position: "absolute", width: "100%", height: "100%" });
  picture.style.objectFit = "contain";
  frame.append(picture);
  const choice = node.widgets.find(({ name }) => name === "picture");
  const show = () => {
    const file = encodeURIComponent(`${choice.value}.png`);
    picture.src = api.apiURL(`/workflow_templates/${PACK}/pictures/${file}`);
  };
  then(choice, "callback", show);
  then(node, "onConfigure", show); // a saved workflow sets its values without a callback
  show();
  addElement(node, frame, () => LEAST_HEIGHT);
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
});
