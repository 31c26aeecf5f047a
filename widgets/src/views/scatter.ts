// Scatter: any variable against any other that lives on the same dimensions, or on some of them. A brush selects several.
import { airy, type Frame, level, roundTicks, upright } from "../core/axes";
import { sheet } from "../core/canvas";
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { picker, setText, shortened, visibleToken } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { sentence, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { chosen } from "../core/places";
import { indicesAt } from "../core/rules";
import { linear, type Scale } from "../core/scale";
import { along, choice } from "../core/select";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import type { Cursor, Place } from "../core/types";
import { broadcast, pointAt, pointDims, selecting } from "./points";
import { unravelled } from "./ranked";

const HEIGHT = 320;
/** Whiskers on more points than this hide them. */
const WHISKERS = 80;
/** More points than this are small. */
const CROWD = 4000;

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
  let brushed = false;
  let made: unknown[] = [];
  let grounded: unknown[] = [];
  let picking: unknown[] = [];
  let layer: HTMLCanvasElement | null = null;
  let above: HTMLCanvasElement | null = null;
  let [x, y]: [Scale, Scale] = [linear([0, 1], [0, 1]), linear([0, 1], [1, 0])];

  const xName = () => stage.setting<string>("x", options.x);
  const place = (i: number) => Object.fromEntries(unravelled(i, shape).map((k, d) => [dims[d], labels(cube, dims[d])[k]]));
  const flatIn = (reading: Reading, i: number) => {
    const index = unravelled(i, shape);
    return reading.axes.reduce((flat, d, a) => flat * reading.shape[a] + index[dims.indexOf(d)], 0);
  };
  /** The text of a point, such as its token. */
  const told = (i: number): string[] => (options.asides ?? []).flatMap((name: string) => {
    const text = cube.variables[name];
    return text && text.dims.join() === dims.join() ? [`‘${shortened(visibleToken(String(text.values[i])), 60)}’`] : [];
  });
  hands<number>(stage, {
    element: canvas.element,
    at: (a, b) => (brush && Math.hypot(brush.x1 - brush.x0, brush.y1 - brush.y0) >= 5 ? null : pointAt(px, py, a, b, 10)),
    place,
    choose: (i, add) => choice(cube, dims, unravelled(i, shape), focus, add),
    describe: (i) => [
      ...told(i),
      sentence(Object.entries(place(i)).map(([d, v]) => `${d.replaceAll("_", " ")} ${v}`).join(" · ")),
      ...readings.flatMap((r) => describe(r, flatIn(r, i))),
    ],
    selected: () => held(focus.cursor, focus.places)[0] ?? null,
    move(from, name) {
      const at = stepped(from === null ? null : order.indexOf(from), name === "ArrowUp" ? "ArrowRight" : name === "ArrowDown" ? "ArrowLeft" : name, order.length);
      return at === undefined || at === null ? at : order[at];
    },
    dims: () => dims,
  });
  /** The points that a selection holds. */
  const held = (cursor: Cursor, places: Place[] = []): number[] => {
    const placed = (i: number) => Number.isFinite(xs[i]) && Number.isFinite(ys[i]);
    // along one dimension there is nothing to look through
    if (dims.length === 1) return (indicesAt(cube, dims[0], cursor) ?? []).filter(placed);
    const test = chosen(cube, dims, cursor, places);
    return test ? order.filter((i) => test(unravelled(i, shape))) : [];
  };

  canvas.element.addEventListener("pointerdown", (e) => {
    brushed = false;
    if (e.button !== 0) return;
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
    brushed = true;
    const within = (v: number, a: number, b: number) => v >= Math.min(a, b) && v <= Math.max(a, b);
    const picked = order.filter((i) => within(px[i], x0, x1) && within(py[i], y0, y1));
    if (!picked.length) return drawn.draw();
    const { patch, places } = selecting(cube, dims, shape, picked);
    const { patch: whole, bound } = along(cube, patch);
    focus.set(whole, bound, places);
    stage.say(`Selected ${picked.length.toLocaleString("en")} points`);
  });
  canvas.element.addEventListener("pointercancel", () => (brush = null));
  // where a brush ends there may be a point, which nobody clicked
  canvas.element.addEventListener("click", (e) => brushed && e.stopImmediatePropagation(), { capture: true });

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
      const picked = held(focus.cursor, focus.places);
      const notes = [...new Set([...readings[0].notes, ...readings[1].notes])];
      setText(stage.subtitle, [...notes, `${order.length.toLocaleString("en")} points`, ...(missing ? [`${missing.toLocaleString("en")} without a value`] : []), ...(picked.length > 1 ? [`${picked.length.toLocaleString("en")} selected`] : [])].join(" · "));
      canvas.element.setAttribute("aria-label", `${vy.longName} against ${vx.longName}, ${order.length} points; arrows move along x, Shift adds, drag to select several, Escape clears`);

      const width = stage.width();
      const c = canvas.begin(width, HEIGHT);
      const { theme } = stage;
      const ground = [...made, width, theme, selectedNow, window.devicePixelRatio];
      const fresh = changed(grounded, ground);
      if (fresh) [grounded, layer] = [ground, underneath(width, vx, vy, selectedNow)];
      // whoever points or brushes waits for none of this
      const shown = [focus.cursor, focus.places.length, readings[0].low, readings[1].low];
      if (fresh || changed(picking, shown)) [picking, above] = [shown, chosenOver(width, picked)];
      if (!c) return;
      for (const under of [layer, above]) if (under) c.drawImage(under, 0, 0, width, HEIGHT);
      c.strokeStyle = theme.ink;
      c.lineWidth = 1.2;
      for (const i of held(focus.hover).slice(0, 400)) ring(c, i, radius() + 3);
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
  const colour = () => (stage.theme.dark ? LINES_DARK : LINES_LIGHT)[0];
  const radius = () => (order.length > CROWD ? 1.4 : order.length > 500 ? 2.2 : 3.6);
  const doubtful = (i: number) => readings.some((r) => r.qualified && r.status(flatIn(r, i)) !== "plain");

  /** Axes and points, which stay as they are while someone points, brushes or selects. */
  function underneath(width: number, vx: Variable, vy: Variable, faint: boolean): HTMLCanvasElement | null {
    const box: Frame = { left: 62, top: 8, right: width - 14, bottom: HEIGHT - 38 };
    const few = order.length <= WHISKERS;
    const [dx, dy] = [xs, ys].map((values, axis) => {
      const { low, high } = readings[axis];
      return airy(extent([...order.map((i) => values[i]), ...(few && low && high ? [...low, ...high] : [])]));
    });
    [x, y] = [linear(dx, [box.left + 6, box.right - 6]), linear(dy, [box.bottom - 6, box.top + 6])];
    px = xs.map((v, i) => (Number.isFinite(v) && Number.isFinite(ys[i]) ? x(v) : NaN));
    py = ys.map((v) => (Number.isFinite(v) ? y(v) : NaN));
    const under = sheet("");
    const c = under.begin(width, HEIGHT);
    if (!c) return null;
    const { theme } = stage;
    upright(c, theme, box, { scale: y, ticks: roundTicks(dy, 5), label: withUnits(vy.longName, vy.units) });
    level(c, theme, box, { scale: x, ticks: roundTicks(dx, Math.max(2, Math.min(7, (box.right - box.left) / 64))), label: withUnits(vx.longName, vx.units) });
    c.strokeStyle = theme.quiet;
    c.lineWidth = 0.8;
    c.globalAlpha = 0.6;
    if (few) for (const i of order) arms(c, i);
    c.globalAlpha = faint ? 0.3 : order.length > 2000 ? 0.45 : 0.8;
    c.fillStyle = c.strokeStyle = colour();
    c.lineWidth = 1.2;
    const size = radius();
    for (const i of order) {
      if (doubtful(i)) ring(c, i, size);
      // a circle this small looks like a square, and takes ten times as long
      else if (order.length > CROWD) c.fillRect(px[i] - size, py[i] - size, 2 * size, 2 * size);
      else dot(c, i, size);
    }
    return under.element;
  }

  /** The points that are selected, on a sheet of their own. */
  function chosenOver(width: number, picked: number[]): HTMLCanvasElement | null {
    const over = sheet("");
    const c = picked.length ? over.begin(width, HEIGHT) : null;
    if (!c) return null;
    const { theme } = stage;
    c.strokeStyle = theme.quiet;
    c.lineWidth = 0.8;
    c.globalAlpha = 0.6;
    if (order.length > WHISKERS) for (const i of picked.slice(0, WHISKERS)) arms(c, i);
    c.globalAlpha = 1;
    c.strokeStyle = theme.ink;
    const size = radius();
    const square = (colour: string, half: number) => {
      c.fillStyle = colour;
      for (const i of picked) c.fillRect(px[i] - half, py[i] - half, 2 * half, 2 * half);
    };
    if (picked.length > CROWD) {
      square(theme.ink, size + 0.6);
      square(colour(), size);
      return over.element;
    }
    c.lineWidth = 1.4;
    for (const i of picked) {
      c.fillStyle = doubtful(i) ? theme.paper : colour();
      dot(c, i, size + 0.8);
      c.stroke();
    }
    return over.element;
  }

  const dot = (c: CanvasRenderingContext2D, i: number, size: number) => {
    c.beginPath();
    c.arc(px[i], py[i], size, 0, 7);
    c.fill();
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
const changed = (before: unknown[], now: unknown[]): boolean => now.length !== before.length || now.some((v, i) => v !== before[i]);

scatter.basis = 380;
scatter.most = 720;
