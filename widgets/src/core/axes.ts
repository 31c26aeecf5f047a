// Axes with ticks and units around a plot.
import { type Scale, ticks, tickStep, tickText } from "./scale";
import type { Theme } from "./theme";

type Context = CanvasRenderingContext2D;

export interface Frame {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Axis {
  scale: Scale;
  ticks: [number, string][];
  label: string;
}

/** Ticks at round values that lie within a domain. */
export function roundTicks([low, high]: [number, number], count: number): [number, string][] {
  const step = tickStep(low, high, count);
  return ticks(low, high, count).map((t) => [t, tickText(t, step)]);
}

/** Whole decades around values above 0, counted down from the largest: what is smaller still lies below them. */
export function decades([low, high]: [number, number], most = 12): [number, number] {
  const last = Math.ceil(Math.log10(high) + 1e-9);
  return [10 ** Math.max(last - most, Math.min(last - 1, Math.floor(Math.log10(low)))), 10 ** last];
}

/** Ticks at powers of ten, with 2 and 5 between them where there are few. */
export function powerTicks([low, high]: [number, number]): [number, string][] {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.max(1, Math.ceil((last - first) / 6));
  const found: [number, string][] = [];
  for (let power = first; power <= last; power += every) {
    for (const digit of last - first > 2 ? [1] : [1, 2, 5]) {
      const value = Number(`${digit}e${power}`);
      const text = power >= -3 && power <= 4 ? String(value) : `${digit}e${power}`.replace("-", "−");
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) found.push([value, text]);
    }
  }
  return found;
}

/** A domain with some air, that starts at 0 where the values come near it. */
export function airy([low, high]: [number, number], air = 0.05): [number, number] {
  if (low === high) return low === 0 ? [-0.5, 0.5] : low > 0 ? [0, 2 * low] : [2 * low, 0];
  const floor = low >= 0 && low < 0.6 * high ? 0 : low;
  const roof = high <= 0 && high > 0.6 * low ? 0 : high;
  const room = (roof - floor) * air;
  return [floor === 0 ? 0 : floor - room, roof === 0 ? 0 : roof + room];
}

export function upright(c: Context, theme: Theme, { left, top, right, bottom }: Frame, axis: Axis): void {
  c.font = `11px ${theme.font}`;
  c.textBaseline = "middle";
  c.textAlign = "right";
  c.lineWidth = 1;
  for (const [t, text] of axis.ticks) {
    const y = Math.round(axis.scale(t)) + 0.5;
    line(c, theme, left, y, right, y, t === 0);
    c.fillStyle = theme.ink;
    c.fillText(text, left - 8, y);
  }
  c.fillStyle = theme.quiet;
  c.textAlign = "center";
  c.save();
  c.translate(8, (top + bottom) / 2);
  c.rotate(-Math.PI / 2);
  c.fillText(clipped(c, axis.label, bottom - top + 16), 0, 0);
  c.restore();
}

export function level(c: Context, theme: Theme, { left, top, right, bottom }: Frame, axis: Axis, grid = true): void {
  c.font = `11px ${theme.font}`;
  c.textBaseline = "middle";
  c.textAlign = "center";
  c.lineWidth = 1;
  let free = -Infinity;
  for (const [t, text] of axis.ticks) {
    const x = Math.round(axis.scale(t)) + 0.5;
    if (grid) line(c, theme, x, top, x, bottom, t === 0);
    const half = c.measureText(text).width / 2;
    if (x - half < free + 6) continue;
    free = x + half;
    c.fillStyle = theme.ink;
    c.fillText(text, x, bottom + 12);
  }
  c.fillStyle = theme.quiet;
  c.fillText(clipped(c, axis.label, right - left + 40), (left + right) / 2, bottom + 28);
}

function line(c: Context, theme: Theme, x0: number, y0: number, x1: number, y1: number, strong: boolean): void {
  c.strokeStyle = theme.quiet;
  c.globalAlpha = strong ? 0.7 : 0.18;
  c.beginPath();
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.stroke();
  c.globalAlpha = 1;
}

/** A text cut to a width: at its end, and a path such as that of a module at its beginning, which many share. */
export function clipped(c: Context, text: string, width: number): string {
  const path = /^[\w*]+(\.[\w*]+)+$/.test(text);
  const part = (length: number): string => (path ? `…${text.slice(text.length - length)}` : `${text.slice(0, length)}…`);
  if (c.measureText(text).width <= width) return text;
  let [kept, cut] = [0, text.length];
  while (cut - kept > 1) {
    const middle = (kept + cut) >> 1;
    if (c.measureText(part(middle)).width <= width) kept = middle;
    else cut = middle;
  }
  return part(kept);
}
