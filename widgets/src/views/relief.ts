// A surface over two directions: how high each value stands on the scale of its colours, and its contour lines.
import { powerTicks, roundTicks } from "../core/axes";
import { extent } from "../core/slice";

export interface Relief {
  /** Where a value stands on the scale. */
  of(value: number): number;
  domain: [number, number];
  /** Places on the scale with their words. */
  ticks: [number, string][];
  /** The values of the contour lines with their words. */
  levels: [number, string][];
}

/** Decades below the highest point that a logarithmic scale tells apart. */
const DECADES = 6;

/**
 * Signed values stand on both sides of 0, others above the smallest: the shape of a loss says nothing about 0. The colours
 * span a `range` that may be that of many surfaces, the contour lines what is on this one.
 */
export function relief([low, high]: [number, number], own: [number, number], signed: boolean): Relief {
  const base = signed ? 0 : low;
  // the colours of signed values reach as far on one side as on the other
  const reach = Math.max(Math.abs(low), Math.abs(high));
  const ticks = roundTicks(signed ? [-reach, reach] : [low, high], 4).map(([v, text]): [number, string] => [v - base, text]);
  // values travel in single precision: what differs by less than its rounding is flat
  const flat = own[1] - own[0] <= 1e-5 * Math.max(Math.abs(own[0]), Math.abs(own[1]));
  return { of: (v) => v - base, domain: [low - base, high - base], ticks, levels: flat ? [] : roundTicks(own, 9) };
}

/** How far above the smallest value, in decades. The smallest itself, and what hardly differs from it, is at the bottom. */
export function logRelief(values: ArrayLike<number>): Relief {
  const [low, high] = extent(values);
  const rises = Array.from(values, (v) => v - low).filter((v) => v > 0 && v < Infinity);
  const top = high - low || 1;
  const floor = Math.max(extent(rises)[0] || top / 10, top * 10 ** -DECADES);
  const height = (rise: number) => (Number.isNaN(rise) ? NaN : Math.log10(Math.max(rise, floor) / floor));
  const powers = powerTicks([floor, top]);
  return {
    of: (v) => height(v - low),
    domain: [0, height(top) || 1],
    ticks: powers.map(([rise, text]) => [height(rise), `+${text}`]),
    levels: powers.map(([rise, text]) => [low + rise, `+${text}`]),
  };
}

/** A piece of a contour line: column and row of its two ends. */
export type Piece = [number, number, number, number];

/**
 * The contour line of a level, in pieces: between neighbouring points it lies where the straight line between their values
 * crosses the level. There is none beside a point without a value.
 */
export function contour(values: ArrayLike<number>, columns: number, level: number): Piece[] {
  const rows = values.length / columns;
  const found: Piece[] = [];
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const at = row * columns + column;
      // around the cell, so that a crossing lies between each corner and the next
      const corners = [values[at], values[at + 1], values[at + columns + 1], values[at + columns]];
      if (!corners.every(Number.isFinite)) continue;
      const places: [number, number][] = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const crossings = corners.flatMap((a, i): [number, number][] => {
        const b = corners[(i + 1) % 4];
        if (a >= level === b >= level) return [];
        const t = (level - a) / (b - a);
        const [[x0, y0], [x1, y1]] = [places[i], places[(i + 1) % 4]];
        return [[x0 + t * (x1 - x0), y0 + t * (y1 - y0)]];
      });
      if (crossings.length === 2) found.push([...crossings[0], ...crossings[1]]);
      if (crossings.length !== 4) continue;
      // a saddle: the mean says which two corners belong together
      const joined = corners.reduce((a, b) => a + b) / 4 >= level === corners[0] >= level;
      const [a, b, c, d] = crossings;
      found.push(...(joined ? [[...a, ...b], [...c, ...d]] : [[...d, ...a], [...b, ...c]]) as Piece[]);
    }
  }
  return found;
}

/** Where the cells around some coordinates begin and end. */
export function edges(at: number[]): number[] {
  const half = (i: number) => (at.length > 1 ? (at[i + 1] - at[i]) / 2 : 0.5);
  return [at[0] - half(0), ...at.slice(1).map((v, i) => (at[i] + v) / 2), at.at(-1)! + half(at.length - 2)];
}

/** The index of the coordinate that is closest to 0, where 0 lies among them; else the one in the middle. */
export function centreOf(at: number[]): number {
  if (Math.min(...at) > 0 || Math.max(...at) < 0) return at.length >> 1;
  return at.reduce((best, v, i) => (Math.abs(v) < Math.abs(at[best]) ? i : best), 0);
}

/** The index of the smallest value; −1 where there is none. */
export function lowest(values: ArrayLike<number>): number {
  let best = -1;
  for (let i = 0; i < values.length; i++) if (values[i] < (best < 0 ? Infinity : values[best])) best = i;
  return best;
}
