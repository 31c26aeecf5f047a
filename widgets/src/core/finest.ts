// Of variables that say the same more or less finely, the one for what is selected: a score of a sample, of one of its tokens,
// at one checkpoint, or the mean of all.
import type { Cube, Variable } from "./cube";
import { indicesAt } from "./rules";
import { counted } from "./scale";
import { absent } from "./slice";
import type { Cursor } from "./types";

export interface Finest {
  variable: Variable;
  /** What is not selected and therefore not taken, or selected and not followed, in words. */
  notes: string[];
}

const ofAll = (noun: string, n: number): string => (n === 1 ? `of the only ${noun}` : `no ${noun} selected: all ${counted(n, noun)}`);

/**
 * `shown`, or of those that may stand in its place the finest whose dimensions besides the axes are all selected; where not even
 * those of `shown` are, the coarsest. Names that the Cube has not got were too heavy to travel.
 */
export function finest(cube: Cube, shown: Variable, instead: string[] | undefined, axes: string[], cursor: Cursor): Finest {
  if (!instead?.length) return { variable: shown, notes: [] };
  const there = [shown, ...instead.flatMap((n) => cube.variables[n] ?? [])].filter((v) => axes.every((a) => v.dims.includes(a)));
  const rest = (v: Variable) => v.dims.filter((d) => !axes.includes(d));
  const chosen = there.filter((v) => rest(v).every((d) => indicesAt(cube, d, cursor)));
  const among = chosen.length ? chosen : there;
  const longest = (a: Variable, b: Variable) => (chosen.length ? rest(b).length > rest(a).length : rest(b).length < rest(a).length);
  const variable = among.reduce((best, v) => (longest(best, v) ? v : best));
  const notes = rest(shown).filter((d) => !variable.dims.includes(d)).flatMap((d) => [ofAll(d.replaceAll("_", " "), cube.dims[d]), ...absent(cube, d, cursor)]);
  const heavy = instead.some((n) => !cube.variables[n]);
  const lost = heavy ? Object.keys(cube.dims).filter((d) => d in cursor && !axes.includes(d) && d.startsWith("test_") && !variable.dims.includes(d)) : [];
  return { variable, notes: [...notes, ...lost.map((d) => `does not follow the ${d.replaceAll("_", " ")}`)] };
}
