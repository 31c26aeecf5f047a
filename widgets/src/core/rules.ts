// How a dimension follows the Focus. The same rules as tensorscope_nb/views/focus.py.
import { type Cube, labels } from "./cube";
import type { Cursor, Patch, Selection, Value } from "./types";

const BASES = ["checkpoint", "step", "model", "task", "sample", "position", "layer", "head", "block", "module", "neuron",
  "channel", "token_id", "component", "parameter", "metric"];
export const TIME = new Set(["checkpoint", "step"]);

/** sample_a, test_sample → sample; source_layer → layer; query, key → position. */
export function baseName(name: string): string | null {
  if (name === "query" || name === "key") return "position";
  for (const base of BASES) {
    if (name !== base && (name.startsWith(`${base}_`) || name.endsWith(`_${base}`))) return base;
  }
  return null;
}

/** The names under which a dimension looks for a selection, in order. */
export function followed(dim: string): string[] {
  const names = [dim];
  const base = baseName(dim);
  if (base) names.push(base);
  for (const name of [...names]) {
    if (name === "checkpoint") names.push("step");
    if (name === "step") names.push("checkpoint");
  }
  return names;
}

export const asList = (selection: Selection): Value[] => (Array.isArray(selection) ? selection : [selection]);

export function nearest(values: Value[], wanted: Value): number {
  let best = -1;
  let distance = Infinity;
  values.forEach((v, i) => {
    const d = Math.abs(Number(v) - Number(wanted));
    if (d < distance) [best, distance] = [i, d];
  });
  return best;
}

/** Indices along `dim` that the Focus selects; null when it selects none here. */
export function indicesAt(cube: Cube, dim: string, cursor: Cursor): number[] | null {
  const values = labels(cube, dim);
  for (const name of followed(dim)) {
    if (!(name in cursor)) continue;
    const wanted = asList(cursor[name]);
    const found = TIME.has(name)
      ? wanted.map((w) => nearest(values, w))
      : wanted.map((w) => values.indexOf(w));
    const present = [...new Set(found.filter((i) => i >= 0))];
    if (present.length) return present;
  }
  return byCoordinate(cube, dim, cursor);
}

/** `module` has no `module` in the Focus, but its coordinate module_layer follows `layer`. */
function byCoordinate(cube: Cube, dim: string, cursor: Cursor): number[] | null {
  let kept: number[] | null = null;
  for (const [name, coordinate] of Object.entries(cube.coords)) {
    if (name === dim || coordinate.dims.length !== 1 || coordinate.dims[0] !== dim) continue;
    const key = [name, baseName(stripped(name, dim))].find((k) => k !== null && k in cursor);
    if (!key) continue;
    const wanted = asList(cursor[key]);
    const matches: number[] = coordinate.values.flatMap((v, i) => (wanted.includes(v) ? [i] : []));
    kept = kept ? kept.filter((i) => matches.includes(i)) : matches;
  }
  return kept && kept.length ? kept : null;
}

/** module_layer on `module` is about its layer, not about `module`: take the owner's name off first. */
export function stripped(name: string, dim: string): string {
  return name.startsWith(`${dim}_`) ? `_${name.slice(dim.length + 1)}` : name;
}

/** Apply a change; null clears. */
export function patched(cursor: Cursor, patch: Patch): Cursor {
  const next: Cursor = { ...cursor };
  for (const [dim, value] of Object.entries(patch)) {
    if (value === null || (Array.isArray(value) && !value.length)) delete next[dim];
    else next[dim] = value;
  }
  return next;
}

export const same = (a: unknown, b: unknown): boolean => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

function sorted(x: unknown): unknown {
  if (Array.isArray(x) || x === null || typeof x !== "object") return x;
  return Object.fromEntries(Object.entries(x).sort(([a], [b]) => (a < b ? -1 : 1)));
}
