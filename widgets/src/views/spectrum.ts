// Spectrum: eigenvalues in order, each with its residual; what is not converged is hollow.
import { airy, decades, type Frame, level, powerTicks, roundTicks, upright } from "../core/axes";
import { segment, sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels } from "../core/cube";
import { h, press, setText, wordButton } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { axisLabel, type Mark, showMarks, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { indicesAt } from "../core/rules";
import { linear, logarithmic, type Scale, tickStep } from "../core/scale";
import { choice } from "../core/select";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";

const HEIGHT = 240;

/** A residual says that some eigenvalue is near, not which: only where it is small is that the one of this place. */
const WORDS = { residual: "± residual: some eigenvalue is within", unconverged: "not converged: the true value may lie outside the whisker" };

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
    describe: (i) => [sentence(`${dim.replaceAll("_", " ")} ${values[i]}`), ...describe(reading, i), ...(converged(i) ? ["converged"] : [])],
    selected: () => indicesAt(cube, dim, focus.cursor)?.[0] ?? null,
    move: (from, name) => stepped(from, name, values.length),
    dims: () => [dim],
  });

  const converged = (i: number): boolean => Boolean(options.companions?.[reading.variable.name]?.converged) && !["unconverged", "none"].includes(reading.status(i));

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
      // a residual may be any number of times its value: beyond twice the reach of the values a whisker is cut
      const [least, most] = extent([...reading.values, 0].map(size));
      const within = (v: number) => Math.max(2 * least - most, Math.min(2 * most - least, v));
      const ends = [...reading.values].flatMap((v, i) => (Number.isFinite(v) ? [size(v), ...arms(i).map(within)] : []));
      const positive = ends.filter((v) => v > 0);
      const possible = logged && positive.length > 0;
      // a residual may be larger than its value: the axis goes one decade below the smallest value
      const smallest = extent([...reading.values].map((v) => Math.abs(v)).filter((v) => v > 0))[0];
      const domain: [number, number] = possible ? decades([smallest, Math.max(...positive)]) : airy(extent([...ends, 0]));

      setText(stage.title, options.title || sentence(variable.longName));
      const open = values.filter((_, i) => reading.status(i) === "unconverged").length;
      const all = [`${values.length} ${dim.replaceAll("_", " ")}s`, ...(open ? [`${open} not converged`] : []), ...(logged ? ["size on a logarithmic scale"] : [])];
      setText(stage.subtitle, [...reading.notes, ...all].join(" · "));
      variables.show();
      canvas.element.setAttribute("aria-label", `${variable.longName}, ${values.length} ${dim}s; left and right move, Escape clears`);
      const marks = statusMarks(reading, { unconverged: "ring" }).map((m): Mark => (m.text === "not converged" && reading.residual ? { ...m, text: WORDS.unconverged } : m));
      if (reading.residual || (reading.low && reading.high)) marks.unshift({ look: "whisker", text: reading.low ? (variable.words.interval ?? "interval") : WORDS.residual });
      if (logged && reading.values.some((v) => v < 0)) marks.push({ look: "down", text: "negative" });
      showMarks(key, marks, 64);

      const width = stage.width();
      const box: Frame = { left: 64, top: 8, right: width - 12, bottom: HEIGHT - 38 };
      const c = canvas.begin(width, HEIGHT);
      x = linear([-0.5, values.length - 0.5], [box.left, box.right]);
      if (!c) return;
      const { theme } = stage;
      const scale: Scale = possible ? logarithmic(domain, [box.bottom, box.top]) : linear(domain, [box.bottom, box.top]);
      upright(c, theme, box, { scale, ticks: possible ? powerTicks(domain) : roundTicks(domain, 5), label: withUnits(logged ? `size of ${variable.longName}` : variable.longName, variable.units) });
      const step = Math.max(1, tickStep(0, values.length, Math.max(2, (box.right - box.left) / 40)));
      level(c, theme, box, { scale: x, ticks: values.flatMap((v, i): [number, string][] => (i % step ? [] : [[i, String(v)]])), label: axisLabel(cube, dim) }, false);
      const colours = theme.dark ? LINES_DARK : LINES_LIGHT;
      const gap = (box.right - box.left) / values.length;
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
        const plain = reading.status(i) === "plain";
        c.globalAlpha = 0.45;
        c.setLineDash(plain ? [] : [2, 3]);
        segment(c, px, zero, px, py);
        c.setLineDash([]);
        c.globalAlpha = 1;
        const on = chosen.includes(i);
        const radius = on ? 5 : Math.max(plain ? 1.8 : 2.6, Math.min(4, gap / 3));
        const [a, b] = arms(i);
        if (a !== b && Number.isFinite(a) && Number.isFinite(b)) {
          c.strokeStyle = theme.ink;
          c.lineWidth = 1;
          const [y0, y1] = [possible && a <= 0 ? box.bottom : inside(scale(a)), inside(scale(b))];
          const cap = Math.min(3, gap / 3);
          // an arm within its mark would only blur it; one without an end goes on
          if (y0 - y1 > 2 * radius) {
            segment(c, px, y0, px, y1);
            for (const [end, y] of [[a, y0], [b, y1]]) if (within(end) === end) segment(c, px - cap, y, px + cap, y);
          }
        }
        c.beginPath();
        if (logged && v < 0) {
          c.moveTo(px - radius, py - radius);
          c.lineTo(px + radius, py - radius);
          c.lineTo(px, py + radius);
          c.closePath();
        } else c.arc(px, py, radius, 0, 7);
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
