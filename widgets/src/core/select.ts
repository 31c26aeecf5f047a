// From a place in a Cube to a selection: the dimensions themselves, and what their names and coordinates are about.
import { type Cube, labels } from "./cube";
import { toggled } from "./places";
import { alone, asList, baseName, headOf, isPlace, ownName, placeOf } from "./rules";
import type { Cursor, Patch, Place, Selection, Value } from "./types";

export interface Choice {
  patch: Patch;
  /** Which selections were made on behalf of which others: `source` for `layer` and `head`. */
  bound: Record<string, string[]>;
  /** The single places, where they are not all combinations of the selections. */
  places?: Place[];
}

const single = (list: Value[]): Selection | null => (list.length === 0 ? null : list.length === 1 ? list[0] : list);

/** Select the place at `indices` along `dims`, or add it to what is selected. */
export function choice(cube: Cube, dims: string[], indices: number[], focus: { cursor: Cursor; places: Place[] }, add = false): Choice {
  return choose(cube, Object.fromEntries(dims.map((d, i) => [d, labels(cube, d)[indices[i]]])), focus, add);
}

/** The same of a place by its values. */
export function choose(cube: Cube, place: Place, focus: { cursor: Cursor; places: Place[] }, add = false): Choice {
  if (!add) return { ...along(cube, place), places: [] };
  const { patch, places } = toggled(focus.cursor, focus.places, place, (p) => ({ ...p, ...headAt(cube, p) }));
  return { ...along(cube, patch), places };
}

/** The head that a place is about by way of its target: two targets are two heads, and not all those of both their layers. */
function headAt(cube: Cube, place: Place): Place {
  if ("layer" in place || "head" in place) return {};
  const { target, layer, head } = along(cube, place).patch;
  const at = target !== undefined && typeof layer === "number" && typeof head === "number";
  return at ? { layer, head } : {};
}

/**
 * A patch on the dimensions of a Cube, and beside it what they are about: `module` tells its layer, `sample_a` is a sample, and
 * `pair` tells both its samples. The other way round a chosen `pair` gives way to a choice of its samples. A `target` tells its
 * layer and head, and so does a `source`, unless what it goes into is a head that someone looks at: then it is a second mark
 * beside that one.
 */
export function along(cube: Cube, patch: Patch): Choice {
  const derived: Record<string, Value[]> = {};
  const bound: Record<string, string[]> = {};
  const aside = (name: string): boolean => destined(cube) && /^source(_|$)/.test(name);
  const tell = (dim: string, name: string, value: Value | null | undefined) => {
    if (name in patch) return;
    (bound[dim] ??= []).includes(name) || bound[dim].push(name);
    const list = (derived[name] ??= []);
    // a module outside the layers has layer −1
    if (value !== null && value !== undefined && !(typeof value === "number" && value < 0) && !list.includes(value)) list.push(value);
    tellHead(dim, name, value);
    const base = baseName(name);
    if (!base || aside(name)) return;
    tell(dim, base, value);
    tell(name, base, value);
  };
  const tellHead = (dim: string, name: string, value: Value | null | undefined) => {
    if (name !== "target" && (name !== "source" || destined(cube))) return;
    const head = value === undefined || value === null ? null : headOf(value);
    for (const part of ["layer", "head"] as const) {
      tell(dim, part, head?.[part]);
      if (dim !== name) tell(name, part, head?.[part]);
    }
  };
  for (const [dim, selection] of Object.entries(patch)) {
    const values: (Value | undefined)[] = selection === null ? [undefined] : asList(selection);
    const base = baseName(dim);
    if (base && cube.coords[dim] && !alone(dim, cube.dims)) values.forEach((v) => tell(dim, base, v));
    values.forEach((v) => tellHead(dim, dim, v));
    if (aside(dim)) continue;
    for (const [name, coordinate] of Object.entries(cube.coords)) {
      if (name === dim || coordinate.dims.length !== 1 || coordinate.dims[0] !== dim) continue;
      const about = told(name, dim);
      if (about && about !== dim) values.forEach((v) => tell(dim, about, v === undefined ? v : coordinate.values[placeOf(labels(cube, dim), v)]));
    }
  }
  const whole = { ...patch, ...Object.fromEntries(Object.entries(derived).map(([d, list]) => [d, single(list)])) };
  // another head is another target, and then this is not its source
  if ("source" in whole && "target" in whole) bound.source = [...new Set([...(bound.source ?? []), "layer", "head"])];
  const given: Patch = {};
  for (const [name, coordinate] of Object.entries(cube.coords)) {
    const [owner] = coordinate.dims;
    if (coordinate.dims.length === 1 && owner !== name && !(owner in patch) && ownName(name, owner) in patch) given[owner] = null;
  }
  return { patch: { ...given, ...whole }, bound };
}

/** Whether what a Cube has of sources goes into targets or heads that it names. */
const destined = (cube: Cube): boolean =>
  ["target", "layer", "head"].some((d) => d in cube.dims) || Object.entries(cube.coords).some(([name, c]) => ownName(name, c.dims[0] ?? "") === "target");

/** The name under which the Focus hears of a coordinate: not of a task, which is more than one sample has to say. */
function told(name: string, dim: string): string | null {
  const own = ownName(name, dim);
  if ((baseName(own) ?? own) === "task") return null;
  if (own !== name) return isPlace(own) ? own : null;
  return baseName(name) ?? (dim === "sample" ? null : bare(name));
}

/** A place with what it is about. */
export function about(cube: Cube, place: Cursor): Cursor {
  return Object.fromEntries(Object.entries(along(cube, place).patch).filter((entry): entry is [string, Selection] => entry[1] !== null));
}

/** A coordinate that is called `layer`, or `source`, itself. */
const bare = (name: string): string | null => (["layer", "head", "block", "kind", "source", "target"].includes(name) ? name : null);
