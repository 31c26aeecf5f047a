// Several places chosen together. The Focus has one selection per dimension; where not all combinations of those were chosen,
// it also lists the ones that were.
import type { Cube } from "./cube";
import { labels } from "./cube";
import { asList, eitherSide, headOf, indicesAt } from "./rules";
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

/** Add a place to those that are chosen, or take it away again. `whole` says what else a place is about. */
export function toggled(cursor: Cursor, places: Place[], place: Place, whole = (p: Place): Place => p): { patch: Patch; places: Place[] } {
  const dims = Object.keys(place);
  const own = agreeing(cursor, places).filter((p) => dims.every((d) => d in p)).map((p) => Object.fromEntries(dims.map((d) => [d, p[d]])));
  const before = own.length ? own : combinations(cursor, dims);
  const after = before.some((p) => equal(p, place)) ? before.filter((p) => !equal(p, place)) : [...before, place];
  const patch = Object.fromEntries(dims.map((d) => [d, single(unique(after.map((p) => p[d])))]));
  return { patch, places: apart(after.map(whole)) };
}

/** Places, where they are not all combinations of what they have along each dimension; else none. */
export function apart(places: Place[]): Place[] {
  const dims = Object.keys(places[0] ?? {}).filter((d) => places.every((p) => d in p));
  const rectangle = dims.reduce((n, d) => n * unique(places.map((p) => p[d])).length, 1) === places.length;
  return rectangle || !places.length ? [] : places.map((p) => Object.fromEntries(dims.map((d) => [d, p[d]])));
}

function combinations(cursor: Cursor, dims: string[]): Place[] {
  if (!dims.every((d) => d in cursor)) return [];
  return dims.reduce<Place[]>((found, d) => found.flatMap((p) => asList(cursor[d]).map((v) => ({ ...p, [d]: v }))), [{}]);
}

/**
 * Whether a place, by its indices along `dims`, is chosen; null where nothing is selected along any of them. Of two sides that
 * are not asked for by name, either will do.
 */
export function chosen(cube: Cube, dims: string[], cursor: Cursor, places: Place[] = []): ((index: number[]) => boolean) | null {
  const along = dims.map((d) => indicesAt(cube, d, cursor));
  if (!along.some(Boolean)) return null;
  const sets = along.map((list) => list && new Set(list));
  const other = dims.map((d, i) => dims.findIndex((e, k) => along[i] && along[k] && eitherSide(d, e, cursor)));
  const has = (index: number[], d: number) => sets[d]?.has(index[d]) ?? true;
  const within = (index: number[]) => index.every((_, d) => has(index, d) || (other[d] >= 0 && has(index, other[d])));
  const listed = agreeing(cursor, places);
  const at = dims.flatMap((d, k) => (listed.length && d in listed[0] ? [[d, k, labels(cube, d)] as const] : []));
  if (at.length < 2) return within;
  return (index) => within(index) && listed.some((p) => at.every(([d, k, values]) => p[d] === values[index[k]]));
}

/** The heads that are the `source` of what is selected. */
export const sources = (cursor: Cursor): { layer: number; head: number }[] =>
  ("source" in cursor ? asList(cursor.source) : []).flatMap((name) => headOf(name) ?? []);
