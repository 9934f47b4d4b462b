/** Answer panel: the text of a node's answers. One without a height shows errors only. */

import { showPicture, watch } from "./answer_store.js";
import { AnswerView } from "./answer_view.js";
import { definePanel } from "./declared_panels.js";
import { addToStack, refit } from "./panel_stack.js";

const ERROR_HEIGHT = 72; // pixels

definePanel("answer", "answer_view.css", (node, { height }) => {
  const view = new AnswerView(showPicture);
  const isShown = () => height || !view.isEmpty;
  const fit = () => {
    view.element.hidden = !isShown();
    refit(node);
  };
  addToStack(node, view.element, () => (isShown() ? height ?? ERROR_HEIGHT : 0));
  watch(node, (answer) => {
    view.draw(answer);
    fit();
  });
  fit();
});
