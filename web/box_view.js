/**
 * Box view: pictures with boxes over them, which can be switched on and off. Knows no ComfyUI: it
 * shows what it is given and reports what was clicked.
 *
 * Boxes are buttons laid over the picture in per cent of its size, so that zoom, the size of the
 * node and the keyboard need no code here.
 */

import { button, element } from "./dom.js";
import { translate } from "./translate.js";

const MANY = 24; // from this count on, only the box under the pointer shows its label

const percent = (value, whole) => `${(100 * value) / whole}%`;
const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);

/** Black or white, whichever reads better on `rgb(r, g, b)` (luma of ITU-R BT.601). */
function inkOn(colour) {
  const [red, green, blue] = (colour.match(/\d+/g) ?? [0, 0, 0]).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
}

export class BoxView {
  /**
   * `isOff(picture, box)`: whether a box is switched off; `onSwitch(picture, off, on)`: the user
   * switches these boxes off and those on; `onTurn(index)`: the user asks for that picture;
   * `urlOf(picture)`: the URL of an entry's picture; `onHint()`: the hint was clicked.
   */
  constructor({ isOff, onSwitch, onTurn, urlOf, onHint }) {
    Object.assign(this, { isOff, onSwitch, onTurn, urlOf });
    this.entries = [];
    this.current = 0;
    this.element = element("div", "qvl-boxes");
    this.stage = element("div", "qvl-stage");
    this.info = element("div", "qvl-info");
    const title = translate("Adds the node and connects it");
    this.hint = button("qvl-hint", "", { title }, onHint);
    this.hint.hidden = true;
    this.bar = this.makeBar();
    this.element.append(this.stage, this.info, this.hint, this.bar);
    this.showMessage("");
  }

  makeBar() {
    const bar = element("div", "qvl-bar");
    this.pager = element("span", "qvl-pager");
    this.page = element("span", "qvl-page");
    this.pager.append(
      button("qvl-button", "‹", { title: translate("Previous picture") }, () => this.turnPage(-1)),
      this.page,
      button("qvl-button", "›", { title: translate("Next picture") }, () => this.turnPage(1)),
    );
    this.count = element("span", "qvl-count");
    this.switches = element("span", "qvl-switches");
    this.switches.append(
      ...[
        ["all", "Switch every box on", () => false],
        ["none", "Switch every box off", () => true],
        ["invert", "Switch off what is on, and on what is off", (box) => !this.isBoxOff(box)],
      ].map(([name, title, toBeOff]) =>
        button("qvl-button", translate(name), { title: translate(title) }, () => this.switchAll(toBeOff)),
      ),
    );
    bar.append(this.pager, this.count, this.switches);
    return bar;
  }

  /** Shows entries, one a picture, as the node sent them: the one with index `current`. */
  show(entries, current = 0) {
    current = Math.max(0, Math.min(current, entries.length - 1));
    if (entries === this.entries && current === this.current) return;
    if (!entries.length) return this.showMessage("");
    Object.assign(this, { entries, current });
    this.element.hidden = this.bar.hidden = false;
    this.element.classList.remove("qvl-failed");
    this.render();
  }

  /** Shows a line in place of pictures, or nothing at all where it is empty. */
  showMessage(line, failed = false) {
    this.entries = [];
    this.current = 0;
    this.buttons = [];
    this.element.hidden = !line;
    this.element.classList.toggle("qvl-failed", failed);
    this.stage.replaceChildren(element("div", "qvl-wait", {}, line));
    this.bar.hidden = true;
    this.summary = "";
    this.setInfo("");
  }

  isBoxOff(box) {
    return this.isOff(this.current, box);
  }

  /** Shows which boxes are off now. */
  refresh() {
    const { boxes = [] } = this.entries[this.current] ?? {};
    const offs = boxes.map((box) => this.isBoxOff(box));
    this.buttons.forEach((made, index) => {
      made.setAttribute("aria-pressed", String(!offs[index]));
    });
    const on = boxes.filter((box, index) => !offs[index] && !box.left_out).length;
    const count = { on, all: boxes.length };
    this.count.textContent = boxes.length ? translate("{on} of {all} on", count) : "";
  }

  /** Shows a line below the picture that can be clicked; empty for none. */
  showHint(hint) {
    this.hint.textContent = hint;
    this.hint.hidden = !hint;
  }

  turnPage(step) {
    this.onTurn((this.current + step + this.entries.length) % this.entries.length);
  }

  switchAll(toBeOff) {
    this.switch(this.entries[this.current].boxes, toBeOff);
  }

  switch(boxes, toBeOff) {
    const on = boxes.filter((box) => !toBeOff(box));
    this.onSwitch(this.current, boxes.filter(toBeOff), on);
  }

  render() {
    const entry = this.entries[this.current];
    const [height, width] = entry.size;
    const frame = element("div", "qvl-picture");
    frame.style.setProperty("--ratio", String(width / height));
    if (entry.picture) {
      const src = this.urlOf(entry.picture);
      const picture = element("img", "qvl-image", { alt: "", draggable: "false", src });
      picture.addEventListener("error", () => picture.remove());
      frame.append(picture);
    }
    this.buttons = entry.boxes.map((box) => this.makeBox(box, entry));
    const points = (entry.points ?? []).map((point) => this.makePoint(point, entry));
    frame.classList.toggle("qvl-many", entry.boxes.length + points.length >= MANY);
    frame.append(...this.buttons, ...points);
    this.stage.replaceChildren(frame);
    this.pager.hidden = this.entries.length < 2;
    this.page.textContent = `${this.current + 1} / ${this.entries.length}`;
    this.switches.hidden = entry.boxes.length < 2;
    this.summary = this.summaryOf(entry);
    this.setInfo(this.summary);
    this.refresh();
  }

  /** The info line of a picture while none of its boxes is pointed at. */
  summaryOf({ error, boxes, points = [], picture }) {
    const lines = [];
    if (error) lines.push(translate("The reply could not be read"));
    else if (!boxes.length && !points.length) lines.push(translate("Nothing found"));
    const count = this.entries.filter((entry) => entry.picture).length;
    if (!picture && count) lines.push(translate("only the first {count} pictures are kept", { count }));
    return lines.join(" · ");
  }

  makeBox(box, { size: [height, width], boxes }) {
    const made = button("qvl-box", "", { "aria-label": box.label || translate("box") }, () =>
      this.switch([box], (it) => !this.isBoxOff(it)),
    );
    made.classList.toggle("qvl-left-out", Boolean(box.left_out));
    const style = made.style;
    style.left = percent(box.x1, width);
    style.top = percent(box.y1, height);
    style.width = percent(box.x2 - box.x1, width);
    style.height = percent(box.y2 - box.y1, height);
    // The smaller of two boxes lies on top; otherwise it could not be clicked.
    style.zIndex = String(1 + boxes.filter((other) => area(other) > area(box)).length);
    this.setColour(made, box.colour);
    const middle = (box.x1 + box.x2) / 2;
    if (box.label) made.append(this.makeLabel(box.label, middle, box.y1, [height, width]));
    this.showInfoOver(made, () => [
      box.label,
      translate("{size} at {place}", {
        size: `${box.x2 - box.x1}×${box.y2 - box.y1}`,
        place: `${box.x1}, ${box.y1}`,
      }),
      box.score === undefined ? "" : translate("score {score}", { score: Number(box.score).toFixed(2) }),
      box.left_out ? translate("left out by the settings") : "",
      this.isBoxOff(box) ? translate("off") : "",
    ]);
    return made;
  }

  /** A label beside its box or point, on the side where the picture has room. */
  makeLabel(label, x, y, [height, width]) {
    const made = element("span", "qvl-label", {}, label);
    made.classList.toggle("qvl-inside", y < height * 0.09);
    made.classList.toggle("qvl-from-right", x > width * 0.66);
    return made;
  }

  makePoint(point, { size: [height, width] }) {
    const made = element("span", "qvl-point");
    made.style.left = percent(point.x, width);
    made.style.top = percent(point.y, height);
    this.setColour(made, point.colour);
    const { label, x, y } = point;
    if (label) made.append(this.makeLabel(label, x, y, [height, width]));
    this.showInfoOver(made, () => [point.label, `${Math.floor(point.x)}, ${Math.floor(point.y)}`]);
    return made;
  }

  setColour(made, colour) {
    made.style.setProperty("--colour", colour);
    made.style.setProperty("--ink", inkOn(colour));
  }

  /** The info line shows `parts()` while `made` is pointed at or has the focus. */
  showInfoOver(made, parts) {
    const show = () => this.setInfo(parts().filter(Boolean).join(" · "));
    for (const event of ["pointerenter", "focus", "click"]) made.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) {
      made.addEventListener(event, () => this.setInfo(this.summary));
    }
  }

  setInfo(line) {
    this.info.textContent = line;
  }
}
