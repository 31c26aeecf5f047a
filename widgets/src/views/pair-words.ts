// What a strip says of the row that it shows: a sample, or one text of a pair of samples.
import { type Cube, labels } from "../core/cube";
import { asList, indicesAt, unmet } from "../core/rules";
import type { Cursor } from "../core/types";

export interface RowOptions {
  /** The dimension of the texts: `sample`, or `pair`. */
  rows: string;
  /** Which text of a pair: a or b. */
  side?: string;
  /** The coordinate with the id of the sample whose text it is. */
  of?: string;
  /** In which order the rows are, in words. */
  order?: string;
}

/** Words where the Focus asks for a pair that is not here; empty where it does not. A sample that is not here leaves the first one. */
export function missingWords(cube: Cube, { rows }: RowOptions, cursor: Cursor): string {
  const asked = rows === "sample" ? [] : unmet(cube, rows, cursor);
  if (!asked.length) return "";
  const named = asked.map(([, wanted]) => wanted.join(", ")).join(" × ");
  const noun = rows.replaceAll("_", " ");
  const those = `the ${cube.dims[rows].toLocaleString("en")} ${noun}s looked at token by token`;
  const whole = asked.length > 1 || asked[0][0] === rows;
  const several = asked.some(([, wanted]) => wanted.length > 1);
  return whole && !several ? `${named} is not among ${those}` : `No ${noun} of ${named} is among ${those}`;
}

/** Which row it is, and why this one. */
export function rowWords(cube: Cube, { rows, side, order }: RowOptions, row: number, cursor: Cursor): string {
  const name = `${rows.replaceAll("_", " ")} ${labels(cube, rows)[row]}`;
  if (rows === "sample") return name;
  const text = side ? `text ${side} of ${name}` : name;
  const selected = indicesAt(cube, rows, cursor);
  if (selected?.length === 1 || cube.dims[rows] === 1) return text;
  if (selected && !selected.includes(row)) return text;
  const count = selected ? `${selected.length} selected` : `${cube.dims[rows].toLocaleString("en")}`;
  return `${text} (the first of ${count}${order ? `, ${order}` : ""})`;
}

/** The id of the sample whose text it is; empty where the Cube does not say. */
export function textOf(cube: Cube, { rows, of }: RowOptions, row: number): string {
  const coordinate = of ? cube.coords[of] : undefined;
  return coordinate?.dims[0] === rows ? String(coordinate.values[row]) : "";
}

/** Places along a text. Position 7 of one text of a pair has nothing to do with position 7 of the other: only its own name counts. */
export function placesAlong(cube: Cube, along: string, cursor: Cursor): number[] {
  if (along === "position") return indicesAt(cube, along, cursor) ?? [];
  if (!(along in cursor)) return [];
  const there = labels(cube, along);
  return asList(cursor[along]).map((v) => there.indexOf(v)).filter((i) => i >= 0);
}
