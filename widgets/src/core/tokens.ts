// The tokens of a text.
import type { Cube, Variable } from "./cube";
import { pick, strides } from "./slice";
import type { Cursor } from "./types";

/** The tokens in one row (a sample, or one side of a pair) of a variable of texts; positions where the Cube has none. */
export function tokensOf(cube: Cube, row: number, n: number, name = "token", along = "position"): string[] {
  const variable = cube.variables[name];
  if (!variable) return Array.from({ length: n }, (_, i) => String(i));
  const { dims, shape, values } = variable;
  const rowsFirst = dims.length < 2 || dims.indexOf(along) !== 0;
  const size = rowsFirst ? shape[shape.length - 1] : shape[0];
  const [start, step] = dims.length < 2 ? [0, 1] : rowsFirst ? [Math.max(0, row) * size, 1] : [Math.max(0, row), shape[1]];
  return Array.from({ length: n }, (_, i) => String(i < size ? values[start + i * step] : i));
}

/** The texts (or ids) of a variable on two axes, at one place along all else, row by row. */
export function textsOn(cube: Cube, { dims, shape, values }: Variable, axes: [string, string], cursor: Cursor): string[] {
  const step = strides(shape);
  const base = dims.reduce((sum, d, k) => sum + (axes.includes(d) ? 0 : pick(cube, d, cursor, "first").indices[0] * step[k]), 0);
  const [row, column] = axes.map((d) => dims.indexOf(d));
  return Array.from({ length: shape[row] * shape[column] }, (_, i) => {
    const at = base + Math.floor(i / shape[column]) * step[row] + (i % shape[column]) * step[column];
    return String(values[at]);
  });
}
