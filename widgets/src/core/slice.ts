// Slicing a variable at the Focus: some dimensions stay as axes, the rest are picked or reduced, and it says so.
import { type Cube, type Variable, labels } from "./cube";
import { baseName, indicesAt, TIME, unmet } from "./rules";
import { valueText } from "./scale";
import type { Cursor, Value } from "./types";

/** `strongest` is the value that is furthest from 0, with its sign. */
export type Reduce = "mean" | "max" | "min" | "sum" | "first" | "strongest";

export interface Slice {
  values: Float64Array;
  shape: number[];
  /** What was done with the other dimensions, in words. */
  notes: string[];
}

const POOLED = new Set(["sample", "replicate", "block", "position", "query", "key"]);

/** Parts of a model. What adds up says how it is reduced, and then is over these too; no variable adds up over models or tasks. */
const PARTS = new Set(["module", "layer", "head", "neuron", "channel", "component", "parameter"]);

export const pooled = (dim: string): boolean => POOLED.has(dim) || POOLED.has(baseName(dim) ?? "");

/** How a variable is reduced where nobody asks for another way: as it says itself, else by its mean. */
export const reduction = (variable: Variable, asked?: Reduce): Reduce => asked ?? variable.words.reduce ?? "mean";

export const isPart = (dim: string): boolean => PARTS.has(dim) || PARTS.has(baseName(dim) ?? "");
const poolOf = (variable: Variable, pool: string[]): string[] => (variable.words.reduce ? [...pool, ...variable.dims.filter(isPart)] : pool);

const overWords = (reduce: Reduce): string => (reduce === "strongest" ? "strongest of" : `${reduce} over`);

/** Of these the model itself is the middle. */
const CENTRED = new Set(["x", "y"]);

/** Which indices of a dimension that is not an axis are taken, and the words for it. */
export function pick(cube: Cube, dim: string, cursor: Cursor, reduce: Reduce, pool: string[] = []): { indices: number[]; note: string } {
  const values = labels(cube, dim);
  const chosen = indicesAt(cube, dim, cursor);
  const noun = dim.replaceAll("_", " ");
  if (chosen?.length === 1) return { indices: chosen, note: TIME.has(dim) ? `at ${noun} ${valueText(values[chosen[0]])}` : `${noun} ${valueText(values[chosen[0]])}` };
  if (chosen) return { indices: chosen, note: `${overWords(reduce)} ${chosen.length} ${noun}s` };
  if (TIME.has(dim)) return { indices: [values.length - 1], note: `at ${noun} ${valueText(values.at(-1))}` };
  if ((pooled(dim) || pool.includes(dim)) && reduce !== "first") {
    if (values.length === 1) return { indices: [0], note: `${noun} ${valueText(values[0])}` };
    return { indices: values.map((_, i) => i), note: `${overWords(reduce)} ${values.length} ${noun}s` };
  }
  if (CENTRED.has(dim)) {
    const i = values.reduce<number>((best, v, k) => (Math.abs(Number(v)) < Math.abs(Number(values[best])) ? k : best), 0);
    return { indices: [i], note: `${noun} ${valueText(values[i])}` };
  }
  return { indices: [0], note: values.length > 1 ? `${noun} ${valueText(values[0])} (the first of ${values.length})` : `${noun} ${valueText(values[0])}` };
}

/** Words for a selection that this Cube does not hold. */
export function absent(cube: Cube, dim: string, cursor: Cursor): string[] {
  return missing(unmet(cube, dim, cursor));
}

/** The same for the axes of a picture: a sample that is one of the columns is not missing among the rows. */
export function absentAlong(cube: Cube, axes: string[], cursor: Cursor): string[] {
  const told = new Set<string>();
  return axes.flatMap((axis) => missing(unmet(cube, axis, cursor).filter(([name]) => {
    const twins = name === baseName(axis) ? axes.filter((a) => baseName(a) === name) : [];
    if (told.has(name) || twins.some((a) => indicesAt(cube, a, cursor))) return false;
    told.add(name);
    return true;
  })));
}

/** What is asked for together is missing together: each of two samples may be there, and their pair not. */
const missing = (asked: [string, Value[]][]): string[] => {
  const named = asked.map(([name, wanted]) => `${name.replaceAll("_", " ")} ${wanted.map(valueText).join(", ")}`);
  return named.length ? [`${named.join(" × ")} is not among these`] : [];
};

export function strides(shape: number[]): number[] {
  const out = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) out[i] = out[i + 1] * shape[i + 1];
  return out;
}

/** Dimensions of a variable over which a slice on `axes` pools: neither axes nor down to one place at the Focus. */
export function pooledDims(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, pool: string[] = []): string[] {
  const over = poolOf(variable, pool);
  return variable.dims.filter((d) => !axes.includes(d) && (pooled(d) || over.includes(d)) && cube.dims[d] > 1 && indicesAt(cube, d, cursor)?.length !== 1);
}

/** Words where everyone looks at a checkpoint and these values have none. */
export function timeless(cube: Cube, variable: Variable, cursor: Cursor): string[] {
  if (variable.dims.some((d) => TIME.has(d))) return [];
  const own = [...TIME].find((d) => cube.coords[d]?.dims.length === 0);
  if (own) return [`at ${own} ${cube.coords[own].values[0]}`];
  const asked = [...TIME].find((d) => d in cursor);
  return asked ? [`does not follow the ${asked}`] : [];
}

// The last slices of each variable: a change of the Focus that does not concern it costs nothing.
const recent = new WeakMap<Variable, Map<string, Slice>>();
const KEPT = 4;

/**
 * `variable` on `axes` (all of its own dimensions), everything else taken at `cursor`. NaN values are left out of a reduction.
 * The values are shared: copy them before changing them.
 */
export function slice(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, asked?: Reduce, pool: string[] = []): Slice {
  const reduce = reduction(variable, asked);
  const over = poolOf(variable, pool);
  const taken = new Map<number, number[]>();
  const notes: string[] = [];
  variable.dims.forEach((dim, d) => {
    if (axes.includes(dim)) return;
    const { indices, note } = pick(cube, dim, cursor, reduce, over);
    taken.set(d, indices);
    notes.push(note, ...absent(cube, dim, cursor));
  });
  notes.push(...timeless(cube, variable, cursor));
  const key = JSON.stringify([axes, reduce, [...taken].map(([d, i]) => (i.length === variable.shape[d] ? [d] : [d, i]))]);
  let known = recent.get(variable);
  if (!known) recent.set(variable, (known = new Map()));
  const found = known.get(key);
  const made = found ?? read(variable, axes, taken, reduce);
  known.delete(key);
  known.set(key, made);
  if (known.size > KEPT) known.delete(known.keys().next().value!);
  return { ...made, notes };
}

function read(variable: Variable, axes: string[], taken: Map<number, number[]>, reduce: Reduce): Slice {
  const step = strides(variable.shape);
  let offsets = [0];
  for (const [d, indices] of taken) offsets = offsets.flatMap((o) => indices.map((i) => o + i * step[d]));
  const along = axes.map((a) => variable.dims.indexOf(a));
  const shape = along.map((d) => variable.shape[d]);
  const axisStep = along.map((d) => step[d]);
  const size = shape.reduce((a, b) => a * b, 1);
  const values = new Float64Array(size);
  const source = variable.values as ArrayLike<number>;
  // what lies together in the order of the axes is copied as it is
  if (offsets.length === 1 && ArrayBuffer.isView(variable.values) && axisStep.every((s, a) => s === strides(shape)[a])) {
    values.set(variable.values.subarray(offsets[0], offsets[0] + size));
    return { values, shape, notes: [] };
  }
  const index = new Array<number>(axes.length).fill(0);
  let base = 0;
  for (let i = 0; i < size; i++) {
    values[i] = offsets.length === 1 ? source[base + offsets[0]] : combine(source, base, offsets, reduce);
    for (let a = axes.length - 1; a >= 0; a--) {
      base += axisStep[a];
      if (++index[a] < shape[a]) break;
      base -= axisStep[a] * shape[a];
      index[a] = 0;
    }
  }
  return { values, shape, notes: [] };
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
  if (reduce === "strongest") return -low > high ? low : high;
  return reduce === "mean" ? total / count : reduce === "sum" ? total : reduce === "max" ? high : low;
}

/** Smallest and largest finite value; [0, 1] where there is none. */
export function extent(values: ArrayLike<number>): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v < low && v > -Infinity) low = v;
    if (v > high && v < Infinity) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}

const extents = new WeakMap<Variable, [number, number]>();

/** The extent of a whole variable, looked for once. */
export function extentOf(variable: Variable): [number, number] {
  if (!extents.has(variable)) extents.set(variable, extent(variable.values as ArrayLike<number>));
  return extents.get(variable)!;
}
