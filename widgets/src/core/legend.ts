// The key of a colour scale: a bar with ticks, its name and unit, and what the marks mean.
import { type ColourScale, gradient } from "./colour";
import { h } from "./dom";
import { linear, tickStep, ticks, tickText } from "./scale";

export interface Mark {
  look: "ring" | "hatched";
  text: string;
}

export function legend(scale: ColourScale, label: string, marks: Mark[], indent: number, width = 190): HTMLElement {
  const [low, high] = scale.domain;
  const place = linear([low, high], [0, width]);
  const step = tickStep(low, high, 4);
  const bar = h("div", { class: "ts-ramp-bar" });
  bar.style.background = gradient(scale);
  const ramp = h("div", { class: "ts-ramp" }, bar);
  ramp.style.width = `${width}px`;
  for (const t of ticks(low, high, 4)) {
    const tick = h("span", { class: "ts-ramp-tick" }, tickText(t, step));
    tick.style.left = `${place(t)}px`;
    ramp.append(tick);
  }
  const keys = marks.map((m) => h("span", { class: "ts-key" }, h("i", { class: `ts-${m.look}` }), m.text));
  const box = h("div", { class: "ts-legend" }, h("div", {}, ramp, h("div", {}, label)), h("div", { class: "ts-keys" }, ...keys));
  box.style.marginLeft = `${indent}px`;
  return box;
}

export const withUnits = (name: string, units: string): string => {
  if (!units || units === "1") return name;
  return name.endsWith(")") ? `${name}, ${units}` : `${name} (${units})`;
};
export const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
