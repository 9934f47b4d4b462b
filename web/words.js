/** The panels' words in the language of the page. */

let translated = () => undefined;

/** `translate(text)` gives a text in the page's language; undefined: it stays in English. */
export function learn(translate) {
  translated = translate;
}

/** `text` in the page's language, with `values` in the places of `{name}`. */
export function say(text, values = {}) {
  const fill = (whole, name) => values[name] ?? whole;
  return (translated(text) ?? text).replace(/\{(\w+)\}/g, fill);
}
