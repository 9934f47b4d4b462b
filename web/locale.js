/**
 * The pack's translations for the language of ComfyUI's page, from `locales/<language>/main.json`:
 * texts of the panels and, by input, names of the choices in lists.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { setTranslator } from "./translate.js";

const KEY = "qwenVlSuite"; // in main.json, which ComfyUI merges with those of other packs

/** The pack's translations by language; none where the server cannot be asked. */
async function load() {
  try {
    const response = await api.fetchApi("/i18n");
    const all = response.ok ? Object.entries(await response.json()) : [];
    return Object.fromEntries(all.map(([language, texts]) => [language, texts[KEY] ?? {}]));
  } catch (error) {
    console.warn("Qwen-VL: its texts are available in English only:", error);
    return {};
  }
}

const translations = await load(); // before any node is made

const inPageLanguage = (section) =>
  translations[app.extensionManager?.setting.get("Comfy.Locale")]?.[section] ?? {};

/** The names of the choices in the list `name`, by value. */
export const choiceNames = (name) => inPageLanguage("choices")[name] ?? {};

const VALUE = /\{(\w+)\}/g;
const LEAST = 8; // letters beside the values: fewer are of the page's own, and in any sentence

const patterns = new WeakMap(); // by the texts of a language

/** Of `texts`, those with values, as regular expressions; the most telling first. */
function patternsOf(texts) {
  if (!patterns.has(texts)) {
    const made = Object.entries(texts).map(([text, translation]) => {
      const parts = text.split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      const names = [...text.matchAll(VALUE)].map(([, name]) => name);
      const pattern = new RegExp(`^${parts.join("(.+?)")}$`, "s");
      return { pattern, names, translation, letters: text.replace(VALUE, "").length };
    });
    const telling = made.filter(({ names, letters }) => names.length && letters >= LEAST);
    patterns.set(texts, telling.sort((one, other) => other.letters - one.letters));
  }
  return patterns.get(texts);
}

/** Messages of the server arrive with their values filled in: "Looking at 3 pictures" is looked up
 * by the pattern "Looking at {count} pictures". */
function byPattern(texts, text) {
  for (const { pattern, names, translation } of patternsOf(texts)) {
    const values = text.match(pattern)?.slice(1);
    if (values) return translation.replace(VALUE, (_, name) => values[names.indexOf(name)]);
  }
  return undefined;
}

setTranslator((text) => {
  const texts = inPageLanguage("panels");
  return texts[text] ?? byPattern(texts, text);
});
