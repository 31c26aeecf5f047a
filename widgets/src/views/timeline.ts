// Timeline: one line per head over training, and a scrubber that moves everyone's checkpoint.
import { sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { labels } from "../core/cube";
import { h, iconButton, setIcon, setText } from "../core/dom";
import { sentence, withUnits } from "../core/legend";
import { chosen } from "../core/places";
import { indicesAt } from "../core/rules";
import { choice } from "../core/select";
import { linear, numberText, type Scale, timeScale, type TimeScale } from "../core/scale";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { type Line, lineAt, linesOf, shortName } from "./lines";
import { BOTTOM, HEIGHT, LEFT, MOST, plot, RIGHT, TOP } from "./timeline-plot";

export const timeline: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const x: string = options.x;
  const steps = labels(cube, x);
  const canvas = sheet("timeline", "slider");
  const hint = h("div", { class: "ts-sub" });
  stage.body.append(canvas.element, hint);
  let lines: Line[] = [];
  let notes: string[] = [];
  let time: TimeScale = timeScale(steps.map(Number), [0, 1]);
  let value: Scale = linear([0, 1], [1, 0]);
  let over: Line | null = null;
  let dragging: { moved: boolean; line: Line | null; x: number } | null = null;
  let playing = 0;

  const choose = variableChoice(stage);
  const play = iconButton("play", "play through the checkpoints", () => (playing ? stop() : start()));
  stage.tools.append(play);
  stage.signal.addEventListener("abort", () => stop());

  const current = (): number => indicesAt(cube, x, focus.cursor)?.[0] ?? steps.length - 1;
  const go = (i: number) => {
    const step = steps[Math.max(0, Math.min(steps.length - 1, i))];
    focus.set({ [x]: step });
    stage.say(`${x} ${step}`);
  };
  const start = () => {
    if (current() === steps.length - 1) go(0);
    setIcon(play, "pause", "pause");
    playing = window.setInterval(() => (current() >= steps.length - 1 ? stop() : go(current() + 1)), Math.max(60, Math.min(700, 6000 / steps.length)));
  };
  const stop = () => {
    window.clearInterval(playing);
    playing = 0;
    setIcon(play, "play", "play through the checkpoints");
  };

  const name = (line: Line): string => line.place.map(([dim, v]) => `${dim} ${v}`).join(" · ") || "all";
  const short = (line: Line): string => shortName(line.place);
  const isSelected = (line: Line): boolean => chosen(cube, line.place.map(([d]) => d), focus.cursor, focus.places)?.(line.index) ?? false;
  const isHovered = (line: Line): boolean => line.place.length > 0 && line.place.every(([d, v]) => focus.hover[d] === v);

  const nearX = (px: number): boolean => Math.abs(px - time.at(current())) <= 7;
  const find = (px: number, py: number): Line | null => lineAt(lines, (i) => time.at(i), value, px, py, 7);

  const hover = (e: PointerEvent) => {
    const inside = e.offsetX >= LEFT - 8 && e.offsetY >= 0;
    over = inside && !nearX(e.offsetX) ? find(e.offsetX, e.offsetY) : null;
    canvas.element.style.cursor = over ? "pointer" : nearX(e.offsetX) ? "ew-resize" : "default";
    focus.point(over ? Object.fromEntries(over.place) : {});
    const i = time.index(e.offsetX);
    const k = over ? lines.indexOf(over) : -1;
    const words = () => [sentence(name(lines[k])), `${x} ${steps[i]}: ${numberText(lines[k].values[i])}`, ...intervalOf(lines[k], i)];
    stage.tip(k < 0 ? null : words, { element: canvas.element, x: e.offsetX, y: e.offsetY });
  };
  const intervalOf = (line: Line, i: number) => (line.low && line.high ? [`interval ${numberText(line.low[i])} to ${numberText(line.high[i])}`] : []);

  canvas.element.addEventListener("pointerdown", (e) => {
    if (e.button !== 0) return;
    stop();
    canvas.element.setPointerCapture(e.pointerId);
    const grabbed = nearX(e.offsetX) || e.offsetY < TOP;
    dragging = { moved: grabbed, line: grabbed ? null : find(e.offsetX, e.offsetY), x: e.offsetX };
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
    const to: Record<string, number> = { ArrowLeft: current() - 1, ArrowDown: current() - 1, ArrowRight: current() + 1, ArrowUp: current() + 1, Home: 0, End: steps.length - 1 };
    if (e.key in to) go(to[e.key]);
    else if (e.key === " ") playing ? stop() : start();
    else if (e.key === "Enter") stage.say(`${x} ${steps[current()]}: ${lines.filter(isSelected).map((l) => `${name(l)} ${numberText(l.values[current()])}`).join(", ")}`);
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

  const drawn = {
    draw() {
      const variable = stage.variable();
      const read = linesOf(cube, variable, x, focus.cursor, options.reduce, options.companions?.[variable.name] ?? {});
      ({ lines, notes } = read);
      const width = stage.width();
      time = timeScale(steps.map(Number), [LEFT + 6, width - RIGHT - 6]);
      const selected = lines.filter(isSelected);
      const [low, high] = extent(lines.flatMap((l) => Array.from(l.values)));
      const floor = low >= 0 && low < 0.6 * high ? 0 : low;
      const room = (high - floor || 1) * 0.06;
      value = linear([floor === 0 ? 0 : floor - room, high + room], [HEIGHT - BOTTOM, TOP]);

      setText(stage.title, options.title || `${sentence(variable.longName)} over training`);
      const aside = selected.length > MOST ? [`the first ${MOST} of ${selected.length} selected are coloured`] : [];
      setText(stage.subtitle, [`${x} ${steps[current()]}`, ...notes, ...aside].join(" · "));
      setText(hint, selected.length || !lines[0]?.place.length ? "" : `click a line to select its ${lines[0].place.map(([d]) => d).join(" and ")}; drag to move the ${x}`);
      hint.hidden = !hint.textContent;
      choose.show();
      const aria: Record<string, string> = {
        "aria-label": `${variable.longName} over ${x}; left and right move the ${x}, Escape clears`, "aria-valuemin": "0",
        "aria-valuemax": String(steps.length - 1), "aria-valuenow": String(current()), "aria-valuetext": `${x} ${steps[current()]}`,
      };
      for (const [k, v] of Object.entries(aria)) canvas.element.setAttribute(k, v);

      const hovered = lines.filter((l) => isHovered(l) && !selected.includes(l));
      const c = canvas.begin(width, HEIGHT);
      if (!c) return;
      plot(c, {
        theme: stage.theme, width, steps, time, value, lines, selected, hovered, here: current(), name: short,
        label: withUnits(axisName(x), [cube.variables[x]?.units, time.words].filter(Boolean).join(", ")),
        upright: withUnits(variable.longName, variable.units),
      });
    },
  };
  return drawn;
};
timeline.basis = 460;
timeline.most = 1600;

const axisName = (x: string): string => (x === "checkpoint" ? "checkpoint, training step" : x === "step" ? "training step" : x.replaceAll("_", " "));
