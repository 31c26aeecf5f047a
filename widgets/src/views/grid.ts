// Where the cells of a HeadGrid are, and the range that its colours span.
import { type Cube, type Variable } from "../core/cube";
import { extent, pooledDims, type Reduce, slice } from "../core/slice";
import type { Cursor } from "../core/types";

export interface GridShape {
  left: number;
  top: number;
  cell: number;
  line: number;
  gap: number;
  width: number;
  height: number;
  rows: number;
  columns: number;
}

export function gridShape(width: number, rows: number, columns: number): GridShape {
  const left = 34;
  const top = 2;
  const cell = Math.max(5, Math.min(72, Math.floor((width - left - 2) / columns)));
  const line = Math.max(5, Math.min(46, Math.round(cell * 0.8), Math.floor(560 / rows)));
  const gap = cell >= 16 ? 2 : cell >= 8 ? 1 : 0;
  return { left, top, cell, line, gap, rows, columns, width: left + columns * cell + 2, height: top + rows * line + 34 };
}

/** [row, column] under a pixel; row 0 is the bottom one. */
export function cellAt(shape: GridShape, x: number, y: number): [number, number] | null {
  const column = Math.floor((x - shape.left) / shape.cell);
  const row = shape.rows - 1 - Math.floor((y - shape.top) / shape.line);
  return column >= 0 && column < shape.columns && row >= 0 && row < shape.rows ? [row, column] : null;
}

/**
 * The range is that of the whole variable, so that colours stay comparable while the checkpoint moves. Where samples are
 * pooled it is that of the pooled values: single samples reach much further.
 */
export function rangeOf(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, reduce: Reduce = "mean"): [number, number] {
  const reduced = pooledDims(cube, variable, axes, cursor);
  if (!reduced.length) return extent(variable.values as ArrayLike<number>);
  const kept = variable.dims.filter((d) => !reduced.includes(d));
  return extent(slice(cube, variable, kept, cursor, reduce).values);
}

/** Indices as runs of neighbours: [0, 1, 2, 5] is [0, 2] and [5, 5]. */
export function runs(indices: number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const i of [...indices].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && i <= last[1] + 1) last[1] = Math.max(i, last[1]);
    else found.push([i, i]);
  }
  return found;
}
