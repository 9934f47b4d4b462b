// Virtual list: of thousands of rows of one height, those in sight (and a few beside them) are in
// the document. `make()` gives an element, which is used again for other rows; `fill(element, id)`
// shows one in it; `free(element)` is called when it shows none any more.

const BESIDE = 4; // rows above and below those in sight
// Browsers draw no element of more than some 33 million pixels.
const MOST_PIXELS = 30_000_000;

export class VirtualList {
  constructor(scroller, list, { make, fill, free, onChange }) {
    Object.assign(this, { scroller, list, make, fill, free, onChange });
    this.ids = [];
    this.places = new Map(); // id -> place in `ids`
    this.rows = new Map(); // id -> element
    this.spare = [];
    this.kept = null; // an id whose row stays, wherever it is: one that is edited
    this.height = 160;
    scroller.addEventListener("scroll", () => this.request(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(scroller);
  }

  get shown() {
    return Math.min(this.ids.length, Math.floor(MOST_PIXELS / this.height));
  }

  get inSight() {
    return [...this.rows.keys()];
  }

  // The height of a row is the style sheet's, and grows with the letters.
  measure() {
    const row = this.make();
    row.style.visibility = "hidden";
    this.list.append(row);
    this.height = row.offsetHeight || this.height;
    row.remove();
    this.spare.push(row);
    this.draw();
  }

  // `keeps`: what is at the top stays there, whatever comes before it.
  show(ids, keeps = false) {
    const top = Math.floor(this.scroller.scrollTop / this.height), id = this.ids[top];
    this.ids = ids;
    this.places = new Map(ids.map((id, place) => [id, place]));
    if (keeps && top && this.places.has(id)) {
      this.list.style.height = `${this.shown * this.height}px`;
      this.scroller.scrollTop += (this.placeOf(id) - top) * this.height;
    }
    for (const id of this.rows.keys()) if (!this.places.has(id) && id !== this.kept) this.drop(id);
    this.draw();
  }

  placeOf(id) {
    return this.places.get(id) ?? -1;
  }

  request() {
    this.asked ??= requestAnimationFrame(() => {
      this.asked = null;
      this.draw();
    });
  }

  draw() {
    this.list.style.height = `${this.shown * this.height}px`;
    const first = Math.floor(this.scroller.scrollTop / this.height) - BESIDE;
    const count = Math.ceil(this.scroller.clientHeight / this.height) + 2 * BESIDE;
    const from = Math.max(0, first), to = Math.min(this.shown, first + count);
    const wanted = new Set(this.ids.slice(from, to));
    let isNew = false;
    for (const id of [...this.rows.keys()]) {
      if (!wanted.has(id) && id !== this.kept) this.drop(id);
    }
    for (let place = from; place < to; place++) {
      const id = this.ids[place];
      isNew ||= !this.rows.has(id);
      this.put(id, place);
    }
    if (isNew) this.onChange();
  }

  put(id, place) {
    let row = this.rows.get(id);
    if (!row) {
      row = this.spare.pop() ?? this.make();
      row.style.visibility = "";
      this.rows.set(id, row);
      this.fill(row, id);
      this.list.append(row);
    }
    row.style.transform = `translateY(${place * this.height}px)`;
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", this.shown);
  }

  drop(id) {
    const row = this.rows.get(id);
    this.rows.delete(id);
    this.free(row);
    row.remove();
    this.spare.push(row);
  }

  refill(id) {
    const row = this.rows.get(id);
    if (row) this.fill(row, id);
  }

  // As little as it takes to bring a row into sight.
  reveal(id) {
    const place = this.placeOf(id);
    if (place < 0) return;
    const top = place * this.height, view = this.scroller;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + this.height > view.scrollTop + view.clientHeight) {
      view.scrollTop = top + this.height - view.clientHeight;
    }
    this.draw();
  }
}
