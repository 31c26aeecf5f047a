// How a dimension follows the Focus. The same rules as tensorscope_nb/views/rules.py.
import { type Cube, labels } from "./cube";
import type { Cursor, Patch, Selection, Value } from "./types";

const BASES = ["checkpoint", "step", "model", "task", "sample", "position", "layer", "head", "block", "module", "neuron",
  "channel", "token_id", "component", "parameter", "metric"];
/** Places without variants: a `source_layer` is about a layer. */
const ALONE = ["kind", "source", "target"];
export const TIME = new Set(["checkpoint", "step"]);

/** sample_a, test_sample → sample; source_layer → layer; query, key → position. */
export function baseName(name: string): string | null {
  if (name === "query" || name === "key") return "position";
  for (const base of BASES) {
    if (name !== base && (name.startsWith(`${base}_`) || name.endsWith(`_${base}`))) return base;
  }
  return null;
}

/** Whether a dimension goes by its own name alone: what is about test samples, where there are training samples beside them. */
export const alone = (dim: string, dims: object): boolean => dim.startsWith("test_") && "sample" in dims && "test_sample" in dims;

/** The names under which a dimension looks for a selection, in order; `dims` are all that stand beside it. */
export function followed(dim: string, dims: object = {}): string[] {
  const names = [dim];
  const base = baseName(dim);
  if (base && !alone(dim, dims)) names.push(base);
  for (const name of [...names]) {
    if (name === "checkpoint") names.push("step");
    if (name === "step") names.push("checkpoint");
  }
  return names;
}

export const asList = (selection: Selection): Value[] => (Array.isArray(selection) ? selection : [selection]);

export function nearest(values: Value[], wanted: Value): number {
  let best = -1;
  let distance = Infinity;
  values.forEach((v, i) => {
    const d = Math.abs(Number(v) - Number(wanted));
    if (d < distance) [best, distance] = [i, d];
  });
  return best;
}

/** The layer and the head that a name such as "0.3" is about. */
export function headOf(name: Value): { layer: number; head: number } | null {
  const found = typeof name === "string" ? /^(\d+)\.(\d+)$/.exec(name) : null;
  return found && { layer: Number(found[1]), head: Number(found[2]) };
}

/** Two sides of one thing: source and target, layer_a and layer_b. */
export function twins(a: string, b: string): boolean {
  const base = baseName(a);
  return a !== b && (base !== null ? base === baseName(b) : ["source", "target"].includes(a) && ["source", "target"].includes(b));
}

/** Whether neither of two sides is asked for by its own name: what is selected may then be on either. */
export const eitherSide = (a: string, b: string, cursor: Cursor): boolean => twins(a, b) && !(a in cursor) && !(b in cursor);

/** Where each value of a list is: asked again and again, of lists that may be long. */
const places = new WeakMap<Value[], Map<Value, number>>();
export function placeOf(values: Value[], wanted: Value): number {
  if (values.length < 64) return values.indexOf(wanted);
  let known = places.get(values);
  if (!known) {
    known = new Map();
    for (let i = values.length - 1; i >= 0; i--) known.set(values[i], i);
    places.set(values, known);
  }
  return known.get(wanted) ?? -1;
}

const found = new WeakMap<Value[], WeakMap<Value[], number[]>>();
/** Where the values of a selection are among others, for those that are: looked for once where there are many. */
function placesOf(values: Value[], wanted: Selection): number[] {
  const list = asList(wanted);
  const there = () => [...new Set(list.map((w) => placeOf(values, w)).filter((i) => i >= 0))];
  if (list.length < 64) return there();
  let known = found.get(list);
  if (!known) found.set(list, (known = new WeakMap()));
  let at = known.get(values);
  if (!at) known.set(values, (at = there()));
  return at;
}

/** Layer and head are those of a `target` such as "1.2" where nothing else says them. */
export function targeted(dim: string, cursor: Cursor): Value[] {
  if ((dim !== "layer" && dim !== "head") || "layer" in cursor || "head" in cursor || !("target" in cursor)) return [];
  return asList(cursor.target).flatMap((name) => headOf(name)?.[dim] ?? []);
}

/** Indices along `dim` that the Focus selects; null when it selects none here. */
export function indicesAt(cube: Cube, dim: string, cursor: Cursor): number[] | null {
  const values = labels(cube, dim);
  for (const name of followed(dim, cube.dims)) {
    if (!(name in cursor)) continue;
    const present = TIME.has(name) ? [...new Set(asList(cursor[name]).map((w) => nearest(values, w)).filter((i) => i >= 0))] : placesOf(values, cursor[name]);
    if (present.length) return present;
  }
  const heads = [...new Set(targeted(dim, cursor).map((w) => placeOf(values, w)).filter((i) => i >= 0))];
  if (heads.length) return heads;
  return byCoordinate(cube, dim, cursor);
}

/** `module` has no `module` in the Focus, but its coordinate module_layer follows `layer`. */
function byCoordinate(cube: Cube, dim: string, cursor: Cursor): number[] | null {
  const asked = askedByCoordinate(cube, dim, cursor);
  if (!asked.length) return null;
  const kept = asked.map(({ sides, wanted }) => {
    const among = new Set(wanted);
    return new Set(sides.flatMap((side) => side.flatMap((v, i) => (among.has(v) ? [i] : []))));
  });
  const found = labels(cube, dim).flatMap((_, i) => (kept.every((k) => k.has(i)) ? [i] : []));
  return found.length ? found : null;
}

interface Asked {
  /** The name in the Focus. */
  name: string;
  wanted: Value[];
  /** The coordinates that may have it, one by one. */
  sides: Value[][];
}

/**
 * What the Focus asks of a dimension by its coordinates, each by the first of its names that is selected. Those that are
 * left with a base alone (`sample` for pair_sample_a and pair_sample_b) are sides of one thing: it may be on either. Where one
 * side is asked for by its own name, the base says no more.
 */
function askedByCoordinate(cube: Cube, dim: string, cursor: Cursor): Asked[] {
  const found = new Map<string, Asked>();
  const settled = new Set<string | null>();
  const others: [string, Value[]][] = [];
  for (const [name, coordinate] of Object.entries(cube.coords)) {
    if (name === dim || coordinate.dims.length !== 1 || coordinate.dims[0] !== dim) continue;
    const own = ownName(name, dim);
    const key = [name, own].find((k) => k in cursor);
    const base = baseName(own);
    if (key) {
      found.set(name, { name: key, wanted: asList(cursor[key]), sides: [coordinate.values] });
      settled.add(base);
    } else if (base && base in cursor) others.push([base, coordinate.values]);
  }
  for (const [base, values] of others) {
    if (settled.has(base)) continue;
    const asked = found.get(base);
    if (asked) asked.sides.push(values);
    else found.set(base, { name: base, wanted: asList(cursor[base]), sides: [values] });
  }
  return [...found.values()];
}

/** The selections that a dimension would follow and has not, by the name in the Focus; empty where it follows, or nothing is asked. */
export function unmet(cube: Cube, dim: string, cursor: Cursor): [string, Value[]][] {
  if (indicesAt(cube, dim, cursor)) return [];
  const name = followed(dim, cube.dims).find((n) => n in cursor);
  return name ? [[name, asList(cursor[name])]] : askedByCoordinate(cube, dim, cursor).map((a) => [a.name, a.wanted]);
}

/** module_layer on `module` is about a layer, pair_sample_a on `pair` about sample_a: the owner's name comes off. */
export function ownName(name: string, dim: string): string {
  return name.startsWith(`${dim}_`) ? name.slice(dim.length + 1) : name;
}

/** Whether a name is a place that the Focus may select: `layer`, or a variant of one such as `sample_a`. */
export const isPlace = (name: string): boolean => BASES.includes(name) || ALONE.includes(name) || baseName(name) !== null;

/** Apply a change; null clears. */
export function patched(cursor: Cursor, patch: Patch): Cursor {
  const next: Cursor = { ...cursor };
  for (const [dim, value] of Object.entries(patch)) {
    if (value === null || (Array.isArray(value) && !value.length)) delete next[dim];
    else next[dim] = value;
  }
  return next;
}

export const same = (a: unknown, b: unknown): boolean => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

function sorted(x: unknown): unknown {
  if (Array.isArray(x) || x === null || typeof x !== "object") return x;
  return Object.fromEntries(Object.entries(x).sort(([a], [b]) => (a < b ? -1 : 1)));
}
