/** Translation of the panels' texts into the page's language. Knows no ComfyUI. */

let translator = () => undefined;

/** `translateTo(text)` gives a text in the page's language; undefined: it stays in English. */
export function setTranslator(translateTo) {
  translator = translateTo;
}

/** `text` in the page's language, with `values` filled in for `{name}`. */
export function translate(text, values = {}) {
  const fill = (placeholder, name) => values[name] ?? placeholder;
  return (translator(text) ?? text).replace(/\{(\w+)\}/g, fill);
}
