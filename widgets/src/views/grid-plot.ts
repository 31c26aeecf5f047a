// The picture of a grid: cells with what qualifies them, labels, and the outlines of what is selected.
import { clipped } from "../core/axes";
import { type Box, hatch, paint, segment } from "../core/canvas";
import { type ColourScale, css, inkOn, pixels } from "../core/colour";
import { shortened } from "../core/dom";
import type { Reading, Status } from "../core/measure";
import { cellText } from "../core/scale";
import type { Theme } from "../core/theme";
import { type GridShape, type Group, LETTER, NARROW, runs, thinned } from "./grid";

type Context = CanvasRenderingContext2D;

/** Cells smaller than this are painted as one image, and bear no hatching, and dots for rings. */
export const SMALL = 8;

export interface GridPlot {
  shape: GridShape;
  reading: Reading;
  scale: ColourScale;
  theme: Theme;
  rowLabels: string[];
  columnLabels: string[];
  /** What the axes are called. */
  rows: string;
  columns: string;
  rings: ArrayLike<number>[];
  /** Rows and columns that belong together. */
  groups: [Group[], Group[]];
  /** What stands in the cells in the place of their values. */
  texts?: string[] | null;
  /** How much of its width is in sight. */
  room: number;
}

const boxAt = (s: GridShape, row: number, column: number): Box => ({
  x: s.left + column * s.cell, y: s.top + (s.upward ? s.rows - 1 - row : row) * s.line, w: s.cell - s.gap, h: s.line - s.gap,
});

export function gridPlot(c: Context, p: GridPlot): void {
  labels(c, p);
  if (Math.min(p.shape.cell, p.shape.line) < SMALL) image(c, p);
  else cells(c, p);
  borders(c, p);
}

/** Thin lines between what belongs together. */
function borders(c: Context, { shape, theme, groups: [rows, columns] }: GridPlot): void {
  const [right, bottom] = [shape.left + shape.columns * shape.cell - shape.gap, shape.top + shape.rows * shape.line - shape.gap];
  c.strokeStyle = shape.gap ? theme.quiet : theme.paper;
  c.lineWidth = 1;
  for (const { from } of rows.slice(1)) {
    const y = Math.round(shape.top + (shape.upward ? shape.rows - from : from) * shape.line - shape.gap / 2 - 0.5) + 0.5;
    segment(c, shape.left, y, right, y);
  }
  for (const { from } of columns.slice(1)) {
    const x = Math.round(shape.left + from * shape.cell - shape.gap / 2 - 0.5) + 0.5;
    segment(c, x, shape.top, x, bottom);
  }
}

const painted = new WeakMap<Float64Array, { key: string; pixels: Uint32Array }>();

function image(c: Context, { shape, reading, scale, theme, rings }: GridPlot): void {
  const { left, top, cell, line, rows, columns, upward } = shape;
  const box = { x: left, y: top, w: columns * cell, h: rows * line };
  c.fillStyle = theme.rule;
  c.fillRect(box.x, box.y, box.w, box.h);
  hatch(c, box, theme.quiet);
  const few: [number, number] = [Math.min(rows, Math.round(box.h)), Math.min(columns, Math.round(box.w))];
  const key = JSON.stringify([scale.domain, scale.signed, theme.dark, upward, few]);
  let known = painted.get(reading.values);
  if (known?.key !== key) {
    let values = reading.values;
    if (upward) {
      values = new Float64Array(values.length);
      for (let r = 0; r < rows; r++) values.set(reading.values.subarray(r * columns, (r + 1) * columns), (rows - 1 - r) * columns);
    }
    if (few[0] < rows || few[1] < columns) values = thinned(values, [rows, columns], few, scale.signed);
    known = { key, pixels: pixels(values, scale) };
    painted.set(reading.values, known);
  }
  paint(c, known.pixels, few[1], box);
  // no room for a ring: a dot
  const size = Math.max(1, Math.min(3, Math.floor(Math.min(cell, line) / 2)));
  for (let i = 0; i < rows * columns; i++) {
    const rgb = rings.some((r) => r[i]) ? scale.rgb(reading.values[i]) : null;
    if (!rgb) continue;
    const b = boxAt(shape, Math.floor(i / columns), i % columns);
    c.fillStyle = inkOn(rgb);
    c.fillRect(Math.round(b.x + (b.w - size) / 2), Math.round(b.y + (b.h - size) / 2), size, size);
  }
}

function cells(c: Context, { shape, reading, scale, theme, rings, texts, columnLabels }: GridPlot): void {
  const { values } = reading;
  const largest = Math.max(Math.abs(scale.domain[0]), Math.abs(scale.domain[1]));
  const written = shape.cell >= 20 && shape.line >= 16;
  c.textAlign = "center";
  c.textBaseline = "middle";
  c.font = texts ? `11px ${theme.mono}` : `11px ${theme.font}`;
  for (let row = 0; row < shape.rows; row++) {
    for (let column = 0; column < shape.columns; column++) {
      // padding at the end of a row is not shown
      const i = row * columnLabels.length + column;
      const b = boxAt(shape, row, column);
      const rgb = scale.rgb(values[i]);
      if (!rgb) {
        missing(c, b, theme);
        continue;
      }
      const status: Status = reading.status(i);
      const ink = inkOn(rgb);
      c.fillStyle = css(rgb);
      c.fillRect(b.x, b.y, b.w, b.h);
      if (status !== "plain") hatch(c, b, ink === "#ffffff" ? "rgb(255 255 255 / 0.34)" : "rgb(0 0 0 / 0.24)");
      c.fillStyle = ink;
      c.strokeStyle = ink;
      if (texts) c.fillText(shortened(texts[i], Math.max(1, Math.floor((b.w - 4) / 6.7))), b.x + b.w / 2, b.y + b.h / 2 + 0.5);
      else if (written) c.fillText(words(c, reading, i, largest, b.w), b.x + b.w / 2, b.y + b.h / 2 + 0.5);
      if (rings.some((r) => r[i])) {
        const radius = Math.min(3.2, shape.cell / 5, shape.line / 5);
        c.lineWidth = 1.4;
        c.beginPath();
        // clear of the outline of a chosen cell
        const inset = Math.min(6, shape.cell / 8, shape.line / 8) + radius;
        c.arc(b.x + b.w - inset, b.y + inset, radius, 0, 7);
        c.stroke();
      }
    }
  }
}

/** No value: one line from corner to corner, where others are hatched. */
export function missing(c: Context, b: Box, theme: Theme): void {
  c.globalAlpha = 0.5;
  c.fillStyle = theme.rule;
  c.fillRect(b.x, b.y, b.w, b.h);
  c.strokeStyle = theme.quiet;
  c.lineWidth = 1;
  c.beginPath();
  c.moveTo(b.x, b.y + b.h);
  c.lineTo(b.x + b.w, b.y);
  c.stroke();
  c.globalAlpha = 1;
}

/** The value with half its interval, the value alone, without its leading zero, or nothing: what there is room for. */
export function words(c: Pick<Context, "measureText">, { values, low, high }: Reading, i: number, largest: number, width: number): string {
  const text = cellText(values[i], largest);
  const half = low && high ? (high[i] - low[i]) / 2 : NaN;
  const fits = (t: string) => t.length * 7 + 6 <= width || c.measureText(t).width + 6 <= width;
  if (Number.isFinite(half)) {
    const whole = `${text} ±${cellText(half, largest).replace(/^0/, "")}`;
    if (fits(whole)) return whole;
  }
  // a cell that stays empty looks like one that has no value
  return [text, text.replace(/^(−?)0\./, "$1.")].find(fits) ?? "";
}

/** Which labels there is room for: all, or one for each group, or every few of either. */
export function shownLabels(labels: string[], groups: Group[], size: number, least: number): { text: string; at: number }[] {
  const crowded = groups.length > 0 && size < least;
  const all = crowded ? groups.map((g) => ({ text: g.label, at: (g.from + g.to) / 2 })) : labels.map((text, at) => ({ text, at }));
  let free = -Infinity;
  return all.filter(({ at }) => {
    if ((at - free) * size < least) return false;
    free = at;
    return true;
  });
}

function labels(c: Context, { shape, theme, rowLabels, columnLabels, rows, columns, groups, room: seen }: GridPlot): void {
  c.font = `11px ${theme.font}`;
  c.fillStyle = theme.ink;
  c.textBaseline = "middle";
  c.textAlign = "right";
  for (const { text, at } of shownLabels(rowLabels, groups[0], shape.line, NARROW)) {
    const b = boxAt(shape, at, 0);
    c.fillText(clipped(c, text, shape.left - 17), shape.left - 6, Math.max(6, b.y + b.h / 2 + 0.5));
  }
  const bottom = shape.top + shape.rows * shape.line;
  const room = shape.height - bottom - 24;
  const most = columnLabels.reduce((w, l) => Math.max(w, l.length), 1);
  const short = groups[1].length > 0 && shape.cell < NARROW;
  const { steep } = shape;
  const least = short ? NARROW : steep ? 13 : Math.max(14, Math.min(16, most) * LETTER + 6);
  for (const { text, at } of shownLabels(columnLabels.slice(0, shape.columns), groups[1], shape.cell, least)) {
    const b = boxAt(shape, 0, at);
    c.save();
    c.translate(b.x + b.w / 2, bottom + (steep ? 5 : 9));
    c.textAlign = steep ? "right" : "center";
    if (steep) c.rotate(-Math.PI / 2);
    c.fillText(clipped(c, text, steep ? room : 200), 0, 0);
    c.restore();
  }
  c.fillStyle = theme.quiet;
  c.textAlign = "center";
  const across = Math.min(seen, shape.width);
  const title = clipped(c, columns + (short ? ", by layer" : ""), across - 4);
  const half = c.measureText(title).width / 2 + 2;
  const middle = (shape.left + Math.min(seen, shape.left + shape.columns * shape.cell)) / 2;
  c.fillText(title, Math.max(half, Math.min(across - half, middle)), shape.height - 10);
  c.save();
  c.translate(7, shape.top + (shape.rows * shape.line) / 2);
  c.rotate(-Math.PI / 2);
  c.fillText(rows + (groups[0].length > 0 && shape.line < NARROW ? ", by layer" : ""), 0, 0);
  c.restore();
}

/** How an outline is drawn: a line inside, one around it, and whether it is dashed. */
export interface Pen {
  inner: string;
  outer: string;
  width: number;
  dashed?: boolean;
}

/** Outlines around what is selected (all of a dimension where nothing is selected along it), or around what is hovered. */
export function outlines(c: Context, shape: GridShape, rows: number[], columns: number[], { inner, outer, width, dashed }: Pen): void {
  for (const [r0, r1] of runs(rows)) {
    for (const [k0, k1] of runs(columns)) {
      const [a, b] = [boxAt(shape, r0, k0), boxAt(shape, r1, k1)];
      const top = Math.min(a.y, b.y);
      const box = { x: a.x, y: top, w: b.x + b.w - a.x, h: Math.max(a.y, b.y) + a.h - top };
      c.lineWidth = width;
      c.strokeStyle = outer;
      c.strokeRect(box.x + 1.5 * width - 1, box.y + 1.5 * width - 1, Math.max(0, box.w - 3 * width + 2), Math.max(0, box.h - 3 * width + 2));
      c.strokeStyle = inner;
      if (dashed) c.setLineDash([4, 3]);
      c.strokeRect(box.x + width / 2 - 1, box.y + width / 2 - 1, box.w - width + 2, box.h - width + 2);
      c.setLineDash([]);
    }
  }
}
