/**
 * Pictures with boxes over them, which can be switched on and off. Knows no ComfyUI: it shows what
 * it is given and says what was clicked.
 *
 * Boxes are buttons laid over the picture in per cent of it, so that any zoom, any size of the node
 * and the keyboard need nothing of ours.
 */

import { say } from "./words.js";

const MANY = 24; // from here on, labels are shown only for the box under the pointer

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(className, text, title, click) {
  const made = element("button", className, text);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", click);
  return made;
}

const percent = (value, whole) => `${(100 * value) / whole}%`;
const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);

/** Black or white, whichever reads better on `rgb(r, g, b)` (luma of ITU-R BT.601). */
function inkOn(colour) {
  const [red, green, blue] = (colour.match(/\d+/g) ?? [0, 0, 0]).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
}

export class BoxView {
  /**
   * `isOff(picture, box)`: whether a box is switched off; `onSwitch(picture, off, on)`: a person
   * wants these boxes off and those on; `onTurn(index)`: and wants to see that picture;
   * `urlOf(picture)`: address of an entry's picture; `onAdd()`: the hint was followed.
   */
  constructor({ isOff, onSwitch, onTurn, urlOf, onAdd }) {
    Object.assign(this, { isOff, onSwitch, onTurn, urlOf });
    this.entries = [];
    this.current = 0;
    this.element = element("div", "qvl-boxes");
    this.stage = element("div", "qvl-stage");
    this.info = element("div", "qvl-info");
    this.hint = button("qvl-hint", "", say("Adds the node and connects it"), onAdd);
    this.hint.hidden = true;
    this.bar = this.makeBar();
    this.element.append(this.stage, this.info, this.hint, this.bar);
    this.wait("");
  }

  makeBar() {
    const bar = element("div", "qvl-bar");
    this.pager = element("span", "qvl-pager");
    this.page = element("span", "qvl-page");
    this.pager.append(
      button("qvl-button", "‹", say("Previous picture"), () => this.turn(-1)),
      this.page,
      button("qvl-button", "›", say("Next picture"), () => this.turn(1)),
    );
    this.count = element("span", "qvl-count");
    this.switches = element("span", "qvl-switches");
    this.switches.append(
      ...[
        ["all", "Switch every box on", () => false],
        ["none", "Switch every box off", () => true],
        ["invert", "Switch off what is on, and on what is off", (box) => !this.isBoxOff(box)],
      ].map(([name, title, toBeOff]) =>
        button("qvl-button", say(name), say(title), () => this.switchAll(toBeOff)),
      ),
    );
    bar.append(this.pager, this.count, this.switches);
    return bar;
  }

  /** Shows entries, one a picture, as the node sent them, and of them number `current`. */
  show(entries, current = 0) {
    current = Math.max(0, Math.min(current, entries.length - 1));
    if (entries === this.entries && current === this.current) return;
    if (!entries.length) return this.wait("");
    Object.assign(this, { entries, current });
    this.element.hidden = this.bar.hidden = false;
    this.element.classList.remove("qvl-failed");
    this.draw();
  }

  /** Shows a line in place of pictures; nothing at all where it is empty. */
  wait(line, failed = false) {
    this.entries = [];
    this.current = 0;
    this.buttons = [];
    this.element.hidden = !line;
    this.element.classList.toggle("qvl-failed", failed);
    this.stage.replaceChildren(element("div", "qvl-wait", line));
    this.bar.hidden = true;
    this.idle = "";
    this.tell("");
  }

  isBoxOff(box) {
    return this.isOff(this.current, box);
  }

  /** Shows again which boxes are off. */
  refresh() {
    const { boxes = [] } = this.entries[this.current] ?? {};
    const offs = boxes.map((box) => this.isBoxOff(box));
    this.buttons.forEach((made, index) => {
      made.setAttribute("aria-pressed", String(!offs[index]));
    });
    const on = boxes.filter((box, index) => !offs[index] && !box.left_out).length;
    const count = { on, all: boxes.length };
    this.count.textContent = boxes.length ? say("{on} of {all} on", count) : "";
  }

  /** A line below the picture that can be clicked; empty for none. */
  suggest(hint) {
    this.hint.textContent = hint;
    this.hint.hidden = !hint;
  }

  turn(step) {
    this.onTurn((this.current + step + this.entries.length) % this.entries.length);
  }

  switchAll(toBeOff) {
    this.switch(this.entries[this.current].boxes, toBeOff);
  }

  switch(boxes, toBeOff) {
    const on = boxes.filter((box) => !toBeOff(box));
    this.onSwitch(this.current, boxes.filter(toBeOff), on);
  }

  draw() {
    const entry = this.entries[this.current];
    const [height, width] = entry.size;
    const frame = element("div", "qvl-picture");
    frame.style.setProperty("--ratio", String(width / height));
    if (entry.picture) {
      const picture = element("img", "qvl-image");
      picture.alt = "";
      picture.draggable = false;
      picture.src = this.urlOf(entry.picture);
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
    this.idle = this.resultOf(entry);
    this.tell(this.idle);
    this.refresh();
  }

  /** What there is to say of a picture while no box of it is pointed at. */
  resultOf({ error, boxes, points = [], picture }) {
    const lines = [];
    if (error) lines.push(say("The reply could not be read"));
    else if (!boxes.length && !points.length) lines.push(say("Nothing found"));
    const count = this.entries.filter((entry) => entry.picture).length;
    if (!picture && count) lines.push(say("only the first {count} pictures are kept", { count }));
    return lines.join(" · ");
  }

  makeBox(box, { size: [height, width], boxes }) {
    const made = button("qvl-box", undefined, "", () =>
      this.switch([box], (it) => !this.isBoxOff(it)),
    );
    made.removeAttribute("title");
    made.classList.toggle("qvl-left-out", Boolean(box.left_out));
    made.setAttribute("aria-label", box.label || say("box"));
    const style = made.style;
    style.left = percent(box.x1, width);
    style.top = percent(box.y1, height);
    style.width = percent(box.x2 - box.x1, width);
    style.height = percent(box.y2 - box.y1, height);
    // The smaller of two boxes lies on top, or it could not be clicked.
    style.zIndex = String(1 + boxes.filter((other) => area(other) > area(box)).length);
    this.paint(made, box.colour);
    const middle = (box.x1 + box.x2) / 2;
    if (box.label) made.append(this.makeLabel(box.label, middle, box.y1, [height, width]));
    this.tellOver(made, () => [
      box.label,
      say("{size} at {place}", {
        size: `${box.x2 - box.x1}×${box.y2 - box.y1}`,
        place: `${box.x1}, ${box.y1}`,
      }),
      box.score === undefined ? "" : say("score {score}", { score: Number(box.score).toFixed(2) }),
      box.left_out ? say("left out by the settings") : "",
      this.isBoxOff(box) ? say("off") : "",
    ]);
    return made;
  }

  /** Beside what it names, on the side where the picture has room. */
  makeLabel(label, x, y, [height, width]) {
    const made = element("span", "qvl-label", label);
    made.classList.toggle("qvl-inside", y < height * 0.09);
    made.classList.toggle("qvl-from-right", x > width * 0.66);
    return made;
  }

  makePoint(point, { size: [height, width] }) {
    const made = element("span", "qvl-point");
    made.style.left = percent(point.x, width);
    made.style.top = percent(point.y, height);
    this.paint(made, point.colour);
    const { label, x, y } = point;
    if (label) made.append(this.makeLabel(label, x, y, [height, width]));
    this.tellOver(made, () => [point.label, `${Math.floor(point.x)}, ${Math.floor(point.y)}`]);
    return made;
  }

  paint(made, colour) {
    made.style.setProperty("--colour", colour);
    made.style.setProperty("--ink", inkOn(colour));
  }

  tellOver(made, parts) {
    const tell = () => this.tell(parts().filter(Boolean).join(" · "));
    for (const event of ["pointerenter", "focus", "click"]) made.addEventListener(event, tell);
    for (const event of ["pointerleave", "blur"]) {
      made.addEventListener(event, () => this.tell(this.idle));
    }
  }

  tell(line) {
    this.info.textContent = line;
  }
}
