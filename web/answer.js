/** One node's answers: what the live messages said so far, or the results of the last run. */

const entry = (known = {}) => ({
  text: "",
  thinking: "",
  finish_reason: null,
  error: "",
  notes: [],
  ...known,
});

export class Answer {
  entries = []; // one a picture
  status = "";
  outcome = ""; // "", "stopped" or "failed"
  error = ""; // why the run failed
  running = false;
  current = 0; // the picture being answered
  shown = 0; // the picture on view
  #follows = true; // whether the picture on view is to be the one being answered
  #part = NaN; // of the text being written; NaN: its beginning was missed

  /** One `qwen_vl.live` message: a status line, words of one picture, or all results of a run that
   * is about to fail. */
  hear({ status, index, count, part, thinking, text, finish_reason, results }) {
    if (!this.running || (status && count)) this.begin();
    this.status = status ?? "";
    if (results) this.#take(results);
    if (count) this.#makeRoom(count);
    if (index === undefined) return;
    const known = this.entries[index];
    if (part === 0) Object.assign(known, { thinking, text });
    else if (index === this.current && part === this.#part + 1) {
      known.thinking += thinking;
      known.text += text;
    } else return; // amid a text whose beginning was missed: the whole of it comes soon
    this.current = index;
    this.#part = part;
    if (this.#follows) this.shown = index;
    if (finish_reason) known.finish_reason = finish_reason;
  }

  /** Another run: nothing of the last one stays. */
  begin() {
    this.entries = [];
    this.current = this.shown = 0;
    this.#follows = true;
    this.#part = NaN;
    this.outcome = this.error = "";
    this.running = true;
  }

  /** The results of a run, as the node's output has them. */
  finish(results) {
    this.#take(results);
    this.#stand("");
  }

  /** The run ended without results; what there is stays. */
  end(outcome, error = "") {
    if (this.running) this.#stand(outcome, error);
  }

  /** Another run of the workflow has begun: why the last one failed is past. */
  forgive() {
    if (this.outcome === "failed") this.outcome = this.error = "";
  }

  /** Shows picture `index`, as far as there are so many. */
  turn(index) {
    this.shown = Math.max(0, Math.min(this.entries.length - 1, index));
    this.#follows = this.running && this.shown === this.current;
  }

  /** Whoever leafed stays there; everybody else begins with what could not be read, if anything. */
  #take(results) {
    this.entries = results.map(entry);
    const leafed = !this.#follows && this.shown < results.length;
    if (!leafed) this.shown = Math.max(0, this.entries.findIndex(({ error }) => error));
  }

  #stand(outcome, error = "") {
    this.running = false;
    this.status = "";
    this.outcome = outcome;
    this.error = error;
  }

  #makeRoom(count) {
    while (this.entries.length < count) this.entries.push(entry());
  }
}
