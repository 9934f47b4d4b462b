/**
 * The pack's words in the language that ComfyUI's page is in, from `locales/<language>/main.json`:
 * of its panels and, by input, of what can be chosen in lists.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { learn } from "./words.js";

const KEY = "qwenVlSuite"; // in main.json, which ComfyUI lays upon those of other packs

/** What ComfyUI has of the pack by language; nothing where it cannot be asked. */
async function read() {
  try {
    const answer = await api.fetchApi("/i18n");
    const all = answer.ok ? Object.entries(await answer.json()) : [];
    return Object.fromEntries(all.map(([language, texts]) => [language, texts[KEY] ?? {}]));
  } catch (error) {
    console.warn("Qwen-VL: its words are not known in other languages than English:", error);
    return {};
  }
}

const known = await read(); // before any node is made

const ofPage = (part) => known[app.extensionManager?.setting.get("Comfy.Locale")]?.[part] ?? {};

/** What the choices of the list `name` are called, by value. */
export const choicesOf = (name) => ofPage("choices")[name] ?? {};

/** A sentence of the server has its values in it: "Looking at {count} pictures" is found by them. */
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

learn((text) => {
  const texts = ofPage("panels");
  return texts[text] ?? byPattern(texts, text);
});
