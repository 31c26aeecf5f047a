// Slicing a variable at the Focus: some dimensions stay as axes, the rest are picked or reduced, and it says so.
import { type Cube, type Variable, labels } from "./cube";
import { asList, baseName, followed, indicesAt } from "./rules";
import type { Cursor } from "./types";

export type Reduce = "mean" | "max" | "min" | "sum" | "first";

export interface Slice {
  values: Float64Array;
  shape: number[];
  /** What was done with the other dimensions, in words. */
  notes: string[];
}

const LATEST = new Set(["checkpoint", "step"]);
const POOLED = new Set(["sample", "replicate", "position", "query", "key"]);

export const pooled = (dim: string): boolean => POOLED.has(dim) || POOLED.has(baseName(dim) ?? "");

/** Which indices of a dimension that is not an axis are taken, and the words for it. */
export function pick(cube: Cube, dim: string, cursor: Cursor, reduce: Reduce): { indices: number[]; note: string } {
  const values = labels(cube, dim);
  const chosen = indicesAt(cube, dim, cursor);
  const noun = dim.replaceAll("_", " ");
  if (chosen?.length === 1) return { indices: chosen, note: LATEST.has(dim) ? `at ${noun} ${values[chosen[0]]}` : `${noun} ${values[chosen[0]]}` };
  if (chosen) return { indices: chosen, note: `${reduce} over ${chosen.length} ${noun}s` };
  if (LATEST.has(dim)) return { indices: [values.length - 1], note: `at ${noun} ${values.at(-1)}` };
  if (pooled(dim) && reduce !== "first") {
    if (values.length === 1) return { indices: [0], note: `${noun} ${values[0]}` };
    return { indices: values.map((_, i) => i), note: `${reduce} over ${values.length} ${noun}s` };
  }
  return { indices: [0], note: values.length > 1 ? `${noun} ${values[0]} (the first of ${values.length})` : `${noun} ${values[0]}` };
}

/** Words for a selection that this Cube does not hold. */
export function absent(cube: Cube, dim: string, cursor: Cursor): string[] {
  const name = followed(dim).find((n) => n in cursor);
  return name && !indicesAt(cube, dim, cursor) ? [`${dim} ${asList(cursor[name]).join(", ")} is not among these`] : [];
}

export function strides(shape: number[]): number[] {
  const out = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) out[i] = out[i + 1] * shape[i + 1];
  return out;
}

/** Dimensions of a variable over which a slice on `axes` pools: neither axes nor down to one place at the Focus. */
export function pooledDims(cube: Cube, variable: Variable, axes: string[], cursor: Cursor): string[] {
  return variable.dims.filter((d) => !axes.includes(d) && pooled(d) && cube.dims[d] > 1 && indicesAt(cube, d, cursor)?.length !== 1);
}

/** Words where everyone looks at a checkpoint and these values have none. */
export function timeless(cube: Cube, variable: Variable, cursor: Cursor): string[] {
  if (variable.dims.some((d) => LATEST.has(d))) return [];
  const own = [...LATEST].find((d) => cube.coords[d]?.dims.length === 0);
  if (own) return [`at ${own} ${cube.coords[own].values[0]}`];
  const asked = [...LATEST].find((d) => d in cursor);
  return asked ? [`does not follow the ${asked}`] : [];
}

/** `variable` on `axes` (all of its own dimensions), everything else taken at `cursor`. NaN values are left out of a reduction. */
export function slice(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, reduce: Reduce = "mean"): Slice {
  const step = strides(variable.shape);
  const shape = axes.map((a) => cube.dims[a]);
  const notes: string[] = [];
  let offsets = [0];
  variable.dims.forEach((dim, d) => {
    if (axes.includes(dim)) return;
    const { indices, note } = pick(cube, dim, cursor, reduce);
    notes.push(note, ...absent(cube, dim, cursor));
    offsets = offsets.flatMap((o) => indices.map((i) => o + i * step[d]));
  });
  notes.push(...timeless(cube, variable, cursor));
  const axisStep = axes.map((a) => step[variable.dims.indexOf(a)]);
  const size = shape.reduce((a, b) => a * b, 1);
  const values = new Float64Array(size);
  const source = variable.values as ArrayLike<number>;
  const index = new Array<number>(axes.length).fill(0);
  for (let i = 0; i < size; i++) {
    let base = 0;
    for (let a = 0; a < axes.length; a++) base += index[a] * axisStep[a];
    values[i] = offsets.length === 1 ? source[base + offsets[0]] : combine(source, base, offsets, reduce);
    for (let a = axes.length - 1; a >= 0; a--) {
      if (++index[a] < shape[a]) break;
      index[a] = 0;
    }
  }
  return { values, shape, notes };
}

function combine(source: ArrayLike<number>, base: number, offsets: number[], reduce: Reduce): number {
  let total = 0;
  let count = 0;
  let low = Infinity;
  let high = -Infinity;
  for (const offset of offsets) {
    const v = source[base + offset];
    if (Number.isNaN(v)) continue;
    total += v;
    count++;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (!count) return NaN;
  return reduce === "mean" ? total / count : reduce === "sum" ? total : reduce === "max" ? high : low;
}

/** Smallest and largest finite value; [0, 1] where there is none. */
export function extent(values: ArrayLike<number>): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (!Number.isFinite(v)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}
