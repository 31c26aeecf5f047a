// A variable over time as lines, and which line a pixel is on.
import { type Cube, labels, type Variable } from "../core/cube";
import { TIME } from "../core/rules";
import { linear, type Scale, ticks, type TimeScale, valueText } from "../core/scale";
import { pooled, pooledDims, type Reduce, slice } from "../core/slice";
import type { Cursor, Value } from "../core/types";

export interface Line {
  variable: Variable;
  place: [string, Value][];
  index: number[];
  values: Float64Array;
  low?: Float64Array;
  high?: Float64Array;
}

/**
 * One line for each combination of the other dimensions, or a `single` one at the Focus. Pooled dimensions are sliced at the
 * Focus or reduced, and so is the time where it is not the axis.
 */
export function linesOf(cube: Cube, variable: Variable, x: string, cursor: Cursor, reduce: Reduce | undefined, companions: { low?: string; high?: string }, single = false, spread = ""): { lines: Line[]; notes: string[] } {
  const across = single ? [] : variable.dims.filter((d) => d !== x && !pooled(d) && (!TIME.has(d) || TIME.has(x)));
  const axes = [...across, x];
  const read = (name?: string) => {
    const other = name ? cube.variables[name] : undefined;
    const fits = other && axes.every((a) => other.dims.includes(a)) && !pooledDims(cube, other, axes, cursor).length;
    return fits ? slice(cube, other, axes, cursor, reduce).values : undefined;
  };
  const { values, shape, notes } = slice(cube, variable, axes, cursor, reduce);
  const over = pooledDims(cube, variable, axes, cursor);
  const bare = companions.low === undefined && over.length === 1 && over[0] === spread;
  const reach = (end: Reduce) => (bare ? slice(cube, variable, axes, cursor, end).values : undefined);
  const [low, high] = [read(companions.low) ?? reach("min"), read(companions.high) ?? reach("max")];
  const n = shape.at(-1)!;
  const along = across.map((d) => labels(cube, d));
  const lines = Array.from({ length: values.length / n }, (_, k): Line => {
    const index: number[] = [];
    for (let rest = k, d = across.length - 1; d >= 0; d--) {
      index.unshift(rest % shape[d]);
      rest = Math.floor(rest / shape[d]);
    }
    const cut = (a?: Float64Array) => a?.subarray(k * n, (k + 1) * n);
    return { variable, place: across.map((d, i) => [d, along[i][index[i]]]), index, values: cut(values)!, low: cut(low), high: cut(high) };
  });
  return { lines, notes };
}

/** The dimension over which lines that stand for several runs have a band from the smallest to the largest. */
export const RUNS = "replicate";

/** The line within `reach` pixels of a place, the closest one. */
export function lineAt<L extends Pick<Line, "values">>(lines: L[], at: (i: number) => number, value: Scale, px: number, py: number, reach: number): L | null {
  let best: L | null = null;
  let distance = reach;
  for (const line of lines) {
    for (let i = 1; i < line.values.length; i++) {
      const [x0, x1] = [at(i - 1), at(i)];
      if (px < x0 - reach || px > x1 + reach) continue;
      const d = toSegment(px, py, x0, value(line.values[i - 1]), x1, value(line.values[i]));
      if (d < distance) [best, distance] = [line, d];
    }
  }
  return best;
}

function toSegment(px: number, py: number, x0: number, y0: number, x1: number, y1: number): number {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const t = Math.max(0, Math.min(1, ((px - x0) * dx + (py - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(px - x0 - t * dx, py - y0 - t * dy);
}

/** Move labels apart until none overlap, keeping their order. */
export function spread(wanted: number[], gap: number, low: number, high: number): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b]);
  const placed = [...wanted];
  let free = low;
  for (const i of order) {
    placed[i] = Math.max(placed[i], free);
    free = placed[i] + gap;
  }
  let ceiling = high;
  for (const i of order.reverse()) {
    placed[i] = Math.min(placed[i], ceiling);
    ceiling = placed[i] - gap;
  }
  return placed;
}

/** Where the time axis has ticks: at each step while they are few, else at round numbers. */
export function axisTicks(steps: Value[], time: TimeScale, few = 16): [number, string][] {
  if (steps.length <= few || time.words) return steps.map((s, i) => [time.at(i), valueText(s)]);
  const [first, last] = [Number(steps[0]), Number(steps.at(-1))];
  const place = linear([first, last], [time.at(0), time.at(steps.length - 1)]);
  return ticks(first, last, 8).map((t) => [place(t), valueText(t)]);
}

/** What several names have in common at their end or beginning; all of them where that is nothing. */
export function commonName(names: string[]): string {
  const words = names.map((n) => n.split(" "));
  const shared = (at: (w: string[], i: number) => string | undefined) => {
    let n = 0;
    while (at(words[0], n) !== undefined && words.every((w) => at(w, n) === at(words[0], n))) n++;
    return n;
  };
  const [first, last] = [shared((w, i) => w[i]), shared((w, i) => w[w.length - 1 - i])];
  if (!first && !last) return names.join(", ");
  return (last >= first ? words[0].slice(-last) : words[0].slice(0, first)).join(" ");
}

/** A line by its place, short: "1.2" for layer 1, head 2, "K 0.0 → 1.2" for a pair of heads, and the last steps of a module's path. */
export function shortName(place: Line["place"]): string {
  const [first, second, ...rest] = place;
  const words = (d: string, v: unknown) => (d === "module" ? String(v).split(".").slice(-3).join(".") : `${d} ${valueText(v)}`);
  if (first?.[0] === "layer" && second?.[0] === "head") return [`${first[1]}.${second[1]}`, ...rest.map(([, v]) => String(v))].join(" ");
  const { source, target, ...others } = Object.fromEntries(place);
  if (source !== undefined && target !== undefined) return [...Object.values(others), source, "→", target].map(String).join(" ");
  return place.map(([d, v]) => words(d, v)).join(", ");
}
