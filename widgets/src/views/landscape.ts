// Landscape: a value over two directions through the model, with its contour lines, and slices through the point that is picked.
import { airy, roundTicks } from "../core/axes";
import { sheet } from "../core/canvas";
import { variableChoice } from "../core/choose";
import { colourScale, type ColourScale } from "../core/colour";
import { labels } from "../core/cube";
import { h, press, setText, wordButton } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { axisLabel, axisName, type Mark, sentence, showLegend, showMarks, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { indicesAt } from "../core/rules";
import { numberText, valueText } from "../core/scale";
import { choice } from "../core/select";
import { extent } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { rangeOf } from "./grid";
import { along, type Layout, landscapePlot, layout, type SliceAxis } from "./landscape-plot";
import { centreOf, logRelief, lowest, type Relief, relief } from "./relief";

type Cell = [row: number, column: number];

export const landscape: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  // a line has no rows
  const axes: string[] = [options.y, options.x].filter(Boolean);
  const surface = axes.length === 2;
  const columnDim = axes.at(-1)!;
  const columns = labels(cube, columnDim).map(Number);
  const rows = surface ? labels(cube, axes[0]).map(Number) : [0];
  const centre: Cell = [centreOf(rows), centreOf(columns)];
  const canvas = sheet("landscape", "application");
  const key = h("div");
  const variables = variableChoice(stage);
  const log = wordButton("log", "logarithmic scale above the smallest value", () => stage.change("log", !stage.setting("log", false)));
  stage.tools.append(log);
  stage.body.append(canvas.element, key);
  let reading: Reading;
  let shape: Layout = layout(stage.width(), surface);
  let levels: Relief;

  const indexOf = ([r, k]: Cell) => r * columns.length + k;
  const indices = ([r, k]: Cell) => (surface ? [r, k] : [k]);
  const placeOf = (cell: Cell) => Object.fromEntries(indices(cell).map((i, d) => [axes[d], labels(cube, axes[d])[i]]));
  const coordinates = (cell: Cell): [string, string][] => Object.entries(placeOf(cell)).reverse().map(([d, v]) => [d, valueText(v)]);
  const words = (cell: Cell) => sentence(coordinates(cell).map(([d, v]) => `${axisName(cube, d)}: ${v}`).join(" · "));
  const point = (cell: Cell) => (surface ? `(${coordinates(cell).map(([, v]) => v).join(", ")})` : coordinates(cell)[0][1]);
  /** What is selected along the rows and along the columns; null where nothing is. */
  const selected = () => axes.map((d) => indicesAt(cube, d, focus.cursor));
  const here = (): Cell => {
    const [r, k] = surface ? selected() : [null, ...selected()];
    return [r?.[0] ?? centre[0], k?.[0] ?? centre[1]];
  };
  const pickedCells = (): Cell[] => {
    const listed = focus.places.filter((p) => axes.every((d) => d in p));
    if (listed.length) return listed.map((p): Cell => [surface ? rows.indexOf(Number(p[axes[0]])) : 0, columns.indexOf(Number(p[columnDim]))]);
    const [r, k] = surface ? selected() : [[0], ...selected()];
    return r && k ? r.flatMap((row) => k.map((column): Cell => [row, column])) : [];
  };
  const nearest = (at: number[], v: number) => at.reduce((best, w, i) => (Math.abs(w - v) < Math.abs(at[best] - v) ? i : best), 0);

  hands<Cell>(stage, {
    element: canvas.element,
    at(px, py) {
      const { map, below, beside } = shape;
      const level = px >= below.left && px <= below.right;
      const steep = map !== null && py >= map.top && py <= map.bottom;
      const column = level ? nearest(columns, along(columns, below.left, below.right).invert(px)) : null;
      const row = steep ? nearest(rows, along(rows, map.bottom, map.top).invert(py)) : null;
      if (column !== null && row !== null) return [row, column];
      // on a slice the other direction stays where it is
      if (column !== null && py >= below.top && py <= below.bottom) return [here()[0], column];
      return row !== null && beside && px >= beside.left && px <= beside.right ? [row, here()[1]] : null;
    },
    place: placeOf,
    choose: (cell, add) => choice(cube, [...axes].reverse(), indices(cell).reverse(), focus, add),
    describe: (cell) => {
      const v = reading.values[indexOf(cell)];
      if (Number.isNaN(v)) return [words(cell), reading.variable.words.nan ?? "not computed"];
      const rise = stage.setting("log", false) ? [`${numberText(v - extent(reading.values)[0])} above the smallest`] : [];
      return [words(cell), ...describe(reading, indexOf(cell)), ...rise];
    },
    selected: () => (selected().every(Boolean) ? here() : null),
    move(from, name) {
      const up = surface ? stepped(from?.[0] ?? null, name, rows.length, "ArrowDown", "ArrowUp") : undefined;
      const right = stepped(from?.[1] ?? null, name, columns.length);
      if (up === undefined && right === undefined) return undefined;
      if (!from) return here();
      return name === "Home" || name === "End" ? [from[0], right!] : [up ?? from[0], right ?? from[1]];
    },
    dims: () => axes,
  });

  return {
    draw() {
      const variable = stage.variable();
      reading = stage.measure(variable, axes);
      const { values, low, high, difference } = reading;
      const logged = stage.setting("log", false) && !difference;
      press(log, stage.setting("log", false));
      const own = extent(values);
      const range = difference ? own : rangeOf(cube, variable, axes, stage.cursor(), options.reduce);
      levels = logged ? logRelief(values) : relief(range, own, reading.signed);
      const colours: ColourScale = colourScale(levels.domain, stage.theme.dark, reading.signed && !logged);
      const at = here();
      const least = difference ? -1 : lowest(values);
      const cellOf = (i: number): Cell => [Math.floor(i / columns.length), i % columns.length];

      setText(stage.title, options.title || sentence(variable.longName));
      const size = surface ? `${columns.length} × ${rows.length} points` : `${columns.length} points`;
      const holes = values.filter(Number.isNaN).length;
      const missing = holes ? [`${holes.toLocaleString("en")} not computed`] : [];
      const smallest = least < 0 ? [] : [`smallest ${numberText(values[least])} at ${point(cellOf(least))}`];
      const centred = at.every((i, d) => i === centre[d]) && rows[at[0]] === 0 && columns[at[1]] === 0;
      const sliced = surface ? [`slices through ${centred ? "the centre" : point(at)}`] : [];
      setText(stage.subtitle, [...reading.notes, size, ...missing, ...smallest, ...sliced].join(" · "));
      variables.show();
      const keys = surface ? "arrows move" : "left and right move";
      canvas.element.setAttribute("aria-label", `${variable.longName} over ${[...axes].reverse().map((d) => axisName(cube, d)).join(" and ")}, ${size}; ${keys}, Shift adds, Escape clears`);

      const name = withUnits(difference ? `difference in ${variable.longName}` : variable.longName, variable.units);
      const above = logged ? withUnits(`${variable.longName} above the smallest`, variable.units) : name;
      const isNone = (text: string) => (text === "no value" ? (variable.words.nan ?? "not computed") : text);
      const marks: Mark[] = statusMarks(reading, surface ? { unconverged: "hatched" } : { undecided: "hollow", insignificant: "hollow" }).map((m) => ({ ...m, text: isNone(m.text) }));
      if (low && high) marks.unshift({ look: "band", text: variable.words.interval ?? "interval" });
      if (surface && least >= 0) marks.unshift({ look: "ring", text: "smallest value here" });
      if (surface) marks.unshift({ look: "cross", text: "centre: the model itself" });
      shape = layout(stage.width(), surface);
      const ramp = Math.max(60, Math.min(260, stage.width() - shape.below.left - 20));
      if (surface) showLegend(key, colours, logged ? `${above}, logarithmic` : name, marks, shape.below.left, ramp, undefined, levels.ticks);
      else showMarks(key, marks, shape.below.left);

      const c = canvas.begin(shape.width, shape.height);
      if (!c) return;
      const axisOf = (cells: Cell[]): SliceAxis => {
        if (logged) return { span: [-0.05 * levels.domain[1], 1.02 * levels.domain[1]], ticks: levels.ticks };
        const raw = airy(extent(cells.map(indexOf).flatMap((i) => [values[i], ...(low && high ? [low[i], high[i]] : [])])));
        return { span: [levels.of(raw[0]), levels.of(raw[1])], ticks: roundTicks(raw, surface ? 4 : 5).map(([v, text]) => [levels.of(v), text]) };
      };
      const over = axes.map((d) => indicesAt(cube, d, focus.hover)?.[0]);
      const hovered: Cell | null = over.every((i) => i !== undefined) ? (surface ? (over as Cell) : [0, over[0]!]) : null;
      landscapePlot(c, {
        theme: stage.theme, layout: shape, reading, relief: levels, colours, rows, columns, here: at, hovered,
        slices: [axisOf(columns.map((_, k) => [at[0], k])), axisOf(rows.map((_, r) => [r, at[1]]))],
        names: [surface ? axisLabel(cube, axes[0]) : "", axisLabel(cube, columnDim), surface && variable.units ? variable.units : above],
        picked: pickedCells(), least: least < 0 ? null : cellOf(least),
      });
    },
  };
};
landscape.basis = 440;
landscape.most = 680;
