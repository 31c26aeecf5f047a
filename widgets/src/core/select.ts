// From a place in a Cube to a selection: the dimensions themselves, and what their names and coordinates are about.
import { type Cube, labels } from "./cube";
import { toggled } from "./places";
import { asList, baseName, stripped } from "./rules";
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

/** A patch on the dimensions of a Cube, and beside it what they are about: `module` tells its layer, `sample_a` is a sample. */
export function along(cube: Cube, patch: Patch): Choice {
  const derived: Record<string, Value[]> = {};
  const bound: Record<string, string[]> = {};
  const tell = (dim: string, base: string, value: Value | null | undefined) => {
    if (base in patch) return;
    (bound[dim] ??= []).includes(base) || bound[dim].push(base);
    const list = (derived[base] ??= []);
    // a module outside the layers has layer −1
    if (value !== null && value !== undefined && !(typeof value === "number" && value < 0) && !list.includes(value)) list.push(value);
  };
  for (const [dim, selection] of Object.entries(patch)) {
    const values: (Value | undefined)[] = selection === null ? [undefined] : asList(selection);
    const base = baseName(dim);
    if (base && cube.coords[dim]) values.forEach((v) => tell(dim, base, v));
    for (const [name, coordinate] of Object.entries(cube.coords)) {
      if (name === dim || coordinate.dims.length !== 1 || coordinate.dims[0] !== dim) continue;
      const about = baseName(stripped(name, dim)) ?? (dim === "sample" ? null : bare(name));
      if (about && about !== dim) values.forEach((v) => tell(dim, about, v === undefined ? v : coordinate.values[labels(cube, dim).indexOf(v)]));
    }
  }
  return { patch: { ...patch, ...Object.fromEntries(Object.entries(derived).map(([d, list]) => [d, single(list)])) }, bound };
}

/** A place with what it is about. */
export function about(cube: Cube, place: Cursor): Cursor {
  return Object.fromEntries(Object.entries(along(cube, place).patch).filter((entry): entry is [string, Selection] => entry[1] !== null));
}

/** A coordinate that is called `layer` itself. */
const bare = (name: string): string | null => (["layer", "head", "block"].includes(name) ? name : null);
