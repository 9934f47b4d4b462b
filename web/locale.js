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

/** Messages of the server arrive with their values filled in: "Looking at 3 pictures" is looked up
 * by the pattern "Looking at {count} pictures". */
function byPattern(texts, text) {
  for (const [pattern, translation] of Object.entries(texts)) {
    const names = [...pattern.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    if (!names.length) continue;
    const parts = pattern.split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const values = text.match(new RegExp(`^${parts.join("(.+?)")}$`, "s"))?.slice(1);
    if (values) return translation.replace(/\{(\w+)\}/g, (_, name) => values[names.indexOf(name)]);
  }
  return undefined;
}

setTranslator((text) => {
  const texts = inPageLanguage("panels");
  return texts[text] ?? byPattern(texts, text);
});
