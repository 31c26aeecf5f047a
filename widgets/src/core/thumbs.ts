// Small pictures of samples that are images.
import type { Cube, Variable } from "./cube";

/** Brightness from 0 (black) to 1 as pixels of an image; what has no value is clear. */
export function shades(values: ArrayLike<number>, [low, high]: [number, number] = [0, 1]): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (Number.isNaN(v)) continue;
    const shade = Math.round((255 * (v - low)) / (high - low || 1));
    out.set([shade, shade, shade, 255], i * 4);
  }
  return out;
}

/** The pictures of a variable [sample, row, column], one address each, made when it is first seen. */
export function thumbs(cube: Cube, name: string | undefined): ((row: number) => string) | null {
  const variable: Variable | undefined = cube.variables[name ?? ""];
  if (!variable) return null;
  const [, rows, columns] = variable.shape;
  const made = new Map<number, string>();
  return (row) => {
    if (!made.has(row)) made.set(row, drawn((variable.values as Float32Array).subarray(row * rows * columns, (row + 1) * rows * columns), rows, columns, variable.bounds));
    return made.get(row)!;
  };
}

function drawn(values: ArrayLike<number>, rows: number, columns: number, bounds?: [number, number]): string {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  if (!context) return "";
  context.putImageData(new ImageData(shades(values, bounds), columns, rows), 0, 0);
  return canvas.toDataURL("image/png");
}
