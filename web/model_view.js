/**
 * Model view: whether a model is on disk, how much memory it needs, and whether that fits. Knows no
 * ComfyUI.
 */

import { button, element } from "./dom.js";
import { translate } from "./translate.js";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

const make = (tag, name, ...children) => element(tag, `qvl-model-${name}`, {}, ...children);

/** In powers of 1000, as in the list of models and in messages: 812 B, 4.1 GB. */
function formatBytes(bytes) {
  let unit = 0;
  for (; bytes >= 999.5 && unit < UNITS.length - 1; unit += 1) bytes /= 1000;
  return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
}

function headline({ availability, loaded, to_download, partial }) {
  if (loaded === "device") return translate("Loaded");
  if (loaded === "ram") return translate("In RAM, off the card");
  if (availability === "incomplete") return translate("Incomplete");
  if (availability === "here") return translate("On disk");
  const size = formatBytes(to_download);
  return translate(partial ? "Partly here, {size} to go" : "To download: {size}", { size });
}

const RETRIEVAL = {
  reranker: "A reranker: for Qwen-VL Score alone, it writes no text.",
  embedding: "An embedding model: for Qwen-VL Score alone, it writes no text.",
};

const SOURCES = { huggingface: "Hugging Face", modelscope: "ModelScope" };

function note({ problem, fits, lighter, free, movable, retrieval, consent, repository, source, disk }) {
  if (problem) return problem;
  if (consent) {
    const values = { repository, source: SOURCES[source], disk: formatBytes(disk) };
    if (consent === "given") return translate("{repository} from {source}, as you allowed. {disk} free on the disk.", values);
    return translate("{repository} from {source} is none of the models in the list. {disk} free on the disk.", values);
  }
  if (fits === "now") return retrieval ? translate(RETRIEVAL[retrieval]) : "";
  if (fits !== "no") return translate("Other models will be moved out for it.");
  const why = translate("Too large for the {size} that can be had.", { size: formatBytes(free + movable) });
  return `${why} ${translate(lighter ? "In {lighter} it would fit." : "Choose a smaller model.", { lighter })}`;
}

function weightsLine({ weights, loaded, availability }) {
  if (weights === null) return "";
  if (loaded) return translate("takes {size}", { size: formatBytes(weights) });
  return translate("needs {size}", { size: `${availability === "download" ? "~" : ""}${formatBytes(weights)}` });
}

function memoryLine({ free, total }) {
  const [some, all] = [formatBytes(free), formatBytes(total)];
  const unit = all.slice(all.indexOf(" ")); // said once where both have the same
  return translate("{some} of {all} free", {
    some: some.endsWith(unit) ? some.slice(0, -unit.length) : some,
    all,
  });
}

const isCPU = (device) => device === "cpu";

/** The memory bar in per cent: the part others use, where the model begins, and its length. */
function barParts({ weights, loaded, free, movable, total, fits }) {
  const length = weights ?? 0;
  const used = total - free - (loaded === "device" ? length : 0);
  const over = fits === "after others" ? Math.min(movable, used + length - total) : 0;
  return [used, used - Math.max(0, over), length].map((bytes) => (100 * Math.max(0, bytes)) / total);
}

export class ModelView {
  /** `onAgree`: the user wants the size of the download that the forecast is of, or allows it. */
  constructor(onRefresh, onAgree) {
    this.state = make("span", "state");
    const title = translate("Refresh the list of models and these figures");
    this.button = button("qvl-model-refresh", "↻", { title, "aria-label": title }, onRefresh);
    this.used = make("div", "used");
    this.taken = make("div", "taken");
    this.bar = make("div", "bar", this.used, this.taken);
    this.weights = make("span", "weights");
    this.memory = make("span", "memory");
    this.figures = make("div", "figures", this.weights, this.memory);
    this.note = make("div", "note");
    this.agree = button("qvl-model-allow", "", {}, onAgree);
    this.device = make("span", "device");
    const head = make("div", "head", this.state, this.device, this.button);
    this.content = make("div", "content", head, this.bar, this.figures, this.note, this.agree);
    this.element = make("div", "panel", this.content);
    this.showStatus("");
  }

  /** Height that the content needs, in pixels at zoom 1. */
  get height() {
    return this.content.offsetHeight || 66;
  }

  /** Shows the server's forecast (see qwenvl/models/forecast.py). */
  draw(forecast) {
    const { availability, loaded, fits } = forecast;
    const bad = fits === "no" || availability === "incomplete" || ["needed", "not asked"].includes(forecast.consent);
    this.#show(bad ? "warning" : loaded || availability, headline(forecast), note(forecast));
    const [used, begin, length] = barParts(forecast);
    this.used.style.width = `${used}%`;
    this.taken.style.left = `${begin}%`;
    this.taken.style.width = `${length}%`;
    this.taken.hidden = forecast.weights === null;
    this.device.textContent = isCPU(forecast.device) ? translate("RAM") : forecast.device;
    this.weights.textContent = weightsLine(forecast);
    this.memory.textContent = memoryLine(forecast);
    this.#hideFigures(false);
    this.consent = forecast.consent;
    this.agree.textContent = this.consent === "needed" ? translate("Allow this download") : translate("Ask for its size");
    this.agree.hidden = !["needed", "not asked"].includes(this.consent) || Boolean(forecast.problem);
  }

  /** Shows why there is no forecast. */
  showError(message) {
    this.#show("warning", translate("Cannot be loaded"), message);
    this.#hideFigures(true);
  }

  /** Shows a line in place of the forecast: what is going on, or why nothing is known yet. */
  showStatus(line) {
    this.#show(line ? "running" : "unknown", line, "");
    this.#hideFigures(true);
  }

  #hideFigures(hidden) {
    for (const part of [this.device, this.bar, this.figures]) part.hidden = hidden;
  }

  #show(kind, line, note) {
    this.element.dataset.state = kind;
    this.state.textContent = line;
    this.note.textContent = note;
    this.note.hidden = !note;
    this.agree.hidden = true;
  }
}
