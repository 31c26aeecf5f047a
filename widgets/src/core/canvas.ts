// Canvases at the resolution of the screen.
import { h, KEEP_KEYS } from "./dom";

export interface Sheet {
  element: HTMLCanvasElement;
  /** Size it in CSS pixels and clear it; null where there is no canvas (tests). */
  begin(width: number, height: number): CanvasRenderingContext2D | null;
}

export function sheet(label: string, role = "img"): Sheet {
  const element = h("canvas", { ...KEEP_KEYS, tabindex: 0, role, "aria-label": label });
  return {
    element,
    begin(width, height) {
      const ratio = window.devicePixelRatio || 1;
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (element.width !== w || element.height !== h) {
        element.width = w;
        element.height = h;
        element.style.width = `${width}px`;
        element.style.height = `${height}px`;
      }
      const context = element.getContext("2d");
      if (!context) return null;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      return context;
    },
  };
}

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** Diagonal lines over a box: "not to be read as a plain value". */
export function hatch(context: CanvasRenderingContext2D, { x, y, w, h }: Box, colour: string, gap = 5): void {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1.2;
  context.beginPath();
  for (let d = -h + ((x + y) % gap); d < w; d += gap) {
    context.moveTo(x + d, y + h);
    context.lineTo(x + d + h, y);
  }
  context.stroke();
  context.restore();
}

/** Paint values as an image, one pixel each, stretched without smoothing. */
export function paint(context: CanvasRenderingContext2D, image: Uint32Array, columns: number, box: Box): void {
  const rows = image.length / columns;
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const target = small.getContext("2d");
  if (!target) return;
  target.putImageData(new ImageData(new Uint8ClampedArray(image.buffer as ArrayBuffer), columns, rows), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, box.x, box.y, box.w, box.h);
}

export type Point = [number, number];

const placed = ([x, y]: Point): boolean => Number.isFinite(x) && Number.isFinite(y);

/** A line through points, broken where one has no place. */
export function stroke(context: CanvasRenderingContext2D, points: Point[]): void {
  context.beginPath();
  points.forEach((point, i) => {
    if (!placed(point)) return;
    if (i && placed(points[i - 1])) context.lineTo(...point);
    else context.moveTo(...point);
  });
  context.stroke();
}

/** Fill between two lines, run by run: there is nothing where one of them has no place. */
export function band(context: CanvasRenderingContext2D, lower: Point[], upper: Point[]): void {
  let from = 0;
  for (let i = 0; i <= lower.length; i++) {
    if (i < lower.length && placed(lower[i]) && placed(upper[i])) continue;
    context.beginPath();
    for (const point of [...lower.slice(from, i), ...upper.slice(from, i).reverse()]) context.lineTo(...point);
    context.fill();
    from = i + 1;
  }
}

export function segment(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  stroke(context, [[x0, y0], [x1, y1]]);
}
