// Controls that many views have in their header: the variable, the sample.
import { h, iconButton, KEEP_KEYS, picker } from "./dom";
import { indicesAt, TIME, unmet } from "./rules";
import { valueText } from "./scale";
import { along } from "./select";
import { isPart, pooled } from "./slice";
import { labels } from "./cube";
import type { Stage } from "./stage";
import type { Value } from "./types";

/** A drop-down of the variables that this view can show. */
export function variableChoice(stage: Stage): { show(among?: string[]): void } {
  const names: string[] = stage.options.variables ?? [];
  const choose = picker("variable", (name) => {
    stage.model.set("variable", name);
    stage.model.save_changes();
  });
  stage.tools.append(choose.element);
  return { show: (among = names) => choose.show(among.map((n) => ({ value: n, text: stage.cube.variables[n].longName })), stage.variable().name) };
}

/** More values than this do not fit a drop-down. */
const FEW = 60;

/** Drop-downs for what a picture is sliced at and no other view has along an axis: the kind of a composition, a task, a model. */
export function sliceChoice(stage: Stage, axes: string[]): { show(): void; place(): Record<string, Value> } {
  const { cube, focus } = stage;
  const made = new Map<string, ReturnType<typeof picker>>();
  const dims = () => stage.variable().dims.filter((d) => !axes.includes(d) && !TIME.has(d) && !pooled(d) && !isPart(d) && cube.dims[d] > 1 && cube.dims[d] <= FEW);
  const at = (dim: string): Value | null => {
    const found = indicesAt(cube, dim, stage.cursor()) ?? [0];
    return found.length === 1 ? labels(cube, dim)[found[0]] : null;
  };
  return {
    show() {
      const shown = dims();
      for (const dim of shown) {
        if (made.has(dim)) continue;
        const noun = dim.replaceAll("_", " ");
        const list = picker(noun, (text) => {
          const { patch, bound } = along(cube, { [dim]: labels(cube, dim).find((v) => String(v) === text)! });
          focus.set(patch, bound);
        });
        made.set(dim, list);
        stage.tools.append(list.element);
      }
      for (const [dim, list] of made) {
        list.show(labels(cube, dim).map((v) => ({ value: String(v), text: `${dim.replaceAll("_", " ")} ${valueText(v)}` })), String(at(dim) ?? ""));
        // a comparison holds it
        list.element.hidden = !shown.includes(dim) || stage.cursor()[dim] !== focus.cursor[dim];
      }
    },
    place: () => Object.fromEntries(dims().flatMap((d) => (at(d) === null ? [] : [[d, at(d)!]]))),
  };
}

/** More samples than this do not fit a drop-down. */
const LISTED = 400;

/** Buttons and a list to walk through the samples of the Cube, or whatever else is one text a row. */
export function sampleChoice(stage: Stage, dim = "sample"): { seen(): number; preview(): boolean; show(missing?: boolean): void } {
  const { cube, focus } = stage;
  const samples = cube.dims[dim] ? labels(cube, dim) : [];
  const at = () => indicesAt(cube, dim, stage.cursor())?.[0] ?? 0;
  const go = (i: number) => {
    const { patch, bound } = along(cube, { [dim]: samples[i] });
    focus.set(patch, bound);
  };
  const step = (by: number) => go(Math.max(0, Math.min(samples.length - 1, at() + by)));
  const find = (text: string) => {
    const i = samples.map(String).indexOf(text);
    if (i >= 0) go(i);
    else stage.say(`There is no ${dim} ${text}`);
  };
  const back = iconButton("previous", `previous ${dim}`, () => step(-1));
  const forth = iconButton("next", `next ${dim}`, () => step(1));
  const list = picker(dim, find);
  const typed = h("input", { ...KEEP_KEYS, class: "ts-pick ts-typed", "aria-label": dim, title: `${dim}: type its id`, onchange: () => find(typed.value) });
  if (samples.length > 1) stage.tools.append(back, samples.length <= LISTED ? list.element : typed, forth);
  // a row of a table that the pointer is on shows its sample at once
  const hovered = () => (dim in focus.hover ? (indicesAt(cube, dim, focus.hover)?.[0] ?? null) : null);
  return {
    seen: () => hovered() ?? at(),
    // a sample that is not here leaves the first in its place, another row (a pair, a test sample) leaves none
    preview: () => hovered() !== null && (hovered() !== at() || (dim !== "sample" && unmet(cube, dim, stage.cursor()).length > 0)),
    show(missing = false) {
      const i = at();
      const shown = missing ? "" : String(samples[i]);
      if (samples.length <= LISTED) list.show(samples.map((s) => ({ value: String(s), text: String(s) })), shown);
      else if (document.activeElement !== typed) typed.value = shown;
      back.disabled = i === 0;
      forth.disabled = i === samples.length - 1;
    },
  };
}
