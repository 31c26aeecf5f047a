// The tokens of a sample.
import type { Cube } from "./cube";

/** The tokens of a sample; positions where the Cube has none. */
export function tokensOf(cube: Cube, sample: number, n: number): string[] {
  const variable = cube.variables.token;
  const size = variable?.shape.at(-1) ?? 0;
  const start = variable?.dims.length === 2 ? Math.max(0, sample) * size : 0;
  return Array.from({ length: n }, (_, i) => {
    const token = variable && i < size ? variable.values[start + i] : undefined;
    return token === undefined ? String(i) : String(token);
  });
}
