// Bars, whiskers and dots along a value axis.
import { hatch } from "../core/canvas";
import type { Reading } from "../core/measure";
import type { Scale } from "../core/scale";
import type { Theme } from "../core/theme";

type Context = CanvasRenderingContext2D;

/** From 0 to the value; hatched where it may be nothing, only outlined where it is not converged, hatched grey where there is none. */
export function bar(c: Context, theme: Theme, scale: Scale, { y, thick }: { y: number; thick: number }, reading: Reading, i: number, colour: string, quiet: boolean): void {
  const status = reading.status(i);
  const zero = scale(0);
  if (status === "none") {
    hatch(c, { x: zero, y: y - thick / 2, w: 30, h: thick }, theme.quiet, 4);
    return;
  }
  const value = reading.values[i];
  const end = Number.isFinite(value) ? scale(value) : zero + Math.sign(value) * 1e4;
  const box = { x: Math.min(zero, end), y: y - thick / 2, w: Math.max(1, Math.abs(end - zero)), h: thick };
  c.save();
  c.globalAlpha = quiet ? 0.55 : 1;
  c.fillStyle = colour;
  c.strokeStyle = colour;
  c.lineWidth = 1.2;
  if (status === "unconverged") c.strokeRect(box.x + 0.6, box.y + 0.6, box.w - 1.2, box.h - 1.2);
  else if (status === "plain") c.fillRect(box.x, box.y, box.w, box.h);
  else {
    c.globalAlpha *= 0.35;
    c.fillRect(box.x, box.y, box.w, box.h);
    c.globalAlpha = 1;
    hatch(c, box, colour, 5);
  }
  c.restore();
}

/** An interval, visible on the bar and beside it. */
export function whisker(c: Context, theme: Theme, x0: number, x1: number, y: number, half: number): void {
  if (!Number.isFinite(x0) || !Number.isFinite(x1)) return;
  for (const [colour, width] of [[theme.paper, 3], [theme.ink, 1.2]] as const) {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    for (const x of [x0, x1]) {
      c.moveTo(x, y - half);
      c.lineTo(x, y + half);
    }
    c.moveTo(x0, y);
    c.lineTo(x1, y);
    c.stroke();
  }
}

/** A value to compare with. */
export function tick(c: Context, theme: Theme, x: number, y: number, half: number): void {
  if (!Number.isFinite(x)) return;
  for (const [colour, width] of [[theme.paper, 4], [theme.ink, 1.6]] as const) {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    c.moveTo(x, y - half);
    c.lineTo(x, y + half);
    c.stroke();
  }
}

export function dot(c: Context, theme: Theme, x: number, y: number, radius = 2): void {
  if (!Number.isFinite(x)) return;
  c.beginPath();
  c.arc(x, y, radius, 0, 7);
  c.fillStyle = theme.ink;
  c.strokeStyle = theme.paper;
  c.lineWidth = 0.8;
  c.fill();
  c.stroke();
}
