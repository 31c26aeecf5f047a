// Spectrum: eigenvalues in order, each with its residual; what is not converged is hollow.
import { airy, type Frame, level, roundTicks, upright } from "../core/axes";
import { sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels } from "../core/cube";
import { h, press, setText, wordButton } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { type Mark, showMarks, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { indicesAt } from "../core/rules";
import { linear, logarithmic, type Scale } from "../core/scale";
import { choice } from "../core/select";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";

const HEIGHT = 240;

export const spectrum: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const dim: string = options.by ?? "component";
  const values = labels(cube, dim);
  const canvas = sheet("spectrum", "application");
  const key = h("div");
  const variables = variableChoice(stage);
  const log = wordButton("log", "logarithmic scale", () => stage.change("log", !stage.setting("log", false)));
  stage.tools.append(log);
  stage.body.append(canvas.element, key);
  let reading: Reading;
  let x: Scale = linear([0, 1], [0, 1]);

  hands<number>(stage, {
    element: canvas.element,
    at(px) {
      const i = Math.round(x.invert(px));
      return i >= 0 && i < values.length && Math.abs(x(i) - px) < 14 ? i : null;
    },
    place: (i) => ({ [dim]: values[i] }),
    choose: (i, add) => choice(cube, [dim], [i], focus, add),
    describe: (i) => [sentence(`${dim.replaceAll("_", " ")} ${values[i]}`), ...describe(reading, i)],
    selected: () => indicesAt(cube, dim, focus.cursor)?.[0] ?? null,
    move: (from, name) => stepped(from, name, values.length),
    dims: () => [dim],
  });

  return {
    draw() {
      const variable = stage.variable();
      reading = stage.measure(variable, [dim]);
      const logged = stage.setting("log", false);
      press(log, logged);
      const size = (v: number) => (logged ? Math.abs(v) : v);
      const arms = (i: number): [number, number] => {
        const v = size(reading.values[i]);
        if (reading.low && reading.high) return [size(reading.low[i]), size(reading.high[i])];
        const r = reading.residual?.[i] ?? 0;
        return [v - r, v + r];
      };
      const ends = [...reading.values].flatMap((v, i) => (Number.isFinite(v) ? [size(v), ...arms(i)] : []));
      const positive = ends.filter((v) => v > 0);
      const possible = logged && positive.length > 0;
      // a residual may be larger than its value: the axis goes one decade below the smallest value
      const smallest = extent([...reading.values].map((v) => Math.abs(v)).filter((v) => v > 0))[0];
      const domain: [number, number] = possible ? [10 ** Math.floor(Math.log10(smallest)), 10 ** Math.ceil(Math.log10(Math.max(...positive)) + 1e-9)] : airy(extent([...ends, 0]));
      if (possible && domain[0] === domain[1]) domain[0] /= 10;

      setText(stage.title, options.title || sentence(variable.longName));
      const all = [`${values.length} ${dim.replaceAll("_", " ")}s`, ...(logged ? ["size on a logarithmic scale"] : [])];
      setText(stage.subtitle, [...reading.notes, ...all].join(" · "));
      variables.show();
      canvas.element.setAttribute("aria-label", `${variable.longName}, ${values.length} ${dim}s; left and right move, Escape clears`);
      const marks: Mark[] = statusMarks(reading);
      if (reading.residual || (reading.low && reading.high)) marks.unshift({ look: "whisker", text: reading.low ? "interval" : "± residual" });
      if (logged && reading.values.some((v) => v < 0)) marks.push({ look: "down", text: "negative" });
      showMarks(key, marks, 64);

      const width = stage.width();
      const box: Frame = { left: 64, top: 8, right: width - 12, bottom: HEIGHT - 38 };
      const c = canvas.begin(width, HEIGHT);
      x = linear([-0.5, values.length - 0.5], [box.left, box.right]);
      if (!c) return;
      const { theme } = stage;
      const scale: Scale = possible ? logarithmic(domain, [box.bottom, box.top]) : linear(domain, [box.bottom, box.top]);
      const decades = Math.round(Math.log10(domain[1] / domain[0]));
      const every = Math.max(1, Math.ceil(decades / 6));
      const powers = possible ? Array.from({ length: Math.floor(decades / every) + 1 }, (_, i): [number, string] => {
        const power = Math.round(Math.log10(domain[0])) + i * every;
        return [10 ** power, power >= -3 && power <= 4 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`.replace("-", "−")];
      }) : roundTicks(domain, 5);
      upright(c, theme, box, { scale, ticks: powers, label: withUnits(logged ? `size of ${variable.longName}` : variable.longName, variable.units) });
      const step = Math.max(1, Math.ceil(values.length / Math.max(2, (box.right - box.left) / 40)));
      level(c, theme, box, { scale: x, ticks: values.flatMap((v, i): [number, string][] => (i % step ? [] : [[i, String(v)]])), label: dim.replaceAll("_", " ") }, false);
      const colours = theme.dark ? LINES_DARK : LINES_LIGHT;
      const zero = possible ? box.bottom : scale(0);
      const chosen = indicesAt(cube, dim, focus.cursor) ?? [];
      const hovered = indicesAt(cube, dim, focus.hover) ?? [];
      const inside = (y: number) => Math.max(box.top, Math.min(box.bottom, y));
      for (let i = 0; i < values.length; i++) {
        const v = reading.values[i];
        if (Number.isNaN(v)) continue;
        const px = x(i);
        const py = Number.isFinite(v) ? inside(scale(size(v))) : v > 0 || logged ? box.top : box.bottom;
        const colour = v < 0 ? colours[0] : colours[1];
        c.strokeStyle = colour;
        c.lineWidth = 1.5;
        c.globalAlpha = 0.45;
        segment(c, px, zero, px, py);
        c.globalAlpha = 1;
        const [a, b] = arms(i);
        if (a !== b && Number.isFinite(a) && Number.isFinite(b)) {
          c.strokeStyle = theme.ink;
          c.lineWidth = 1;
          const [y0, y1] = [possible && a <= 0 ? box.bottom : inside(scale(a)), inside(scale(b))];
          for (const y of [y0, y1]) segment(c, px - 3, y, px + 3, y);
          segment(c, px, y0, px, y1);
        }
        const on = chosen.includes(i);
        const radius = on ? 5 : Math.max(1.8, Math.min(4, (box.right - box.left) / values.length / 3));
        c.beginPath();
        if (logged && v < 0) {
          c.moveTo(px - radius, py - radius);
          c.lineTo(px + radius, py - radius);
          c.lineTo(px, py + radius);
          c.closePath();
        } else c.arc(px, py, radius, 0, 7);
        const plain = reading.status(i) === "plain";
        c.fillStyle = plain ? colour : theme.paper;
        c.fill();
        c.strokeStyle = on ? theme.ink : plain ? theme.paper : colour;
        c.lineWidth = on ? 2 : plain ? 1 : 1.6;
        c.stroke();
        if (hovered.includes(i) || on) {
          c.strokeStyle = theme.ink;
          c.lineWidth = 0.75;
          c.globalAlpha = 0.5;
          segment(c, px, box.top, px, box.bottom);
          c.globalAlpha = 1;
        }
      }
    },
  };
};
spectrum.basis = 380;
spectrum.most = 900;

function segment(c: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  c.beginPath();
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.stroke();
}
