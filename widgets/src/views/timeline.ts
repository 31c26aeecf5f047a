// Timeline: one line per head over training, and a scrubber that moves everyone's checkpoint; or a curve over any other number.
import { decades, powerTicks, roundTicks } from "../core/axes";
import { sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { labels, type Variable } from "../core/cube";
import { h, iconButton, press, setIcon, setText, wordButton } from "../core/dom";
import { axisLabel, type Mark, sentence, showMarks, withUnits } from "../core/legend";
import { chosen } from "../core/places";
import { indicesAt, TIME } from "../core/rules";
import { choice } from "../core/select";
import { linear, logarithmic, numberText, type Scale, timeScale, type TimeScale, valueText } from "../core/scale";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { commonName, type Line, lineAt, linesOf, RUNS, shortName } from "./lines";
import { BOTTOM, coloursOf, DASHES, HEIGHT, leftOf, MOST, plot, rightOf, TOP } from "./timeline-plot";

export const timeline: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const x: string = options.x;
  const steps = labels(cube, x);
  const noun = x.replaceAll("_", " ");
  // a number such as a sparsity does not pass: there is nothing to play, and no latest
  const passing = TIME.has(x);
  const together: string[] = options.together ?? [];
  /** The dimension whose values are the names of the lines, each with a colour. */
  const apart: string | undefined = options.apart;
  const canvas = sheet("timeline", "slider");
  const key = h("div");
  const hint = h("div", { class: "ts-sub" });
  stage.body.append(canvas.element, key, hint);
  let lines: Line[] = [];
  let notes: string[] = [];
  let left = 0;
  let time: TimeScale = timeScale(steps.map(Number), [0, 1]);
  let value: Scale = linear([0, 1], [1, 0]);
  let over: Line | null = null;
  let dragging: { moved: boolean; line: Line | null; x: number } | null = null;
  let playing = 0;

  const choose = variableChoice(stage);
  const play = iconButton("play", "play through the checkpoints", () => (playing ? stop() : start()));
  const all = wordButton("together", "several variables in one picture", () => stage.change("together", !stage.setting("together", true)));
  const log = wordButton("log", "logarithmic scale", () => stage.change("log", !stage.setting("log", false)));
  stage.tools.append(...(together.length ? [all] : []), log, ...(passing ? [play] : []));
  stage.signal.addEventListener("abort", () => stop());

  const joined = (): boolean => together.length > 0 && stage.setting("together", true);
  const variables = (): Variable[] => (joined() ? together.map((n) => cube.variables[n]) : [stage.variable()]);
  /** Lines that are not one among many: none of them has to be chosen to be seen. */
  const standing = (): boolean => apart !== undefined || lines.every((l) => !l.place.length);
  const nameOf = (line: Line): string => (apart ? line.place.map(([, v]) => valueText(v)).join(", ") : line.variable.longName);
  const shown = (): Line[] => (standing() ? lines : lines.filter(isSelected));

  const current = (): number | null => indicesAt(cube, x, focus.cursor)?.[0] ?? (passing ? steps.length - 1 : null);
  const where = (i: number): string => `${noun} ${valueText(steps[i])}`;
  const go = (i: number) => {
    const at = Math.max(0, Math.min(steps.length - 1, i));
    focus.set({ [x]: steps[at] });
    stage.say(where(at));
  };
  const start = () => {
    if (current() === steps.length - 1) go(0);
    setIcon(play, "pause", "pause");
    playing = window.setInterval(() => (current()! >= steps.length - 1 ? stop() : go(current()! + 1)), Math.max(60, Math.min(700, 6000 / steps.length)));
  };
  const stop = () => {
    window.clearInterval(playing);
    playing = 0;
    setIcon(play, "play", "play through the checkpoints");
  };

  const name = (line: Line): string => line.place.map(([dim, v]) => `${dim} ${valueText(v)}`).join(" · ") || "all";
  const short = (line: Line): string => shortName(line.place);
  const isSelected = (line: Line): boolean => chosen(cube, line.place.map(([d]) => d), focus.cursor, focus.places)?.(line.index) ?? false;
  const isHovered = (line: Line): boolean => line.place.length > 0 && line.place.every(([d, v]) => focus.hover[d] === v);

  const nearX = (px: number): boolean => current() !== null && Math.abs(px - time.at(current()!)) <= 7;
  const find = (px: number, py: number): Line | null => lineAt(lines, (i) => time.at(i), value, px, py, 7);

  const hover = (e: PointerEvent) => {
    const inside = e.offsetX >= left - 8 && e.offsetY >= 0;
    over = inside && !nearX(e.offsetX) && !apart ? find(e.offsetX, e.offsetY) : null;
    canvas.element.style.cursor = over ? "pointer" : nearX(e.offsetX) ? "ew-resize" : "default";
    focus.point(over ? Object.fromEntries(over.place) : {});
    const i = time.index(e.offsetX);
    const k = over ? lines.indexOf(over) : -1;
    const one = () => [sentence(name(lines[k])), `${where(i)}: ${numberText(lines[k].values[i])}`, ...intervalOf(lines[k], i)];
    const every = () => [sentence(where(i)), ...lines.flatMap((l) => Number.isNaN(l.values[i]) ? [] : [withUnits(`${nameOf(l)}: ${numberText(l.values[i])}`, l.variable.units), ...intervalOf(l, i)])];
    stage.tip(standing() ? (inside ? every : null) : over ? one : null, { element: canvas.element, x: e.offsetX, y: e.offsetY });
  };
  const intervalWords = ({ variable }: Line) => (!options.companions?.[variable.name]?.low && variable.dims.includes(RUNS) ? `smallest to largest of ${cube.dims[RUNS]} ${RUNS}s` : (variable.words.interval ?? "interval"));
  const intervalOf = (line: Line, i: number) => (line.low && line.high && !Number.isNaN(line.low[i]) ? [`${intervalWords(line)}: ${numberText(line.low[i])} to ${numberText(line.high[i])}`] : []);

  canvas.element.addEventListener("pointerdown", (e) => {
    if (e.button !== 0) return;
    stop();
    canvas.element.setPointerCapture(e.pointerId);
    const grabbed = nearX(e.offsetX) || e.offsetY < TOP;
    dragging = { moved: grabbed, line: grabbed || apart ? null : find(e.offsetX, e.offsetY), x: e.offsetX };
    if (grabbed) go(time.index(e.offsetX));
  });
  canvas.element.addEventListener("pointermove", (e) => {
    if (!dragging) return hover(e);
    if (Math.abs(e.offsetX - dragging.x) > 3) dragging.moved = true;
    if (dragging.moved) {
      stage.tip(null);
      go(time.index(e.offsetX));
    }
  });
  canvas.element.addEventListener("pointerup", (e) => {
    if (dragging && !dragging.moved) {
      if (dragging.line) pickLine(dragging.line, e.shiftKey || e.ctrlKey || e.metaKey);
      else go(time.index(e.offsetX));
    }
    dragging = null;
  });
  canvas.element.addEventListener("pointercancel", () => (dragging = null));
  canvas.element.addEventListener("pointerleave", () => {
    if (dragging) return;
    over = null;
    focus.point({});
    stage.tip(null);
  });
  canvas.element.addEventListener("keydown", (e) => {
    const at = current();
    const [back, forth] = at === null ? [0, 0] : [at - 1, at + 1];
    const to: Record<string, number> = { ArrowLeft: back, ArrowDown: back, ArrowRight: forth, ArrowUp: forth, Home: 0, End: steps.length - 1 };
    if (e.key in to) go(to[e.key]);
    else if (e.key === " " && passing) playing ? stop() : start();
    else if (e.key === "Enter") at === null ? go(0) : stage.say(`${where(at)}: ${shown().map((l) => `${standing() ? nameOf(l) : name(l)} ${numberText(l.values[at])}`).join(", ")}`);
    else if (e.key === "Escape") focus.set(Object.fromEntries([x, ...(lines[0]?.place.map(([d]) => d) ?? [])].map((d) => [d, null])));
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  const pickLine = (line: Line, add: boolean) => {
    if (!line.place.length) return;
    const { patch, bound, places } = choice(cube, line.place.map(([d]) => d), line.index, focus, add);
    focus.set(patch, bound, places);
    stage.say(`Selected ${name(line)}`);
  };

  return {
    draw() {
      const vs = variables();
      const read = vs.map((v) => linesOf(cube, v, x, focus.cursor, options.reduce, options.companions?.[v.name] ?? {}, joined(), apart && RUNS));
      lines = read.flatMap((r) => r.lines);
      // its difference from itself says nothing
      if (apart && vs[0].words.signed) lines = lines.map((l) => (l.values.every((v) => v === 0 || Number.isNaN(v)) ? { ...l, values: l.values.map(() => NaN), low: undefined, high: undefined } : l));
      notes = [...new Set([...read.flatMap((r) => r.notes), ...(apart ? vs.flatMap((v) => v.words.signed ?? []) : [])])];
      const width = stage.width();
      const selected = shown();
      const logged = stage.setting("log", false);
      const values = lines.flatMap((l) => [...l.values]);
      const reach = [...values, ...(standing() ? lines.flatMap((l) => [...(l.low ?? []), ...(l.high ?? [])]) : [])];
      const above = values.filter((v) => v > 0);
      const possible = logged && above.length > 0;
      const domain = possible ? decades([extent(above)[0], extent(reach)[1]]) : roomy(extent(reach));
      const ticks = possible ? powerTicks(domain) : roundTicks(domain, 5);
      left = leftOf(ticks);
      time = timeScale(steps.map(Number), [left + 6, width - rightOf(standing()) - 6], passing ? undefined : 0);
      value = (possible ? logarithmic : linear)(domain, [HEIGHT - BOTTOM, TOP]);

      const longName = commonName(vs.map((v) => v.longName));
      setText(stage.title, options.title || `${sentence(longName)} ${passing ? "over training" : `by ${noun}`}`);
      const aside = selected.length > MOST ? [`the first ${MOST} of ${selected.length} selected are coloured`] : [];
      const lost = possible && values.some((v) => v <= 0) ? ["what is not above 0 has no place on the logarithmic scale"] : [];
      const here = current();
      setText(stage.subtitle, [...(here === null ? [] : [where(here)]), ...notes, ...aside, ...lost].join(" · "));
      const dims = lines[0]?.place.map(([d]) => d) ?? [];
      const ways = passing ? `drag to move the ${noun}` : `click beside the lines to pick a ${noun}`;
      setText(hint, apart || selected.length || !dims.length ? "" : `click a line to select its ${dims.join(" and ")}; ${ways}`);
      hint.hidden = !hint.textContent;
      choose.show(joined() ? [] : undefined);
      press(all, joined());
      press(log, logged);
      const colours = coloursOf(stage.theme.dark, standing());
      const marks = joined() || apart ? lines.map((l, i): Mark => ({ look: DASHES[i % DASHES.length].look, colour: colours[i], text: nameOf(l) })) : [];
      const named = marks.filter((_, i) => !apart || !lines[i].values.every(Number.isNaN));
      const bands = standing() ? [...new Set(lines.filter((l) => l.low && l.high).map(intervalWords))] : [];
      showMarks(key, [...named, ...bands.map((text): Mark => ({ look: "band", text }))], left);
      const aria: Record<string, string> = {
        "aria-label": `${longName} over ${noun}; left and right move the ${noun}, Escape clears`, "aria-valuemin": "0",
        "aria-valuemax": String(steps.length - 1), "aria-valuenow": String(here ?? 0), "aria-valuetext": here === null ? `no ${noun} selected` : where(here),
      };
      for (const [k, v] of Object.entries(aria)) canvas.element.setAttribute(k, v);

      const hovered = lines.filter((l) => isHovered(l) && !selected.includes(l));
      const c = canvas.begin(width, HEIGHT);
      if (!c) return;
      plot(c, {
        theme: stage.theme, width, left, steps, time, value, lines, selected, hovered, joined: standing(), here, name: short,
        ticks,
        label: withUnits(passing ? PASSING[x] : axisLabel(cube, x), time.words), upright: uprightOf(longName, vs[0].units),
      });
    },
  };
};
timeline.basis = 460;
timeline.most = 1600;

const PASSING: Record<string, string> = { checkpoint: "checkpoint, training step", step: "training step" };

/** What stands along the values: where there is no room for the name, which is in the title, their unit. */
const uprightOf = (name: string, units: string): string => (withUnits(name, units).length > 36 && units.length > 1 ? units : withUnits(name, units));

/** With some air, from 0 where the values come near it. */
function roomy([low, high]: [number, number]): [number, number] {
  const floor = low >= 0 && low < 0.6 * high ? 0 : low;
  const room = (high - floor || 1) * 0.06;
  return [floor === 0 ? 0 : floor - room, high + room];
}
