// LayerBars: one bar per layer, layer 0 at the bottom as in a HeadGrid, with its interval.
import { airy, clipped, type Frame, level, roundTicks } from "../core/axes";
import { sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels } from "../core/cube";
import { h, setText } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { axisLabel, showMarks, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { sources } from "../core/places";
import { asList, indicesAt } from "../core/rules";
import { linear, type Scale } from "../core/scale";
import { choice } from "../core/select";
import { extent, pooledDims } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { bar, dot, tick, whisker } from "./bars";

const BOTTOM = 38;

export const layerBars: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const dim: string = options.by ?? "layer";
  const values = labels(cube, dim);
  const canvas = sheet("bars", "application");
  const key = h("div");
  const variables = variableChoice(stage);
  stage.body.append(canvas.element, key);
  let reading: Reading;
  let line = 20;
  const noun = dim.replaceAll("_", " ");
  // heads within a layer, blocks within a head: reduced, and each shown as a dot
  const others = () => stage.variable().dims.filter((d) => d !== dim && ["head", "block", "neuron", "channel", "component"].includes(d));

  const rowAt = (_: number, y: number): number | null => {
    const i = values.length - 1 - Math.floor((y - 2) / line);
    return i >= 0 && i < values.length ? i : null;
  };
  hands<number>(stage, {
    element: canvas.element,
    at: rowAt,
    place: (i) => ({ [dim]: values[i] }),
    choose: (i, add) => choice(cube, [dim], [i], focus, add),
    describe: (i) => [sentence(`${noun} ${values[i]}`), ...describe(reading, i)],
    selected: () => indicesAt(cube, dim, focus.cursor)?.[0] ?? null,
    move: (from, name) => stepped(from, name, values.length, "ArrowDown", "ArrowUp"),
    dims: () => [dim],
  });

  return {
    draw() {
      const variable = stage.variable();
      const inner = others();
      reading = stage.measure(variable, [dim], inner);
      const { low, high, notes } = reading;
      const chance = reading.difference ? undefined : reading.reference;
      const spread = pooledDims(cube, variable, [dim], stage.cursor(), inner).filter((d) => inner.includes(d));
      const each = spread.length === 1 && cube.dims[spread[0]] <= 64 ? stage.measure(variable, [dim, spread[0]]).values : null;
      const width = stage.width();
      line = Math.max(7, Math.min(24, Math.floor(520 / values.length)));
      const names = values.map(String);
      const left = Math.max(34, Math.min(150, Math.max(...names.map((n) => n.length)) * 6.4 + 24));
      const box: Frame = { left, top: 2, right: width - 14, bottom: 2 + values.length * line };
      const reach = extent([...reading.values, ...(low ?? []), ...(high ?? []), ...(each ?? []), ...(chance ?? []), 0]);
      const domain = airy(reach);
      const scale: Scale = linear(domain, [box.left, box.right]);

      setText(stage.title, options.title || `${sentence(variable.longName)} by ${noun}`);
      setText(stage.subtitle, (notes.length ? notes : [`${values.length} ${noun}s`]).join(" · "));
      variables.show();
      canvas.element.setAttribute("aria-label", `${variable.longName} of ${values.length} ${noun}s; up and down move, Shift adds, Escape clears`);
      const marks = statusMarks(reading, { undecided: "hatched", insignificant: "hatched" });
      if (low && high) marks.unshift({ look: "whisker", text: "interval" });
      if (each) marks.unshift({ look: "dot", text: `single ${spread[0]}s` });
      if (chance && [...chance].some(Number.isFinite)) marks.push({ look: "notch", text: variable.words.null ? `null: ${variable.words.null}` : "null" });
      // where what is selected comes from
      const from = dim === "layer" ? sources({ ...focus.cursor, ...focus.hover }).map((p) => values.indexOf(p.layer)).filter((i) => i >= 0) : [];
      if (from.length) marks.push({ look: "dashed", text: `layer of the source ${asList(focus.hover.source ?? focus.cursor.source).join(", ")}` });
      showMarks(key, marks, left);

      const c = canvas.begin(width, box.bottom + BOTTOM);
      if (!c) return;
      const { theme } = stage;
      level(c, theme, box, { scale, ticks: roundTicks(domain, Math.max(2, Math.min(7, (box.right - left) / 60))), label: withUnits(reading.difference ? `difference in ${variable.longName}` : variable.longName, variable.units) });
      const chosen = indicesAt(cube, dim, focus.cursor) ?? [];
      const hovered = indicesAt(cube, dim, focus.hover) ?? [];
      const colours = theme.dark ? LINES_DARK : LINES_LIGHT;
      const every = Math.ceil(13 / line);
      values.forEach((_, i) => {
        const y = box.top + (values.length - 1 - i) * line;
        const on = chosen.includes(i);
        const at = { y: y + line / 2, thick: Math.max(3, line - (line > 12 ? 8 : 3)) };
        bar(c, theme, scale, at, reading, i, reading.values[i] < 0 ? colours[0] : colours[1], chosen.length > 0 && !on);
        if (each) {
          const n = each.length / values.length;
          for (let k = 0; k < n; k++) dot(c, theme, scale(each[i * n + k]), at.y);
        }
        if (chance) tick(c, theme, scale(chance[i]), at.y, line / 2 - 1);
        if (low && high) whisker(c, theme, scale(low[i]), scale(high[i]), at.y, Math.min(4, line / 4));
        c.font = `${on ? 600 : 400} 11px ${theme.font}`;
        c.fillStyle = theme.ink;
        c.textAlign = "right";
        c.textBaseline = "middle";
        if (i % every === 0 || on) c.fillText(clipped(c, names[i], left - 22), left - 6, at.y + 0.5);
        const dashed = !on && from.includes(i);
        if (on || dashed || hovered.includes(i)) {
          c.strokeStyle = theme.ink;
          c.lineWidth = on || dashed ? 1.5 : 0.75;
          c.setLineDash(dashed ? [4, 3] : []);
          c.strokeRect(box.left - 0.5, y + 0.5, box.right - box.left + 6, line - 1);
          c.setLineDash([]);
        }
      });
      c.save();
      c.fillStyle = theme.quiet;
      c.font = `11px ${theme.font}`;
      c.textAlign = "center";
      c.translate(7, (box.top + box.bottom) / 2);
      c.rotate(-Math.PI / 2);
      c.fillText(axisLabel(cube, dim), 0, 0);
      c.restore();
    },
  };
};
layerBars.basis = 320;
layerBars.most = 620;
