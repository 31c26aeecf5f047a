// Small Cubes for the tests.
import type { Cube, Values } from "../src/core/cube";
import type { Value } from "../src/core/types";

export function cubeOf(dims: Record<string, Value[] | number>, variables: Record<string, [string[], number[] | Values]>): Cube {
  const sizes = Object.fromEntries(Object.entries(dims).map(([d, v]) => [d, typeof v === "number" ? v : v.length]));
  const coords = Object.fromEntries(Object.entries(dims).flatMap(([d, v]) => (typeof v === "number" ? [] : [[d, { dims: [d], values: v }]])));
  const made = Object.entries(variables).map(([name, [along, values]]) => [
    name, { name, dims: along, shape: along.map((d) => sizes[d]), values: Array.isArray(values) && typeof values[0] === "number" ? Float32Array.from(values as number[]) : values, longName: name, units: "", words: {} },
  ]);
  return { dims: sizes, coords, variables: Object.fromEntries(made), partial: "", notes: [] };
}
