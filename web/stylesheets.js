/** Style sheets of the pack's panels, adopted by the page beside those of everybody else. */

/** `file`: a style sheet in this folder. */
export async function addStylesheet(file) {
  const response = await fetch(new URL(`./${file}`, import.meta.url));
  if (!response.ok) throw new Error(`${file} of Qwen-VL Suite cannot be loaded: ${response.status}`);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(await response.text());
  document.adoptedStyleSheets.push(sheet);
}
