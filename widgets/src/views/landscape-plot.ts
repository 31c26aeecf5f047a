// The picture of a Landscape: the surface with its contour lines, and a slice along each direction at its sides.
import { type Frame, level, roundTicks, upright } from "../core/axes";
import { band, type Box, hatch, type Point, segment, stroke } from "../core/canvas";
import { type ColourScale, css, inkOn, LINES_DARK, LINES_LIGHT } from "../core/colour";
import type { Reading } from "../core/measure";
import { linear, type Scale } from "../core/scale";
import type { Theme } from "../core/theme";
import { missing } from "./grid-plot";
import { contour, edges, type Piece, type Relief } from "./relief";

type Context = CanvasRenderingContext2D;
type Cell = [row: number, column: number];

/** Where the surface and its slices are; a line has one slice and no surface. */
export interface Layout {
  map: Frame | null;
  below: Frame;
  beside: Frame | null;
  width: number;
  height: number;
}

const LEFT = 64;
const FOOT = 38;
const GAP = 12;

export function layout(width: number, surface: boolean): Layout {
  if (!surface) return { map: null, below: { left: LEFT, top: 8, right: width - 12, bottom: 210 }, beside: null, width, height: 210 + FOOT };
  const side = Math.max(70, Math.min(150, 0.24 * width));
  const room = Math.max(80, Math.min(400, width - LEFT - GAP - side - 12));
  const map: Frame = { left: LEFT, top: 4, right: LEFT + room, bottom: 4 + room };
  const below: Frame = { ...map, top: map.bottom + GAP, bottom: map.bottom + GAP + 110 };
  return { map, below, beside: { ...map, left: map.right + GAP, right: map.right + GAP + side }, width, height: below.bottom + FOOT };
}

/** Reach and ticks, as places on the relief. */
export interface SliceAxis {
  span: [number, number];
  ticks: [number, string][];
}

export interface Landscape {
  theme: Theme;
  layout: Layout;
  reading: Reading;
  relief: Relief;
  colours: ColourScale;
  /** Coordinates along the rows and the columns, and what they are called. */
  rows: number[];
  columns: number[];
  names: [string, string, string];
  /** The axes of the values, of the slice below and of that beside. */
  slices: [SliceAxis, SliceAxis];
  /** Where the slices go. */
  here: Cell;
  picked: Cell[];
  hovered: Cell | null;
  least: Cell | null;
}

/** Pixels along one direction, by coordinate: whole cells within the frame. */
export function along(at: number[], low: number, high: number): Scale {
  const ends = edges(at);
  return linear([ends[0], ends.at(-1)!], [low, high]);
}

export function landscapePlot(c: Context, p: Landscape): void {
  const { map, below, beside } = p.layout;
  const x = along(p.columns, below.left, below.right);
  const y = map ? along(p.rows, map.bottom, map.top) : null;
  const n = p.columns.length;
  const [lying, standing] = p.slices;
  const value = linear(lying.span, [below.bottom, below.top]);
  upright(c, p.theme, below, { scale: value, ticks: lying.ticks, label: p.names[2] });
  level(c, p.theme, below, { scale: x, ticks: inside(p.columns, below.right - below.left), label: p.names[1] });
  const row = [...p.columns.keys()].map((k) => p.here[0] * n + k);
  slice(c, p, row.map((i, k) => [i, x(p.columns[k])]), value, below, false, x(p.columns[p.here[1]]));
  if (!map || !beside || !y) return;
  const turned = linear(standing.span, [beside.left, beside.right]);
  level(c, p.theme, beside, { scale: turned, ticks: standing.ticks.filter((_, i) => standing.ticks.length < 5 || i % 2 === 0), label: "" });
  slice(c, p, p.rows.map((v, r) => [r * n + p.here[1], y(v)]), turned, beside, true, y(p.rows[p.here[0]]));
  upright(c, p.theme, map, { scale: y, ticks: inside(p.rows, map.bottom - map.top), label: p.names[0] });
  surface(c, p, x, y);
}

const inside = (at: number[], size: number): [number, string][] => {
  const ends = edges(at);
  return roundTicks([ends[0], ends.at(-1)!], Math.max(2, Math.min(6, size / 56)));
};

function surface(c: Context, p: Landscape, x: Scale, y: Scale): void {
  const { reading, relief, colours, theme } = p;
  const [xs, ys] = [edges(p.columns).map((v) => Math.round(x(v))), edges(p.rows).map((v) => Math.round(y(v)))];
  const box = ([r, k]: Cell): Box => ({ x: xs[k], y: ys[r + 1], w: xs[k + 1] - xs[k], h: ys[r] - ys[r + 1] });
  const cellOf = (i: number): Cell => [Math.floor(i / p.columns.length), i % p.columns.length];
  reading.values.forEach((v, i) => {
    const b = box(cellOf(i));
    const rgb = colours.rgb(relief.of(v));
    if (!rgb) return missing(c, b, theme);
    c.fillStyle = css(rgb);
    c.fillRect(b.x, b.y, b.w, b.h);
    if (reading.status(i) !== "plain") hatch(c, b, inkOn(rgb) === "#ffffff" ? "rgb(255 255 255 / 0.34)" : "rgb(0 0 0 / 0.24)");
  });
  contours(c, p, x, y);
  if (p.hovered) outline(c, box(p.hovered), theme.ink, "transparent", 1);
  for (const cell of p.picked) outline(c, box(cell), theme.ink, theme.paper, 2);
  if (p.least) {
    const { x: left, y: top, w, h } = box(p.least);
    marked(c, theme, () => c.arc(left + w / 2, top + h / 2, 6, 0, 7));
  }
  const [cx, cy] = [x(0), y(0)];
  if (cx > xs[0] && cx < xs.at(-1)! && cy < ys[0] && cy > ys.at(-1)!) {
    marked(c, theme, () => {
      c.moveTo(cx - 5, cy);
      c.lineTo(cx + 5, cy);
      c.moveTo(cx, cy - 5);
      c.lineTo(cx, cy + 5);
    });
  }
}

/** Lines between the points of the grid, each named where it crosses the way up and to the right from the centre. */
function contours(c: Context, p: Landscape, x: Scale, y: Scale): void {
  const at = (places: number[], i: number) => places[Math.floor(i)] + (i % 1) * ((places[Math.ceil(i)] ?? 0) - places[Math.floor(i)]);
  const { map } = p.layout;
  const named: { text: string; at: Point; ink: string; paper: string }[] = [];
  const taken: Point[] = [[x(0), y(0)], ...(p.least ? [[x(p.columns[p.least[1]]), y(p.rows[p.least[0]])] as Point] : [])];
  c.lineWidth = 1;
  c.font = `10px ${p.theme.font}`;
  for (const [v, text] of p.relief.levels) {
    const rgb = p.colours.rgb(p.relief.of(v));
    const pieces = contour(p.reading.values, p.columns.length, v);
    if (!rgb || !pieces.length) continue;
    c.strokeStyle = inkOn(rgb);
    c.globalAlpha = 0.65;
    c.beginPath();
    const ends = pieces.map(([x0, y0, x1, y1]): Piece => [x(at(p.columns, x0)), y(at(p.rows, y0)), x(at(p.columns, x1)), y(at(p.rows, y1))]);
    for (const [x0, y0, x1, y1] of ends) {
      c.moveTo(x0, y0);
      c.lineTo(x1, y1);
    }
    c.stroke();
    c.globalAlpha = 1;
    const middles = ends.map(([x0, y0, x1, y1]): Point => [(x0 + x1) / 2, (y0 + y1) / 2]);
    const half = c.measureText(text).width / 2 + 3;
    const free = ([px, py]: Point) => map && px - half > map.left && px + half < map.right && py > map.top + 8 && py < map.bottom - 8
      && taken.every(([ox, oy]) => Math.hypot(px - ox, 2 * (py - oy)) > 2 * half + 6);
    const off = ([px, py]: Point) => Math.abs(Math.atan2(y(0) - py, px - x(0)) - Math.PI / 4);
    const best = middles.filter(free).sort((a, b) => off(a) - off(b))[0];
    if (!best) continue;
    named.push({ text, at: best, ink: inkOn(rgb), paper: css(rgb) });
    taken.push(best);
  }
  c.textAlign = "center";
  c.textBaseline = "middle";
  for (const { text, at: [px, py], ink, paper } of named) {
    const half = c.measureText(text).width / 2 + 3;
    c.fillStyle = paper;
    c.beginPath();
    c.roundRect(px - half, py - 7, 2 * half, 14, 4);
    c.fill();
    c.fillStyle = ink;
    c.fillText(text, px, py + 0.5);
  }
}

/** A mark that is seen on every colour. */
function marked(c: Context, theme: Theme, path: () => void): void {
  for (const [colour, width] of [[theme.paper, 4.5], [theme.ink, 1.8]] as [string, number][]) {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    path();
    c.stroke();
  }
}

function outline(c: Context, { x, y, w, h }: Box, inner: string, outer: string, width: number): void {
  c.lineWidth = width;
  c.strokeStyle = outer;
  c.strokeRect(x - 1.5 * width + 1, y - 1.5 * width + 1, w + 3 * width - 2, h + 3 * width - 2);
  c.strokeStyle = inner;
  c.strokeRect(x - width / 2 + 1, y - width / 2 + 1, w + width - 2, h + width - 2);
}

/** The values at some indices, each at its pixel along the slice, with their interval; `turned` has the values to the right. */
function slice(c: Context, p: Landscape, at: [index: number, pixel: number][], value: Scale, { left, top, right, bottom }: Frame, turned: boolean, here: number): void {
  const { reading, relief, theme } = p;
  const put = (a: number, v: number): Point => (turned ? [value(relief.of(v)), a] : [a, value(relief.of(v))]);
  const points = at.map(([i, px]) => put(px, reading.values[i]));
  const colour = (theme.dark ? LINES_DARK : LINES_LIGHT)[0];
  c.strokeStyle = theme.ink;
  c.lineWidth = 1;
  c.globalAlpha = 0.6;
  if (turned) segment(c, left, Math.round(here) + 0.5, right, Math.round(here) + 0.5);
  else segment(c, Math.round(here) + 0.5, top, Math.round(here) + 0.5, bottom);
  c.globalAlpha = 1;
  c.save();
  c.beginPath();
  c.rect(left - 4, top - 4, right - left + 8, bottom - top + 8);
  c.clip();
  c.fillStyle = c.strokeStyle = colour;
  const { low, high } = reading;
  c.globalAlpha = 0.25;
  if (low && high) band(c, at.map(([i, px]) => put(px, low[i])), at.map(([i, px]) => put(px, high[i])));
  c.globalAlpha = 1;
  c.lineWidth = 1.8;
  stroke(c, points);
  // a lone point between two that were not computed has no line
  const radius = at.length > 1 && Math.abs(at[1][1] - at[0][1]) < 6 ? 1.2 : 2.4;
  c.lineWidth = 1.2;
  points.forEach(([px, py], k) => {
    if (!Number.isFinite(px + py)) return;
    c.fillStyle = reading.status(at[k][0]) === "plain" ? colour : theme.paper;
    c.beginPath();
    c.arc(px, py, radius, 0, 7);
    c.fill();
    c.stroke();
  });
  c.restore();
}
