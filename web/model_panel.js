/**
 * The panel of the Loader: whether the model is here, what it takes, and whether that fits. Pure
 * DOM: it knows nothing of ComfyUI.
 */

import { say } from "./words.js";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  element.className = `qvl-model-${name}`;
  element.append(...children);
  return element;
}

/** Thousands, as in the list of models and in messages: 812 B, 4.1 GB. */
export function readable(bytes) {
  let unit = 0;
  for (; bytes >= 999.5 && unit < UNITS.length - 1; unit += 1) bytes /= 1000;
  return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
}

function headline({ availability, loaded, to_download, partial }) {
  if (loaded === "device") return say("Loaded");
  if (loaded === "ram") return say("In RAM, off the card");
  if (availability === "incomplete") return say("Incomplete");
  if (availability === "here") return say("On disk");
  const size = readable(to_download);
  return say(partial ? "Partly here, {size} to go" : "To download: {size}", { size });
}

function note({ problem, fits, lighter, free, movable }) {
  if (problem) return problem;
  if (fits === "now") return "";
  if (fits !== "no") return say("Other models will be moved out for it.");
  const why = say("Too large for the {size} that can be had.", { size: readable(free + movable) });
  return `${why} ${say(lighter ? "In {lighter} it would fit." : "Choose a smaller model.", { lighter })}`;
}

function weightsLine({ weights, loaded, availability }) {
  if (weights === null) return "";
  if (loaded) return say("takes {size}", { size: readable(weights) });
  return say("needs {size}", { size: `${availability === "download" ? "~" : ""}${readable(weights)}` });
}

function memoryLine({ free, total }) {
  const [some, all] = [readable(free), readable(total)];
  const unit = all.slice(all.indexOf(" "));
  return say("{some} of {all} free", {
    some: some.endsWith(unit) ? some.slice(0, -unit.length) : some,
    all,
  });
}

const isCPU = (device) => device === "cpu";

/** Of the memory bar in per cent: what others use, where the model begins, how long it is. */
function shares({ weights, loaded, free, movable, total, fits }) {
  const length = weights ?? 0;
  const used = total - free - (loaded === "device" ? length : 0);
  const over = fits === "after others" ? Math.min(movable, used + length - total) : 0;
  return [used, used - Math.max(0, over), length].map((bytes) => (100 * Math.max(0, bytes)) / total);
}

export class ModelPanel {
  constructor(onRefresh) {
    this.state = make("span", "state");
    this.button = make("button", "refresh", "↻");
    this.button.type = "button";
    this.button.title = say("Refresh the list of models and these figures");
    this.button.setAttribute("aria-label", this.button.title);
    this.button.addEventListener("click", onRefresh);
    this.used = make("div", "used");
    this.taken = make("div", "taken");
    this.bar = make("div", "bar", this.used, this.taken);
    this.weights = make("span", "weights");
    this.memory = make("span", "memory");
    this.figures = make("div", "figures", this.weights, this.memory);
    this.note = make("div", "note");
    this.device = make("span", "device");
    const head = make("div", "head", this.state, this.device, this.button);
    this.content = make("div", "content", head, this.bar, this.figures, this.note);
    this.element = make("div", "panel", this.content);
    this.say("");
  }

  /** Pixels that it needs, unscaled. */
  get height() {
    return this.content.offsetHeight || 66;
  }

  /** Shows a forecast as the server tells it (see qwenvl/models/forecast.py). */
  draw(forecast) {
    const { availability, loaded, fits } = forecast;
    const bad = fits === "no" || availability === "incomplete";
    this.#show(bad ? "warning" : loaded || availability, headline(forecast), note(forecast));
    const [used, begin, length] = shares(forecast);
    this.used.style.width = `${used}%`;
    this.taken.style.left = `${begin}%`;
    this.taken.style.width = `${length}%`;
    this.taken.hidden = forecast.weights === null;
    this.device.textContent = isCPU(forecast.device) ? say("RAM") : forecast.device;
    this.weights.textContent = weightsLine(forecast);
    this.memory.textContent = memoryLine(forecast);
    this.#hideFigures(false);
  }

  /** Why there is no forecast. */
  fail(message) {
    this.#show("warning", say("Cannot be loaded"), message);
    this.#hideFigures(true);
  }

  /** A line in place of the forecast: what goes on, or why nothing is known yet. */
  say(line) {
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
  }
}
