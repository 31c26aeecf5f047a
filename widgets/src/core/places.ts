// Several places chosen together. The Focus has one selection per dimension; where not all combinations of those were chosen,
// it also lists the ones that were.
import type { Cube } from "./cube";
import { labels } from "./cube";
import { asList, indicesAt } from "./rules";
import type { Cursor, Patch, Place, Selection, Value } from "./types";

const single = (list: Value[]): Selection | null => (list.length === 0 ? null : list.length === 1 ? list[0] : list);
const unique = (list: Value[]): Value[] => [...new Set(list)];
const equal = (a: Place, b: Place): boolean => Object.keys(a).every((d) => a[d] === b[d]);

/** The places, as long as they say the same as the selections along their dimensions; else none. */
export function agreeing(cursor: Cursor, places: Place[]): Place[] {
  if (!places.length) return places;
  const agrees = Object.keys(places[0]).every((dim) => {
    const selected = new Set(dim in cursor ? asList(cursor[dim]) : []);
    const listed = new Set(places.map((p) => p[dim]));
    return selected.size === listed.size && [...listed].every((v) => selected.has(v));
  });
  return agrees ? places : [];
}

/** Add a place to those that are chosen, or take it away again. */
export function toggled(cursor: Cursor, places: Place[], place: Place): { patch: Patch; places: Place[] } {
  const dims = Object.keys(place);
  const own = agreeing(cursor, places).filter((p) => Object.keys(p).sort().join() === [...dims].sort().join());
  const before = own.length ? own : combinations(cursor, dims);
  const after = before.some((p) => equal(p, place)) ? before.filter((p) => !equal(p, place)) : [...before, place];
  const lists = dims.map((d) => unique(after.map((p) => p[d])));
  const patch = Object.fromEntries(dims.map((d, i) => [d, single(lists[i])]));
  const rectangle = lists.reduce((n, l) => n * l.length, 1) === after.length;
  return { patch, places: rectangle ? [] : after };
}

function combinations(cursor: Cursor, dims: string[]): Place[] {
  if (!dims.every((d) => d in cursor)) return [];
  return dims.reduce<Place[]>((found, d) => found.flatMap((p) => asList(cursor[d]).map((v) => ({ ...p, [d]: v }))), [{}]);
}

/** Whether a place, by its indices along `dims`, is chosen; null where nothing is selected along any of them. */
export function chosen(cube: Cube, dims: string[], cursor: Cursor, places: Place[] = []): ((index: number[]) => boolean) | null {
  const along = dims.map((d) => indicesAt(cube, d, cursor));
  if (!along.some(Boolean)) return null;
  const sets = along.map((list) => list && new Set(list));
  const within = (index: number[]) => index.every((i, d) => sets[d]?.has(i) ?? true);
  const listed = agreeing(cursor, places);
  if (!listed.length || !Object.keys(listed[0]).every((d) => dims.includes(d))) return within;
  const at = Object.keys(listed[0]).map((d) => [d, dims.indexOf(d), labels(cube, d)] as const);
  return (index) => within(index) && listed.some((p) => at.every(([d, k, values]) => p[d] === values[index[k]]));
}
