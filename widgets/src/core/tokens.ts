// The tokens of a text.
import type { Cube } from "./cube";

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
