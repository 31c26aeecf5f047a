// What an AttentionPattern shows, as plain arrays.
import { type Cube, labels, type Variable } from "../core/cube";
import { agreeing } from "../core/places";
import { indicesAt } from "../core/rules";
import { pick, slice, timeless } from "../core/slice";
import type { Cursor, Place } from "../core/types";

export interface Panel {
  words: string;
  /** size × size weights; NaN where there is nothing to show. */
  values: Float64Array;
  size: number;
  /** How many positions the sample has. */
  n: number;
  causal: boolean;
}

/** One panel per selected layer and head, the first of each where none is selected. */
export function panelsAt(cube: Cube, variable: Variable, cursor: Cursor, most: number, places: Place[] = []): { facets: { cursor: Cursor; words: string }[]; total: number; notes: string[] } {
  let facets: { cursor: Cursor; words: string }[] = [{ cursor, words: "" }];
  for (const dim of ["layer", "head"]) {
    if (!variable.dims.includes(dim)) continue;
    const values = labels(cube, dim);
    const indices = [...(indicesAt(cube, dim, cursor) ?? [0])].sort((a, b) => a - b);
    facets = facets.flatMap((f) => indices.map((i) => ({
      cursor: { ...f.cursor, [dim]: values[i] }, words: [f.words, `${dim} ${values[i]}`].filter(Boolean).join(" · "),
    })));
  }
  const listed = agreeing(cursor, places).filter((p) => "layer" in p && "head" in p);
  if (listed.length) facets = facets.filter((f) => listed.some((p) => p.layer === f.cursor.layer && p.head === f.cursor.head));
  const others = variable.dims.filter((d) => !["layer", "head", "sample", "query", "key"].includes(d));
  const notes = [...others.map((d) => pick(cube, d, cursor, "mean").note), ...timeless(cube, variable, cursor)];
  return { facets: facets.slice(0, most), total: facets.length, notes };
}

export function readPanel(cube: Cube, variable: Variable, cursor: Cursor, words: string): Panel {
  const { values: shared, shape } = slice(cube, variable, ["query", "key"], cursor);
  const values = shared.slice();
  const size = shape[1];
  const causal = isCausal(values, size);
  if (causal) for (let q = 0; q < shape[0]; q++) for (let k = q + 1; k < size; k++) values[q * size + k] = NaN;
  return { words, values, size, n: size, causal };
}

/** Nothing above the diagonal: there a key comes after its query, and the model cannot look. */
export function isCausal(values: ArrayLike<number>, size: number): boolean {
  for (let q = 0; q < size; q++) for (let k = q + 1; k < size; k++) if (Math.abs(values[q * size + k]) > 0) return false;
  return true;
}

/** Positions that hold any value: the others are padding. */
export function extentOf(values: ArrayLike<number>, size: number): number {
  for (let q = Math.floor(values.length / size) - 1; q >= 0; q--) {
    for (let k = 0; k < size; k++) if (Number.isFinite(values[q * size + k])) return q + 1;
  }
  return 0;
}

/** The panels without their first key: what goes to it says little, and outshines all else. */
export function withoutFirst(panels: Panel[]): Panel[] {
  return panels.map((panel) => {
    const values = panel.values.slice();
    for (let q = 0; q < values.length; q += panel.size) values[q] = NaN;
    return { ...panel, values };
  });
}

/** Top of the colour scale: 1, or lower where no row past the first few (they have few keys to spread over) comes near it. */
export function ceiling(panels: Panel[]): number {
  let largest = 0;
  for (const { values, size, n } of panels) {
    for (let q = Math.min(4, n - 1); q < n; q++) for (let k = 0; k < n; k++) if (Math.abs(values[q * size + k]) > largest) largest = Math.abs(values[q * size + k]);
  }
  if (largest > 1) return largest;
  return [0.05, 0.1, 0.2, 0.5].find((top) => largest <= top) ?? 1;
}

/** Whether there is anything below 0: scores, and not weights. */
export const signedIn = (panels: Panel[]): boolean => panels.some(({ values }) => values.some((v) => v < 0));

/** The weights from one query to all keys, averaged over the heads that are shown. */
export function rowOf(panels: Panel[], query: number, n: number): Float64Array {
  const row = new Float64Array(n);
  for (const { values, size } of panels) for (let k = 0; k < n; k++) row[k] += values[query * size + k] / panels.length;
  return row;
}

/** Index of the largest value, past those that are none. */
export const strongest = (row: Float64Array): number => row.reduce((best, v, k) => (v > row[best] || Number.isNaN(row[best]) ? k : best), 0);
