// A selection as Python code.
import type { Cursor, Selection, Value } from "./types";

const literal = (v: Value): string => (typeof v === "boolean" ? (v ? "True" : "False") : typeof v === "string" ? JSON.stringify(v) : String(v));
const value = (s: Selection): string => (Array.isArray(s) ? `[${s.map(literal).join(", ")}]` : literal(s));
const WORDS = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** `ds.sel(layer=1, head=[2, 3])` */
export function selCode(cursor: Cursor): string {
  const entries = Object.entries(cursor);
  if (!entries.length) return "ds";
  if (!entries.every(([d]) => WORDS.test(d))) return `ds.sel(${dict(entries)})`;
  return `ds.sel(${entries.map(([d, s]) => `${d}=${value(s)}`).join(", ")})`;
}

/** `focus.update({"layer": 1, "head": [2, 3]})` */
export const updateCode = (cursor: Cursor): string => `focus.update(${dict(Object.entries(cursor))})`;

const dict = (entries: [string, Selection][]): string => `{${entries.map(([d, s]) => `${JSON.stringify(d)}: ${value(s)}`).join(", ")}}`;

/** To the clipboard, also where the page may not use it directly (a file, a plain http server). */
export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("this browser does not let the page copy");
  }
}
