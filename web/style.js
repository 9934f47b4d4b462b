/** Style sheets of the pack's own elements, added to the page beside everybody else's. */

/** `file`: a style sheet in this folder. */
export async function addStyle(file) {
  const answer = await fetch(new URL(`./${file}`, import.meta.url));
  if (!answer.ok) throw new Error(`${file} of Qwen-VL Suite cannot be loaded: ${answer.status}`);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(await answer.text());
  document.adoptedStyleSheets.push(sheet);
}
