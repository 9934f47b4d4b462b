/** State of one node's answers: what the live messages said so far, or the last run's results. */

const entry = (known = {}) => ({
  text: "",
  thinking: "",
  finish_reason: null,
  error: "",
  notes: [],
  ...known,
});

export class AnswerState {
  entries = []; // one a picture
  status = "";
  outcome = ""; // "", "stopped" or "failed"
  error = ""; // why the run failed
  running = false;
  current = 0; // the picture being answered
  shown = 0; // the picture on view
  #following = true; // whether the picture on view moves along with the one being answered
  #part = NaN; // number of the last part of the text being written; NaN: its beginning was missed

  /** Takes in a `qwen_vl.live` message: a status line, new words about one picture, or all results
   * of a run that is about to fail (see nodes/host/page.py). */
  receive({ status, index, count, part, thinking, text, finish_reason, results }) {
    if (!this.running || (status && count)) this.begin();
    this.status = status ?? "";
    if (results) this.#setResults(results);
    if (count) this.#reserve(count);
    if (index === undefined) return;
    const answer = this.entries[index];
    if (part === 0) Object.assign(answer, { thinking, text });
    else if (index === this.current && part === this.#part + 1) {
      answer.thinking += thinking;
      answer.text += text;
    } else return; // parts before this one were missed: the whole text will be sent again soon
    this.current = index;
    this.#part = part;
    if (this.#following) this.shown = index;
    if (finish_reason) answer.finish_reason = finish_reason;
  }

  /** A new run: drops everything of the last one. */
  begin() {
    this.entries = [];
    this.current = this.shown = 0;
    this.#following = true;
    this.#part = NaN;
    this.outcome = this.error = "";
    this.running = true;
  }

  /** The results of a finished run, as in the node's output. */
  finish(results) {
    this.#setResults(results);
    this.#stop("");
  }

  /** The run ended without results; the answers so far stay. */
  end(outcome, error = "") {
    if (this.running) this.#stop(outcome, error);
  }

  /** Another run of the workflow has begun: the error of the last one is outdated. */
  clearError() {
    if (this.outcome === "failed") this.outcome = this.error = "";
  }

  /** Shows picture `index`, or the nearest that exists. */
  show(index) {
    this.shown = Math.max(0, Math.min(this.entries.length - 1, index));
    this.#following = this.running && this.shown === this.current;
  }

  /** A picture that the user turned to stays on view; else the first unreadable one is shown. */
  #setResults(results) {
    this.entries = results.map(entry);
    const chosen = !this.#following && this.shown < results.length;
    if (!chosen) this.shown = Math.max(0, this.entries.findIndex(({ error }) => error));
  }

  #stop(outcome, error = "") {
    this.running = false;
    this.status = "";
    this.outcome = outcome;
    this.error = error;
  }

  #reserve(count) {
    while (this.entries.length < count) this.entries.push(entry());
  }
}
