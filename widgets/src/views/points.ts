// The points of a Scatter, and which of them are where.
import { type Cube, labels, type Variable } from "../core/cube";
import type { Patch, Place } from "../core/types";
import { unravelled } from "./ranked";

export interface Points {
  dims: string[];
  shape: number[];
  x: Float64Array;
  y: Float64Array;
}

/** The dimensions on which both variables have a value: those of the one, and what the other has besides. */
export function pointDims(a: Variable, b: Variable): string[] {
  const time = ["checkpoint", "step"];
  return [...new Set([...a.dims, ...b.dims])].filter((d) => !time.includes(d));
}

/** Values on some of the dimensions, repeated along the others. */
export function broadcast(values: ArrayLike<number>, own: string[], dims: string[], shape: number[]): Float64Array {
  const out = new Float64Array(shape.reduce((a, b) => a * b, 1));
  const at = own.map((d) => dims.indexOf(d));
  for (let i = 0; i < out.length; i++) {
    const index = unravelled(i, shape);
    out[i] = values[at.reduce((flat, d) => flat * shape[d] + index[d], 0)];
  }
  return out;
}

/** The point within reach of a pixel, the closest one. */
export function pointAt(px: ArrayLike<number>, py: ArrayLike<number>, x: number, y: number, reach: number): number | null {
  let best: number | null = null;
  let distance = reach;
  for (let i = 0; i < px.length; i++) {
    const right = px[i] - x;
    // most are far away
    if (right >= reach || right <= -reach) continue;
    const d = Math.hypot(right, py[i] - y);
    if (d < distance) [best, distance] = [i, d];
  }
  return best;
}

/** The selection of these points: along each dimension, and one by one where they are not all combinations of those. */
export function selecting(cube: Cube, dims: string[], shape: number[], picked: number[]): { patch: Patch; places: Place[] } {
  const along = dims.map((d) => labels(cube, d));
  if (dims.length === 1) return { patch: { [dims[0]]: picked.length === 1 ? along[0][picked[0]] : picked.map((i) => along[0][i]) }, places: [] };
  const places = picked.map((flat) => Object.fromEntries(unravelled(flat, shape).map((i, d) => [dims[d], along[d][i]])));
  const lists = dims.map((d) => [...new Set(places.map((p) => p[d]))]);
  const patch = Object.fromEntries(dims.map((d, i) => [d, lists[i].length === 1 ? lists[i][0] : lists[i]]));
  return { patch, places: lists.reduce((n, l) => n * l.length, 1) === picked.length ? [] : places };
}
