// The picture of a Timeline: axes, quiet lines, chosen lines with their bands and names, and the scrubber.
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { clipped } from "../core/axes";
import { band, type Point, segment, stroke } from "../core/canvas";
import { type Scale, type TimeScale, valueText } from "../core/scale";
import type { Theme } from "../core/theme";
import type { Value } from "../core/types";
import { axisTicks, type Line, spread } from "./lines";

const LEFT = 58;
const DIGIT = 7;
export const RIGHT = 92;
export const TOP = 26;
export const BOTTOM = 40;
export const HEIGHT = 250;

/** More selected lines than this stay quiet: their colours could not be told apart. */
export const MOST = 6;

/** How lines of several variables are told apart besides by their colour. */
export const DASHES: { look: "solid" | "long" | "short" | "mixed"; dash: number[] }[] = [
  { look: "solid", dash: [] }, { look: "long", dash: [8, 4] }, { look: "short", dash: [2, 3] }, { look: "mixed", dash: [10, 3, 2, 3] },
];

/** So many lines are named while none is selected. */
const FEW = 3;

export interface Plot {
  theme: Theme;
  width: number;
  left: number;
  steps: Value[];
  time: TimeScale;
  value: Scale;
  lines: Line[];
  selected: Line[];
  hovered: Line[];
  /** All lines are shown by their colour and dashes, as lines of a variable each, which the legend names. */
  joined: boolean;
  /** Index of the place that everyone is looking at; null where there is none. */
  here: number | null;
  ticks: [number, string][];
  label: string;
  upright: string;
  name(line: Line): string;
}

/** Where the picture begins: the numbers beside it, and what they are, have room. */
export const leftOf = (ticks: [number, string][]): number => Math.max(LEFT, 20 + DIGIT * ticks.reduce((most, [, text]) => Math.max(most, text.length), 0));

/** Where the names of the lines begin. */
export const rightOf = (joined: boolean): number => (joined ? 20 : RIGHT);

/** Of four lines in one picture the last has no colour that is like the first. */
export function coloursOf(dark: boolean, joined: boolean): string[] {
  const [blue, orange, violet, sky, ochre, slate] = dark ? LINES_DARK : LINES_LIGHT;
  return joined ? [blue, orange, violet, slate, ochre, sky] : [blue, orange, violet, sky, ochre, slate];
}

interface Shown {
  line: Line;
  colour: string;
  chosen: boolean;
  dash?: number[];
}

type Context = CanvasRenderingContext2D;

export function plot(c: Context, p: Plot): void {
  const colours = coloursOf(p.theme.dark, p.joined);
  const shown: Shown[] = [
    ...p.hovered.map((line) => ({ line, colour: p.theme.ink, chosen: false })),
    ...p.selected.slice(0, MOST).map((line, i) => ({ line, colour: colours[i], chosen: true, ...(p.joined && DASHES[i % DASHES.length]) })),
  ];
  c.textBaseline = "middle";
  axes(c, p);
  c.save();
  c.beginPath();
  c.rect(p.left, 0, p.width - p.left, HEIGHT - BOTTOM + 3);
  c.clip();
  quiet(c, p, shown);
  for (const s of shown) loud(c, p, s);
  c.restore();
  scrubber(c, p, shown);
  if (!p.joined) names(c, p, shown);
}

function axes(c: Context, { theme, width, left, steps, time, value, ticks, label, upright, joined }: Plot): void {
  const bottom = HEIGHT - BOTTOM;
  const right = width - rightOf(joined);
  c.font = `11px ${theme.font}`;
  c.lineWidth = 1;
  c.textAlign = "right";
  for (const [t, text] of ticks) {
    const y = Math.round(value(t)) + 0.5;
    c.strokeStyle = theme.quiet;
    c.globalAlpha = t === 0 ? 0.7 : 0.18;
    segment(c, left, y, right, y);
    c.globalAlpha = 1;
    c.fillStyle = theme.ink;
    c.fillText(text, left - 8, y);
  }
  c.textAlign = "center";
  c.strokeStyle = theme.quiet;
  let free = -Infinity;
  for (const [px, text] of axisTicks(steps, time)) {
    const x = Math.round(px) + 0.5;
    segment(c, x, bottom + 1, x, bottom + 5);
    const half = c.measureText(text).width / 2;
    if (px - half < free + 6) continue;
    free = px + half;
    c.fillText(text, px, bottom + 13);
  }
  c.fillStyle = theme.quiet;
  c.fillText(label, (left + right) / 2, bottom + 30);
  c.save();
  c.translate(8, (TOP + bottom) / 2);
  c.rotate(-Math.PI / 2);
  c.fillText(clipped(c, upright, bottom - TOP + 46), 0, 0);
  c.restore();
}

function quiet(c: Context, p: Plot, shown: Shown[]): void {
  c.lineJoin = "round";
  c.strokeStyle = p.theme.quiet;
  c.lineWidth = 1;
  c.globalAlpha = shown.length ? 0.4 : 0.7;
  for (const line of p.lines) {
    if (shown.some((s) => s.line === line)) continue;
    stroke(c, places(p, line.values));
  }
  c.globalAlpha = 1;
}

function loud(c: Context, p: Plot, { line, colour, chosen, dash = [] }: Shown): void {
  if (chosen && line.low && line.high) {
    c.globalAlpha = 0.16;
    c.fillStyle = colour;
    band(c, places(p, line.low, true), places(p, line.high, true));
    c.globalAlpha = 1;
  }
  c.strokeStyle = colour;
  c.lineWidth = chosen ? 2.2 : 1.6;
  c.setLineDash(dash);
  const points = places(p, line.values);
  stroke(c, points);
  c.setLineDash([]);
  // what was computed is where the dots are, as long as they can be told apart
  if (!p.joined || p.width / points.length < 12) return;
  c.fillStyle = colour;
  for (const [px, py] of points) {
    c.beginPath();
    if (Number.isFinite(py)) c.arc(px, py, 2.4, 0, 7);
    c.fill();
  }
}

function scrubber(c: Context, { theme, width, steps, time, value, here }: Plot, shown: Shown[]): void {
  if (here === null) return;
  const x = Math.round(time.at(here)) + 0.5;
  c.strokeStyle = theme.ink;
  c.lineWidth = 1;
  segment(c, x, TOP - 4, x, HEIGHT - BOTTOM);
  for (const { line, colour, chosen } of shown) {
    if (!Number.isFinite(value(line.values[here]))) continue;
    c.beginPath();
    c.arc(x, value(line.values[here]), chosen ? 3.6 : 2.6, 0, 7);
    c.fillStyle = colour;
    c.fill();
    c.strokeStyle = theme.paper;
    c.lineWidth = 1.2;
    c.stroke();
  }
  c.font = `600 11px ${theme.font}`;
  const text = valueText(steps[here]);
  const half = c.measureText(text).width / 2 + 7;
  const middle = Math.max(half, Math.min(width - half, x));
  c.fillStyle = theme.ink;
  c.beginPath();
  c.roundRect(middle - half, 3, half * 2, 18, 9);
  c.fill();
  c.fillStyle = theme.paper;
  c.textAlign = "center";
  c.fillText(text, middle, 12.5);
}

/** The chosen lines by name at their right end; while none is, the few that end furthest from the others. */
function names(c: Context, p: Plot, shown: Shown[]): void {
  const end = (line: Line) => p.value(line.values.at(-1)!);
  const middle = median(p.lines.map(end));
  const far = [...p.lines].filter((l) => l.place.length && !Number.isNaN(end(l))).sort((a, b) => Math.abs(end(b) - middle) - Math.abs(end(a) - middle));
  const named = shown.length ? shown : far.slice(0, FEW).map((line) => ({ line, colour: p.theme.quiet, chosen: false }));
  const ends = named.filter(({ line }) => !Number.isNaN(line.values.at(-1)!));
  const placed = spread(ends.map(({ line }) => end(line)), 13, TOP, HEIGHT - BOTTOM);
  c.textAlign = "left";
  ends.forEach(({ line, colour, chosen }, i) => {
    c.fillStyle = colour;
    c.font = `${chosen ? 600 : 400} 11px ${p.theme.font}`;
    c.fillText(clipped(c, p.name(line), RIGHT - 6), p.width - RIGHT + 4, placed[i] + 0.5);
  });
}

function median(values: number[]): number {
  const sorted = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

/** Values as points; those that a logarithmic axis cannot hold have no place, the end of an interval is at its foot. */
function places({ time, value }: Plot, values: ArrayLike<number>, foot = false): Point[] {
  return Array.from(values, (v, i) => [time.at(i), foot && v <= 0 && Number.isNaN(value(v)) ? HEIGHT - BOTTOM : value(v)]);
}
