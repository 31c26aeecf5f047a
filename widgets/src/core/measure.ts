// A variable on some axes at the place that a view looks at, with all that qualifies its values.
import type { Cube, Variable } from "./cube";
import { withUnits } from "./legend";
import { numberText } from "./scale";
import { absentAlong, extent, extentOf, pick, pooledDims, type Reduce, reduction, slice } from "./slice";
import type { Cursor } from "./types";

export interface Companions {
  low?: string;
  high?: string;
  null?: string;
  p?: string;
  q?: string;
  significant?: string;
  converged?: string;
  residual?: string;
}

/** What a value is besides a number; each looks different from a plain one. */
export type Status = "plain" | "undecided" | "insignificant" | "unconverged" | "none";

export interface Reading {
  variable: Variable;
  axes: string[];
  shape: number[];
  values: Float64Array;
  low?: Float64Array;
  high?: Float64Array;
  reference?: Float64Array;
  residual?: Float64Array;
  p?: Float64Array;
  q?: Float64Array;
  significant?: Float64Array;
  notes: string[];
  /** Zero means "none": the values lie on both sides of it, or their intervals do. */
  signed: boolean;
  difference: boolean;
  /** Whether anything but a missing value can set one apart. */
  qualified: boolean;
  status(i: number): Status;
}

export interface Asked {
  cube: Cube;
  companions: Companions;
  cursor: Cursor;
  /** Where the values that are taken away are; null where the values themselves are shown. */
  minus?: Cursor | null;
  reduce?: Reduce;
  /** Where a comparison holds the cursor. */
  pin?: Cursor;
  /** Dimensions that are reduced although they would be sliced. */
  pool?: string[];
}

export function measure(variable: Variable, axes: string[], { cube, companions, cursor, minus = null, reduce, pool = [], pin = {} }: Asked): Reading {
  const take = (name?: string) => {
    const found = cube.variables[name ?? ""];
    // the mean of intervals is not the interval of the mean, nor is their difference that of the difference
    if (!found || minus || !axes.every((a) => found.dims.includes(a)) || pooledDims(cube, found, axes, cursor, pool).length) return undefined;
    return slice(cube, found, axes, cursor, reduce, pool).values;
  };
  const here = slice(cube, variable, axes, cursor, reduce, pool);
  const values = minus ? differences(here.values, slice(cube, variable, axes, minus, reduce, pool).values) : here.values;
  // what a comparison holds fast is in the name of each of its pictures
  const held = Object.keys(pin).flatMap((d) => (variable.dims.includes(d) ? [pick(cube, d, cursor, reduction(variable, reduce)).note] : []));
  const [low, high, reference] = [take(companions.low), take(companions.high), take(companions.null)];
  const [significant, converged] = [take(companions.significant), take(companions.converged)];
  const below = companions.null ? undefined : (cube.variables[companions.low ?? ""]?.values as ArrayLike<number> | undefined);
  // an effect whose interval reaches below 0 is a signed one, even where all estimates happen to be positive
  const reaches = variable.words.signed ? true : variable.bounds ? variable.bounds[0] < 0 : extentOf(variable)[0] < 0 || (below !== undefined && extent(below)[0] < 0);
  const signed = minus !== null || reaches;
  const status = (i: number): Status => {
    if (Number.isNaN(values[i])) return "none";
    if (converged && !converged[i]) return "unconverged";
    if (significant && !significant[i]) return "insignificant";
    if (!low || !high || (!reference && !signed)) return "plain";
    const none = reference ? reference[i] : 0;
    return low[i] <= none && none <= high[i] ? "undecided" : "plain";
  };
  return {
    variable, axes, shape: here.shape, values, low, high, reference, residual: take(companions.residual), p: take(companions.p), q: take(companions.q), significant,
    notes: [...here.notes.filter((note) => !held.includes(note)), ...absentAlong(cube, axes, cursor)], signed, difference: minus !== null, qualified: Boolean(low ?? significant ?? converged), status,
  };
}

function differences(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((v, i) => v - b[i]);
}

export function statusWords(status: Status, reading: Reading): string {
  return { plain: "", undecided: reading.reference ? "interval holds the null" : "interval holds 0", insignificant: "not significant", unconverged: "not converged", none: reading.variable.words.nan ? `no value: ${reading.variable.words.nan}` : "no value" }[status];
}

/** The statuses that occur, for the legend. */
export function statuses(reading: Reading): Status[] {
  const found = new Set<Status>();
  const { values } = reading;
  if (reading.qualified) for (let i = 0; i < values.length; i++) found.add(reading.status(i));
  else if (values.some((v) => v !== v)) found.add("none");
  found.delete("plain");
  return [...found];
}

/** One value with what qualifies it, line by line. */
export function describe(reading: Reading, i: number, name = reading.variable.longName): string[] {
  const { values, low, high, reference, residual, p, q, variable } = reading;
  const lines = [withUnits(`${reading.difference ? "difference in " : ""}${name} ${numberText(values[i])}`, variable.units)];
  const words = statusWords(reading.status(i), reading);
  if (Number.isNaN(values[i]) && variable.words.nan) return [...lines, variable.words.nan];
  if (low && high) lines.push(Number.isNaN(low[i]) ? "no interval" : `${variable.words.interval ?? "interval"}: ${numberText(low[i])} to ${numberText(high[i])}`);
  if (residual) lines.push(`± ${numberText(residual[i])} (residual)`);
  if (reference) lines.push(`${variable.words.null ? `null, ${variable.words.null}:` : "null"} ${numberText(reference[i])}`);
  const tested = [["q", q], ["p", p]].flatMap(([letter, v]) => (v ? [`${letter as string} ${numberText((v as Float64Array)[i], 2)}`] : []));
  if (tested.length) lines.push(tested.join(" · "));
  if (words && reading.status(i) !== "none") lines.push(words);
  return lines;
}
