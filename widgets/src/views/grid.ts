// Where the cells of a grid are, and the range that its colours span.
import { type Cube, labels, type Variable } from "../core/cube";
import { alone, headOf, ownName, TIME } from "../core/rules";
import { extent, extentOf, pooledDims, type Reduce, slice } from "../core/slice";
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
  /** Row 0 is the bottom one. */
  upward: boolean;
  /** Column labels stand upright. */
  steep: boolean;
}

export interface Looks {
  rowLabels: string[];
  columnLabels: string[];
  upward: boolean;
  square: boolean;
  /** Columns belong together: where they are narrow the label of each group does. */
  grouped: boolean;
  /** What the columns are called, below them. */
  columns: string;
  /** Cells have words in them: they are as wide as those need, and the picture may be wider than its place. */
  worded: boolean;
}

/** The least width of a cell with a word, and how many of those a picture may have side by side. */
const WORD = 46;
const WORDS = 300;

/** Narrower than this, a line of a grid has no room for its own label. */
export const NARROW = 14;

export const LETTER = 6.2;

/** Neighbouring rows, or columns, of one layer. */
export interface Group {
  label: string;
  from: number;
  to: number;
}

/** The layers of what a dimension has: those of its coordinate, or of names such as "0.3"; none where they are not in order. */
export function groupsOf(cube: Cube, dim: string): Group[] {
  const values = labels(cube, dim);
  const told = Object.entries(cube.coords).find(([name, c]) => c.dims.length === 1 && c.dims[0] === dim && name !== dim && ownName(name, dim) === "layer");
  const layers = told ? told[1].values : values.map((v) => headOf(v)?.layer ?? null);
  const groups: Group[] = [];
  layers.forEach((layer, i) => {
    const last = groups.at(-1);
    if (last?.label === String(layer)) last.to = i;
    else groups.push({ label: String(layer), from: i, to: i });
  });
  const ordered = new Set(groups.map((g) => g.label)).size === groups.length && layers.every((l) => l !== null);
  return ordered && groups.length > 1 && groups.length < values.length ? groups : [];
}

export function gridShape(width: number, rows: number, columns: number, looks?: Partial<Looks>): GridShape {
  const longest = (labels: string[] = []) => Math.min(16, labels.reduce((most, l) => Math.max(most, [...l].length), 1)) * LETTER;
  const left = Math.max(34, Math.ceil(longest(looks?.rowLabels)) + 24);
  const top = 2;
  const room = Math.max(20, width - left - 2);
  const fitting = Math.min(looks?.square ? 44 : 96, room / columns);
  const whole = (size: number) => (size >= 2 ? Math.floor(size) : size);
  const worded = looks?.worded && columns <= WORDS;
  const widest = worded ? Math.max(WORD, Math.floor(Math.min(96, room / columns))) : whole(fitting);
  const tallest = worded ? 22 : looks?.square ? (rows === columns ? widest : Math.max(widest, NARROW)) : Math.max(5, Math.min(46, Math.round(widest * 0.8)));
  const most = looks?.square && rows === columns ? 660 : 560;
  const line = Math.min(tallest, whole(most / rows));
  // what is as long as it is wide looks like it
  const cell = most === 660 && !worded ? line : widest;
  const least = Math.min(cell, line);
  const gap = least >= 16 ? 2 : least >= 8 ? 1 : 0;
  const steep = !(looks?.grouped && cell < NARROW) && longest(looks?.columnLabels) + 6 > Math.max(cell, 20) && longest(looks?.columnLabels) > 3 * LETTER;
  // what the columns are called may be longer than they are
  const [middle, half] = [left + (columns * cell) / 2, ((looks?.columns?.length ?? 0) * LETTER) / 2 + 2];
  const named = Math.min(width, Math.max(middle, half) + half);
  const bottom = steep ? Math.ceil(longest(looks?.columnLabels)) + 34 : 34;
  return {
    left, top, cell, line, gap, rows, columns, steep, upward: looks?.upward ?? true,
    width: Math.ceil(Math.max(left + columns * cell + 2, named)), height: Math.ceil(top + rows * line + bottom),
  };
}

/** [row, column] under a pixel. */
export function cellAt(shape: GridShape, x: number, y: number): [number, number] | null {
  const column = Math.floor((x - shape.left) / shape.cell);
  const line = Math.floor((y - shape.top) / shape.line);
  const row = shape.upward ? shape.rows - 1 - line : line;
  return column >= 0 && column < shape.columns && row >= 0 && row < shape.rows ? [row, column] : null;
}

/**
 * The range is that of the whole variable, so that colours stay comparable while the checkpoint moves. Where samples are
 * pooled it is that of the pooled values: single samples reach much further. Of one test sample it is that of this one.
 */
export function rangeOf(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, reduce?: Reduce): [number, number] {
  if (variable.bounds) return within(variable.bounds, extentOf(variable));
  if (variable.dims.some((d) => !axes.includes(d) && alone(d, cube.dims))) return rangeHere(cube, variable, axes, cursor, reduce);
  const reduced = pooledDims(cube, variable, axes, cursor);
  if (!reduced.length) return extentOf(variable);
  const kept = variable.dims.filter((d) => !reduced.includes(d));
  return extent(slice(cube, variable, kept, cursor, reduce).values);
}

/**
 * The range of what is seen at this place, at all times: for where one place (a test sample, one of its tokens) has values that
 * are orders of magnitude from those of another.
 */
export function rangeHere(cube: Cube, variable: Variable, axes: string[], cursor: Cursor, reduce?: Reduce): [number, number] {
  return extent(slice(cube, variable, variable.dims.filter((d) => axes.includes(d) || TIME.has(d)), cursor, reduce).values);
}

/** What is bounded gets its bounds, or half of them: small values must look small, wherever they come from. */
function within([low, high]: [number, number], [least, most]: [number, number]): [number, number] {
  const half = most <= high / 2 && least >= low / 2;
  return half ? [low / 2, high / 2] : [low, high];
}

/** The largest, or of signed values the furthest from 0, where several rows or columns lie in one line of pixels. */
export function thinned(values: Float64Array, [rows, columns]: [number, number], [lines, across]: [number, number], signed: boolean): Float64Array {
  const out = new Float64Array(lines * across).fill(NaN);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++) {
      const v = values[r * columns + k];
      const at = Math.floor((r * lines) / rows) * across + Math.floor((k * across) / columns);
      const known = out[at];
      if (Number.isNaN(known) || (signed ? Math.abs(v) > Math.abs(known) : v > known)) out[at] = v;
    }
  }
  return out;
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
