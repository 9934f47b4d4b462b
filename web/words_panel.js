/** Words panel: a button that puts the words behind the choice in a list into a text box, where they
 * can be edited. What somebody wrote there stays, above them. */

import { api } from "../../scripts/api.js";
import { definePanel } from "./declared_panels.js";
import { translate } from "./translate.js";

async function wordsOf(route, name) {
  const response = await api.fetchApi(`${route}?name=${encodeURIComponent(name)}`);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer.words;
}

definePanel("words", "", (node, { source, into, route }) => {
  const find = (wanted) => node.widgets.find(({ name }) => name === wanted);
  const label = translate("Take the style's words into the prompt");
  let taken = ""; // what the button put there last
  const take = async () => {
    const box = find(into);
    try {
      const words = await wordsOf(route, find(source).value);
      const written = box.value.trim();
      if (!written || written === taken) box.value = words;
      else if (written !== words && !written.endsWith(`\n\n${words}`)) {
        box.value = `${written}\n\n${words}`;
      }
      box.callback?.(box.value);
      taken = words;
      press.label = label;
    } catch (error) {
      press.label = translate("The words are not known: {reason}", { reason: error.message });
    }
    node.graph?.setDirtyCanvas(true, true);
  };
  // After all other widgets: values are saved by their position.
  const press = node.addWidget("button", "take_words", null, take, { serialize: false });
  press.serialize = false;
  press.label = label;
});
