// From a place in a Cube to a selection: the dimensions themselves, and what their names and coordinates are about.
import { type Cube, labels } from "./cube";
import { toggled } from "./places";
import { asList, baseName, isPlace, ownName } from "./rules";
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
  const exact = Object.fromEntries(dims.map((d, i) => [d, labels(cube, d)[indices[i]]]));
  if (!add) return { ...along(cube, exact), places: [] };
  const { patch, places } = toggled(focus.cursor, focus.places, exact);
  return { ...along(cube, patch), places };
}

/**
 * A patch on the dimensions of a Cube, and beside it what they are about: `module` tells its layer, `sample_a` is a sample, and
 * `pair` tells both its samples. The other way round a chosen `pair` gives way to a choice of its samples.
 */
export function along(cube: Cube, patch: Patch): Choice {
  const derived: Record<string, Value[]> = {};
  const bound: Record<string, string[]> = {};
  const tell = (dim: string, name: string, value: Value | null | undefined) => {
    if (name in patch) return;
    (bound[dim] ??= []).includes(name) || bound[dim].push(name);
    const list = (derived[name] ??= []);
    // a module outside the layers has layer −1
    if (value !== null && value !== undefined && !(typeof value === "number" && value < 0) && !list.includes(value)) list.push(value);
    const base = baseName(name);
    if (!base) return;
    tell(dim, base, value);
    tell(name, base, value);
  };
  for (const [dim, selection] of Object.entries(patch)) {
    const values: (Value | undefined)[] = selection === null ? [undefined] : asList(selection);
    const base = baseName(dim);
    if (base && cube.coords[dim]) values.forEach((v) => tell(dim, base, v));
    for (const [name, coordinate] of Object.entries(cube.coords)) {
      if (name === dim || coordinate.dims.length !== 1 || coordinate.dims[0] !== dim) continue;
      const about = told(name, dim);
      if (about && about !== dim) values.forEach((v) => tell(dim, about, v === undefined ? v : coordinate.values[labels(cube, dim).indexOf(v)]));
    }
  }
  const given: Patch = {};
  for (const [name, coordinate] of Object.entries(cube.coords)) {
    const [owner] = coordinate.dims;
    if (coordinate.dims.length === 1 && owner !== name && !(owner in patch) && ownName(name, owner) in patch) given[owner] = null;
  }
  return { patch: { ...given, ...patch, ...Object.fromEntries(Object.entries(derived).map(([d, list]) => [d, single(list)])) }, bound };
}

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

/** A coordinate that is called `layer` itself. */
const bare = (name: string): string | null => (["layer", "head", "block"].includes(name) ? name : null);
