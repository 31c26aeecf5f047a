// The key of a colour scale: a bar with ticks, its name and unit, and what the marks mean.
import { roundTicks } from "./axes";
import { type ColourScale, gradient } from "./colour";
import type { Cube } from "./cube";
import { h } from "./dom";
import { type Reading, type Status, statuses, statusWords } from "./measure";
import { extent } from "./slice";
import { linear } from "./scale";

export interface Mark {
  look: "ring" | "underline" | "dashed" | "hatched" | "void" | "hollow" | "whisker" | "dot" | "down" | "cross" | "band" | "notch" | "solid" | "long" | "short" | "mixed";
  text: string;
  /** Other than the ink. */
  colour?: string;
}

// What an element says already.
const shown = new WeakMap<HTMLElement, string>();

/** What each status looks like, where it occurs. */
export function statusMarks(reading: Reading, looks: Partial<Record<Status, Mark["look"]>> = {}): Mark[] {
  const usual: Record<Status, Mark["look"]> = { plain: "dot", undecided: "hatched", insignificant: "hatched", unconverged: "hollow", none: "void" };
  return statuses(reading).map((s) => ({ look: looks[s] ?? usual[s], text: statusWords(s, reading) }));
}

function marksOf(marks: Mark[]): HTMLElement {
  return h("div", { class: "ts-keys" }, ...marks.map((m) => h("span", { class: "ts-key" }, h("i", { class: `ts-${m.look}`, style: m.colour && `color: ${m.colour}` }), m.text)));
}

/** The marks alone, for views whose values are along an axis. */
export function showMarks(element: HTMLElement, marks: Mark[], indent: number): void {
  const says = JSON.stringify([marks, indent]);
  if (shown.get(element) === says) return;
  shown.set(element, says);
  element.replaceChildren(markLegend(marks, indent));
}

function markLegend(marks: Mark[], indent: number): HTMLElement {
  const box = h("div", { class: "ts-legend ts-flat" }, marksOf(marks));
  box.style.marginLeft = `${indent}px`;
  box.hidden = !marks.length;
  return box;
}

/** Put the key of a scale into an element; it is only rebuilt when it says something else. */
export function showLegend(element: HTMLElement, scale: ColourScale, label: string, marks: Mark[], indent: number, width = 190, reference?: number, placed?: [number, string][]): void {
  const says = JSON.stringify([scale.domain, gradient(scale, 3), label, marks, indent, width, reference, placed]);
  if (shown.get(element) === says) return;
  shown.set(element, says);
  element.replaceChildren(legend(scale, label, marks, indent, width, reference, placed));
}

/** Five numbers or so below a bar, fewer where they would run into each other. */
export function rampTicks(domain: [number, number], width: number): [number, string][] {
  const place = linear(domain, [0, width]);
  const clear = (ticks: [number, string][]) => ticks.every(([t, text], i) => !i || place(t) - place(ticks[i - 1][0]) > ((text.length + ticks[i - 1][1].length) / 2) * 6.2 + 4);
  const tried = [4, 3, 2].map((count) => roundTicks(domain, count));
  return tried.find(clear) ?? tried[2];
}

function legend(scale: ColourScale, label: string, marks: Mark[], indent: number, width: number, reference?: number, placed?: [number, string][]): HTMLElement {
  const [low, high] = scale.domain;
  const place = linear([low, high], [0, width]);
  const bar = h("div", { class: "ts-ramp-bar" });
  bar.style.background = gradient(scale);
  const ramp = h("div", { class: "ts-ramp" }, bar);
  ramp.style.width = `${width}px`;
  for (const [t, text] of placed ?? rampTicks([low, high], width)) {
    const tick = h("span", { class: "ts-ramp-tick" }, text);
    tick.style.left = `${place(t)}px`;
    ramp.append(tick);
  }
  if (reference !== undefined && reference >= low && reference <= high) {
    const tick = h("span", { class: "ts-ramp-null" }, "null");
    tick.style.left = `${place(reference)}px`;
    ramp.append(tick);
    ramp.style.marginTop = "12px";
  }
  const box = h("div", { class: "ts-legend" }, h("div", {}, ramp, h("div", {}, label)), marksOf(marks));
  box.style.marginLeft = `${Math.max(10, indent)}px`;
  return box;
}

export const withUnits = (name: string, units: string): string => {
  if (!units || units === "1") return name;
  return name.endsWith(")") ? `${name}, ${units}` : `${name} (${units})`;
};

/** What stands along an axis: its coordinate by the name that it gives itself. */
export function axisName(cube: Cube, dim: string): string {
  return cube.coords[dim]?.attrs?.long_name ?? dim.replaceAll("_", " ");
}

export const axisLabel = (cube: Cube, dim: string): string => withUnits(axisName(cube, dim), cube.coords[dim]?.attrs?.units ?? "");

/** The null, where it is one for all. */
export function commonNull({ reference }: Reading): number | undefined {
  if (!reference?.length) return undefined;
  const [low, high] = extent(reference);
  return high - low <= 0.1 * Math.abs(high) ? (low + high) / 2 : undefined;
}

export const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
