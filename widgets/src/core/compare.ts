// Two places along one dimension side by side, and what the second has more than the first.
import { type Cube, labels } from "./cube";
import { picker } from "./dom";
import type { Cursor, Value } from "./types";

export interface Comparison {
  dim: string;
  from: Value;
  to: Value;
  show: "all" | "both" | "difference";
}

export interface PanelPlace {
  words: string;
  at: Cursor;
  minus: Cursor | null;
}

export const isComparison = (x: unknown): x is Comparison => typeof x === "object" && x !== null && "dim" in x && "from" in x && "to" in x;

/** The pictures that a comparison is made of. */
export function panelsOf({ dim, from, to, show }: Comparison): PanelPlace[] {
  const noun = dim.replaceAll("_", " ");
  const single = (value: Value): PanelPlace => ({ words: `${noun} ${value}`, at: { [dim]: value }, minus: null });
  const difference = { words: `Difference: ${noun} ${to} minus ${from}`, at: { [dim]: to }, minus: { [dim]: from } };
  return [...(show === "difference" ? [] : [single(from), single(to)]), ...(show === "both" ? [] : [difference])];
}

const SHOWS = [
  { value: "all", text: "side by side and difference" },
  { value: "both", text: "side by side" },
  { value: "difference", text: "difference" },
];

/** Drop-downs for the two places and for what is shown of them. */
export function compareTools(cube: Cube, compared: Comparison, change: (next: Comparison) => void): HTMLElement[] {
  const values = labels(cube, compared.dim);
  const choices = values.map((v) => ({ value: String(v), text: `${compared.dim} ${v}` }));
  const valueOf = (text: string) => values[values.map(String).indexOf(text)];
  const from = picker(`first ${compared.dim}`, (text) => change({ ...compared, from: valueOf(text) }));
  const to = picker(`second ${compared.dim}`, (text) => change({ ...compared, to: valueOf(text) }));
  const show = picker("what is shown", (text) => change({ ...compared, show: text as Comparison["show"] }));
  from.show(choices, String(compared.from));
  to.show(choices, String(compared.to));
  show.show(SHOWS, compared.show);
  return [from.element, to.element, show.element];
}
