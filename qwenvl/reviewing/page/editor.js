// Editor: the caption of one row as text, until it is saved or left.

// Whether a key is one of an input method, which puts together a sign. Safari says so of the key
// that ends it by its code alone.
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

// `list`: where the rows are; `rowOf(id)`: what the server said of one last; `isOneLine()`: whether
// captions have one line; `send({ id, version, text })` gives what the server answers, nothing where
// it refused; `onSaved(value)` is called with it; `replaceWords(row, ...elements)`: shows them there.
export class Editor {
  constructor({ list, rowOf, isOneLine, send, onSaved, replaceWords }) {
    Object.assign(this, { list, rowOf, isOneLine, send, onSaved, replaceWords });
    this.edit = null; // { id, version, text, clash, saving }
  }

  // Of the row that is edited.
  get id() {
    return this.edit ? this.edit.id : null;
  }

  get isChanged() {
    return Boolean(this.edit) && this.edit.text !== this.rowOf(this.id)?.text;
  }

  begin({ id, version, text }) {
    const { list } = this;
    this.edit = { id, version, text };
    list.kept = id;
    list.reveal(id);
    list.refill(id);
    const area = list.rows.get(id).querySelector("textarea");
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  fill(row) {
    if (row.querySelector("textarea")) return;
    const area = document.createElement("textarea");
    area.value = this.edit.text;
    area.setAttribute("aria-label", `Caption of ${this.rowOf(this.id).file}`);
    area.addEventListener("input", () => (this.edit.text = area.value));
    area.addEventListener("blur", () => {
      if (this.edit && !this.edit.clash && document.hasFocus()) this.save();
    });
    area.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (isComposing(event)) return;
      if (event.key === "Escape" && !this.edit.saving) this.leave();
      else if (event.key === "Enter" &&
          (event.ctrlKey || event.metaKey || (this.isOneLine() && !event.shiftKey))) {
        event.preventDefault();
        this.save();
      }
    });
    this.replaceWords(row, area);
  }

  // `row`: what the server says of the row now, which is not what is edited.
  clash(row) {
    this.edit.clash = row;
    const place = this.list.rows.get(row.id);
    place.querySelector(".clash")?.remove();
    const box = document.createElement("div");
    box.className = "clash";
    box.innerHTML =
      "<span role=alert></span><button>Keep mine</button><button>Take theirs</button>";
    box.querySelector("span").textContent = row.problem ||
      (row.text ? `Changed meanwhile: ${row.text}` : "Its caption was taken away meanwhile.");
    const [mine, theirs] = box.querySelectorAll("button");
    mine.addEventListener("click", () => {
      this.edit.version = row.version;
      this.edit.clash = null;
      this.save();
    });
    theirs.addEventListener("click", () => this.leave());
    place.querySelector(".words").append(box);
  }

  // Whether it is left: until the server has answered, nothing is typed, and it is saved once.
  save() {
    if (this.edit.saving) return this.edit.saving;
    if (this.edit.clash) return false;
    if (!this.isChanged) return this.leave();
    return (this.edit.saving = this.#saved(this.edit));
  }

  async #saved(edit) {
    const area = this.list.rows.get(edit.id).querySelector("textarea");
    area.readOnly = true;
    const value = await this.send(edit);
    edit.saving = null;
    area.readOnly = false;
    if (!value) return false;
    this.leave();
    this.onSaved(value);
    return true;
  }

  // The focus goes back to the row, unless it was put elsewhere meanwhile.
  leave() {
    const { list, id } = this, row = list.rows.get(id), focused = document.activeElement;
    const isHere = focused === document.body || row.contains(focused);
    this.edit = null;
    list.kept = null;
    list.refill(id);
    list.draw();
    if (isHere) list.rows.get(id)?.focus({ preventScroll: true });
    return true;
  }
}
