/** Example picture panel: the picture that is chosen in a list, before anything runs. */

import { api } from "../../scripts/api.js";
import { definePanel } from "./declared_panels.js";
import { element } from "./dom.js";
import { after } from "./hooks.js";
import { addToStack } from "./panel_stack.js";

const LEAST_HEIGHT = 160; // pixels
// ComfyUI serves a pack's example workflows, with the files beside them, under the pack's folder.
const PACK = new URL(import.meta.url).pathname.split("/").at(-2);

definePanel("example_picture", "", (node, { widget }) => {
  // In a frame, since a picture by itself would make the node as large as its own pixels.
  const picture = element("img", "", { alt: "" });
  const frame = element("div", "qvl-example", {}, picture);
  Object.assign(frame.style, { position: "relative", pointerEvents: "none" });
  Object.assign(picture.style, { position: "absolute", width: "100%", height: "100%" });
  picture.style.objectFit = "contain";
  const choice = node.widgets.find(({ name }) => name === widget);
  const show = () => {
    const file = encodeURIComponent(`${choice.value}.png`);
    picture.src = api.apiURL(`/workflow_templates/${PACK}/pictures/${file}`);
  };
  after(choice, "callback", show);
  after(node, "onConfigure", show); // a saved workflow sets its values without a callback
  show();
  addToStack(node, frame, () => LEAST_HEIGHT);
});
