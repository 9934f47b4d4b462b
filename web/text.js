/** The text panel of the nodes that answer, and of the others once they have failed. */

import { app } from "../../scripts/app.js";
import { turn, watch } from "./answers.js";
import { addElement, refit } from "./dom_widget.js";
import { isOurs } from "./nodes.js";
import { addStyle } from "./style.js";
import { TextPanel } from "./text_panel.js";

const HEIGHTS = { QVL_Describe: 150, QVL_OCR: 110, QVL_Grounding: 110 }; // pixels, of those that answer
const ERROR_HEIGHT = 72; // of the others, while they show an error
const SHOW_ERRORS_THEMSELVES = new Set(["QVL_Loader", "QVL_PickBoxes"]);

function addPanel(node) {
  const panel = new TextPanel(turn);
  const height = HEIGHTS[node.comfyClass];
  const isShown = () => height || !panel.isEmpty;
  const fit = () => {
    panel.element.hidden = !isShown();
    refit(node);
  };
  addElement(node, panel.element, () => (isShown() ? height ?? ERROR_HEIGHT : 0));
  watch(node, (answer) => {
    panel.draw(answer);
    fit();
  });
  fit();
}

app.registerExtension({
  name: "qwenvlsuite.text",
  setup: () => addStyle("text_panel.css"),
  nodeCreated(node) {
    if (isOurs(node) && !SHOW_ERRORS_THEMSELVES.has(node.comfyClass)) addPanel(node);
  },
});
