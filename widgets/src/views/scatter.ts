// Scatter: any variable against any other that lives on the same dimensions, or on some of them. A brush selects several.
import { airy, type Frame, level, roundTicks, upright } from "../core/axes";
import { sheet } from "../core/canvas";
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { picker, setText } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { sentence, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { chosen } from "../core/places";
import { linear, type Scale } from "../core/scale";
import { along, choice } from "../core/select";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { broadcast, pointAt, pointDims, selecting } from "./points";
import { unravelled } from "./ranked";

const HEIGHT = 320;
/** Whiskers on more points than this hide them. */
const WHISKERS = 80;

export const scatter: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const names: string[] = options.variables;
  const canvas = sheet("points", "application");
  stage.body.append(canvas.element);
  const chooseX = picker("x axis", (name) => stage.change("x", name));
  const chooseY = picker("y axis", (name) => {
    stage.model.set("variable", name);
    stage.model.save_changes();
  });
  stage.tools.append(chooseY.element, chooseX.element);
  let [xs, ys]: [Float64Array, Float64Array] = [new Float64Array(), new Float64Array()];
  let [px, py]: [Float64Array, Float64Array] = [xs, ys];
  let order: number[] = [];
  let readings: [Reading, Reading];
  let dims: string[] = [];
  let shape: number[] = [];
  let brush: { x0: number; y0: number; x1: number; y1: number } | null = null;
  let made: unknown[] = [];
  let [x, y]: [Scale, Scale] = [linear([0, 1], [0, 1]), linear([0, 1], [1, 0])];

  const xName = () => stage.setting<string>("x", options.x);
  const place = (i: number) => Object.fromEntries(unravelled(i, shape).map((k, d) => [dims[d], labels(cube, dims[d])[k]]));
  const flatIn = (reading: Reading, i: number) => {
    const index = unravelled(i, shape);
    return reading.axes.reduce((flat, d, a) => flat * reading.shape[a] + index[dims.indexOf(d)], 0);
  };
  hands<number>(stage, {
    element: canvas.element,
    at: (a, b) => (brush ? null : pointAt(px, py, a, b, 10)),
    place,
    choose: (i, add) => choice(cube, dims, unravelled(i, shape), focus, add),
    describe: (i) => [
      sentence(Object.entries(place(i)).map(([d, v]) => `${d.replaceAll("_", " ")} ${v}`).join(" · ")),
      ...readings.flatMap((r) => describe(r, flatIn(r, i))),
    ],
    selected: () => held(chosen(cube, dims, focus.cursor, focus.places))[0] ?? null,
    move(from, name) {
      const at = stepped(from === null ? null : order.indexOf(from), name === "ArrowUp" ? "ArrowRight" : name === "ArrowDown" ? "ArrowLeft" : name, order.length);
      return at === undefined || at === null ? at : order[at];
    },
    dims: () => dims,
  });
  /** The points that a selection holds. */
  const held = (test: ((index: number[]) => boolean) | null): number[] => (test ? order.filter((i) => test(unravelled(i, shape))) : []);

  canvas.element.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || pointAt(px, py, e.offsetX, e.offsetY, 10) !== null) return;
    canvas.element.setPointerCapture(e.pointerId);
    brush = { x0: e.offsetX, y0: e.offsetY, x1: e.offsetX, y1: e.offsetY };
  });
  canvas.element.addEventListener("pointermove", (e) => {
    if (!brush) return;
    [brush.x1, brush.y1] = [e.offsetX, e.offsetY];
    drawn.draw();
  });
  canvas.element.addEventListener("pointerup", () => {
    if (!brush) return;
    const { x0, y0, x1, y1 } = brush;
    brush = null;
    if (Math.hypot(x1 - x0, y1 - y0) < 5) return drawn.draw();
    const within = (v: number, a: number, b: number) => v >= Math.min(a, b) && v <= Math.max(a, b);
    const picked = order.filter((i) => within(px[i], x0, x1) && within(py[i], y0, y1));
    if (!picked.length) return drawn.draw();
    const { patch, places } = selecting(cube, dims, shape, picked);
    const { patch: whole, bound } = along(cube, patch);
    focus.set(whole, bound, places);
    stage.say(`Selected ${picked.length} points`);
  });
  canvas.element.addEventListener("pointercancel", () => (brush = null));

  const read = (variable: Variable) => stage.measure(variable, variable.dims.filter((d) => dims.includes(d)));
  const joined = (reading: Reading) => (reading.axes.join() === dims.join() ? reading.values : broadcast(reading.values, reading.axes, dims, shape));

  const drawn = {
    draw() {
      const [vx, vy] = [cube.variables[xName()], stage.variable()];
      const fits = (a: Variable, b: Variable) => a.dims.every((d) => b.dims.includes(d)) || b.dims.every((d) => a.dims.includes(d));
      chooseY.show(names.map((n) => ({ value: n, text: `y: ${cube.variables[n].longName}` })), vy.name);
      chooseX.show(names.filter((n) => fits(cube.variables[n], vy)).map((n) => ({ value: n, text: `x: ${cube.variables[n].longName}` })), vx.name);
      if (!fits(vx, vy)) return stage.change("x", names.find((n) => fits(cube.variables[n], vy)) ?? vy.name);
      dims = pointDims(vx, vy);
      shape = dims.map((d) => cube.dims[d]);
      readings = [read(vx), read(vy)];
      const signature = [readings[0].values, readings[1].values, dims.join()];
      if (signature.some((v, i) => v !== made[i])) {
        made = signature;
        [xs, ys] = [joined(readings[0]), joined(readings[1])];
        order = [...xs.keys()].filter((i) => Number.isFinite(xs[i]) && Number.isFinite(ys[i])).sort((a, b) => xs[a] - xs[b]);
      }
      setText(stage.title, options.title || `${sentence(vy.longName)} against ${vx.longName}`);
      const missing = xs.length - order.length;
      const test = chosen(cube, dims, focus.cursor, focus.places);
      const selectedNow = test !== null;
      const picked = held(test);
      const notes = [...new Set([...readings[0].notes, ...readings[1].notes])];
      setText(stage.subtitle, [...notes, `${order.length.toLocaleString("en")} points`, ...(missing ? [`${missing} without a value`] : []), ...(picked.length > 1 ? [`${picked.length} selected`] : [])].join(" · "));
      canvas.element.setAttribute("aria-label", `${vy.longName} against ${vx.longName}, ${order.length} points; arrows move along x, Shift adds, drag to select several, Escape clears`);

      const width = stage.width();
      const box: Frame = { left: 62, top: 8, right: width - 14, bottom: HEIGHT - 38 };
      const few = order.length <= WHISKERS;
      const [dx, dy] = [xs, ys].map((values, axis) => {
        const { low, high } = readings[axis];
        return airy(extent([...order.map((i) => values[i]), ...(few && low && high ? [...low, ...high] : [])]));
      });
      [x, y] = [linear(dx, [box.left + 6, box.right - 6]), linear(dy, [box.bottom - 6, box.top + 6])];
      px = xs.map((v, i) => (Number.isFinite(v) && Number.isFinite(ys[i]) ? x(v) : NaN));
      py = ys.map((v) => (Number.isFinite(v) ? y(v) : NaN));
      const c = canvas.begin(width, HEIGHT);
      if (!c) return;
      const { theme } = stage;
      upright(c, theme, box, { scale: y, ticks: roundTicks(dy, 5), label: withUnits(vy.longName, vy.units) });
      level(c, theme, box, { scale: x, ticks: roundTicks(dx, Math.max(2, Math.min(7, (box.right - box.left) / 64))), label: withUnits(vx.longName, vx.units) });
      const colour = (theme.dark ? LINES_DARK : LINES_LIGHT)[0];
      const radius = order.length > 4000 ? 1.4 : order.length > 500 ? 2.2 : 3.6;
      const whiskers = few ? order : picked.slice(0, WHISKERS);
      c.strokeStyle = theme.quiet;
      c.lineWidth = 0.8;
      c.globalAlpha = 0.6;
      for (const i of whiskers) arms(c, i);
      c.fillStyle = colour;
      c.globalAlpha = selectedNow ? 0.3 : order.length > 2000 ? 0.45 : 0.8;
      const hollow: number[] = [];
      for (const i of order) {
        c.beginPath();
        c.arc(px[i], py[i], radius, 0, 7);
        if (readings.some((r) => r.status(flatIn(r, i)) !== "plain")) hollow.push(i);
        else c.fill();
      }
      c.strokeStyle = colour;
      c.lineWidth = 1.2;
      for (const i of hollow) ring(c, i, radius);
      c.globalAlpha = 1;
      for (const i of picked) {
        c.beginPath();
        c.arc(px[i], py[i], radius + 0.8, 0, 7);
        c.fillStyle = hollow.includes(i) ? theme.paper : colour;
        c.fill();
        c.strokeStyle = theme.ink;
        c.lineWidth = 1.4;
        c.stroke();
      }
      c.strokeStyle = theme.ink;
      c.lineWidth = 1.2;
      for (const i of held(chosen(cube, dims, focus.hover)).slice(0, 400)) ring(c, i, radius + 3);
      if (brush) {
        c.fillStyle = theme.accent;
        c.globalAlpha = 0.12;
        c.fillRect(brush.x0, brush.y0, brush.x1 - brush.x0, brush.y1 - brush.y0);
        c.globalAlpha = 1;
        c.strokeStyle = theme.accent;
        c.strokeRect(brush.x0, brush.y0, brush.x1 - brush.x0, brush.y1 - brush.y0);
      }
    },
  };
  const ring = (c: CanvasRenderingContext2D, i: number, radius: number) => {
    c.beginPath();
    c.arc(px[i], py[i], radius, 0, 7);
    c.stroke();
  };
  const arms = (c: CanvasRenderingContext2D, i: number) => {
    readings.forEach(({ low, high }, axis) => {
      if (!low || !high) return;
      const k = flatIn(readings[axis], i);
      const [a, b] = axis ? [y(low[k]), y(high[k])] : [x(low[k]), x(high[k])];
      if (!Number.isFinite(a) || !Number.isFinite(b)) return;
      c.beginPath();
      c.moveTo(axis ? px[i] : a, axis ? a : py[i]);
      c.lineTo(axis ? px[i] : b, axis ? b : py[i]);
      c.stroke();
    });
  };
  return drawn;
};
scatter.basis = 380;
scatter.most = 720;
