/** Upload panel: a button that puts a file into ComfyUI's input folder and chooses it in a list. */

import { api } from "../../scripts/api.js";
import { definePanel } from "./declared_panels.js";
import { element } from "./dom.js";
import { translate } from "./translate.js";

/** Puts `file` into the input folder. Its name there, which differs where another file has it. */
async function upload(file) {
  const body = new FormData();
  body.append("image", file); // as ComfyUI calls any file
  const response = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`.trim());
  const { name, subfolder } = await response.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

definePanel("upload", "", (node, { widget, accept }) => {
  const choice = node.widgets.find(({ name }) => name === widget);
  const label = translate("Choose a file to upload");
  const take = async (file) => {
    press.label = translate("Uploading {file}", { file: file.name });
    try {
      const name = await upload(file);
      const { values } = choice.options;
      if (Array.isArray(values) && !values.includes(name)) values.push(name);
      choice.value = name;
      choice.callback?.(name);
      press.label = label;
    } catch (error) {
      press.label = translate("The upload failed: {reason}", { reason: error.message });
    }
    node.graph?.setDirtyCanvas(true, true);
  };

  const fitting = (files) =>
    [...(files ?? [])].find(({ name }) => name.toLowerCase().endsWith(accept));

  const picker = element("input", "", { type: "file", accept });
  picker.addEventListener("change", () => {
    const file = fitting(picker.files); // dialogs offer "all files" too
    if (file) void take(file);
    else if (picker.files.length)
      press.label = translate("Only {ending} files can be chosen here", { ending: accept });
    picker.value = ""; // so that the same file can be chosen again
    node.graph?.setDirtyCanvas(true, true);
  });
  // After all other widgets: values are saved by their position.
  const press = node.addWidget("button", "upload", null, () => picker.click(), { serialize: false });
  press.serialize = false;
  press.label = label;

  node.onDragOver = ({ dataTransfer }) =>
    [...(dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
  node.onDragDrop = (event) => {
    const file = fitting(event.dataTransfer?.files);
    if (file) void take(file);
    return Boolean(file);
  };
});
