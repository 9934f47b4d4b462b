/** One node's answers: what the live messages said so far, or the results of the last run. */

const entry = (known = {}) => ({
  text: "",
  thinking: "",
  finish_reason: null,
  error: "",
  ...known,
});

export class Answer {
  entries = []; // one a picture
  status = "";
  outcome = ""; // "", "stopped" or "failed"
  running = false;
  current = 0; // the picture being answered
  #part = NaN; // of the text being written; NaN: its beginning was missed

  /** One `qwen_vl.live` message: a status line, or words of one picture. */
  hear({ status, index, count, part, thinking, text, finish_reason }) {
    if (!this.running || (status && count)) this.#begin();
    this.status = status ?? "";
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
    if (finish_reason) known.finish_reason = finish_reason;
  }

  /** The results of a run, as the node's output has them. */
  finish(results) {
    this.entries = results.map(entry);
    this.#stand("");
  }

  /** The run ended without results; what there is stays. */
  end(outcome) {
    if (this.running) this.#stand(outcome);
  }

  #begin() {
    this.entries = [];
    this.current = 0;
    this.#part = NaN;
    this.outcome = "";
    this.running = true;
  }

  #stand(outcome) {
    this.running = false;
    this.status = "";
    this.outcome = outcome;
  }

  #makeRoom(count) {
    while (this.entries.length < count) this.entries.push(entry());
  }
}
