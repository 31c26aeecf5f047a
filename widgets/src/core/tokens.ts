// The tokens of a text.
import type { Cube, Variable } from "./cube";
import { visibleToken } from "./dom";
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

// The last texts of each variable: a pointer that moves asks for the same again.
const recent = new WeakMap<Variable, { key: string; texts: string[] }>();

/** The texts (or ids) of a variable on two axes, at one place along all else, row by row, with their whitespace made visible. */
export function textsOn(cube: Cube, variable: Variable, axes: [string, string], cursor: Cursor): string[] {
  const { dims, shape, values } = variable;
  const step = strides(shape);
  const base = dims.reduce((sum, d, k) => sum + (axes.includes(d) ? 0 : pick(cube, d, cursor, "first").indices[0] * step[k]), 0);
  const key = `${axes.join()} ${base}`;
  const known = recent.get(variable);
  if (known?.key === key) return known.texts;
  const [row, column] = axes.map((d) => dims.indexOf(d));
  const texts = Array.from({ length: shape[row] * shape[column] }, (_, i) => {
    const at = base + Math.floor(i / shape[column]) * step[row] + (i % shape[column]) * step[column];
    return visibleToken(String(values[at]));
  });
  recent.set(variable, { key, texts });
  return texts;
}
