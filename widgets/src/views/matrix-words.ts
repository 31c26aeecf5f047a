// What the tooltip of a Matrix says beyond the value: the rows and columns by their task, numbers and text.
import type { Cube } from "../core/cube";
import { labels } from "../core/cube";
import { shortened, visibleToken } from "../core/dom";
import { withUnits } from "../core/legend";
import { numberText } from "../core/scale";

const LETTERS = 72;

/** "prose-3 · prose · loss 3.21 (nats) · “To be, or not to be”", from one-dimensional variables; empty where there are none. */
export function aboutLine(cube: Cube, dim: string, names: string[], i: number): string {
  const parts = names.flatMap((name) => {
    const variable = cube.variables[name];
    const value = variable?.values[i];
    if (value === undefined || value === "" || Number.isNaN(value)) return [];
    if (typeof value === "number") return [withUnits(`${variable.longName} ${numberText(value)}`, variable.units)];
    return [/^(test_)?text/.test(name) ? `“${plainText(value)}”` : value];
  });
  return parts.length ? [String(labels(cube, dim)[i]), ...parts].join(" · ") : "";
}

/** The tokens that a cell is about, by name. */
export function tokenLines(cube: Cube, axes: string[], names: string[], place: [number, number]): string[] {
  return names.flatMap((name) => {
    const variable = cube.variables[name];
    if (!variable) return [];
    const flat = variable.dims[0] === axes[0] ? place[0] * variable.shape[1] + place[1] : place[1] * variable.shape[1] + place[0];
    const value = variable.values[flat];
    if (value === undefined || Number.isNaN(value)) return [];
    return [`${variable.longName}: ${typeof value === "number" ? value : visibleToken(value)}`];
  });
}

/** The beginning of a text on one line. */
export const plainText = (text: string): string => shortened(visibleToken(shortened(text, LETTERS).replace(/\s+/g, " ")).replaceAll("·", " "), LETTERS);
