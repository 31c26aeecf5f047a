// HeadGrid: one number per head. Rows are layers, layer 0 at the bottom; columns are heads.
import { type Box, hatch, sheet } from "../core/canvas";
import { colourScale, type ColourScale, css, inkOn } from "../core/colour";
import { type Variable, labels } from "../core/cube";
import { picker, setText } from "../core/dom";
import { legend, type Mark, sentence, withUnits } from "../core/legend";
import { indicesAt, toggled } from "../core/rules";
import { cellText, numberText } from "../core/scale";
import { extent, pooledDims, slice } from "../core/slice";
import type { Kind, Stage } from "../core/view";
import { cellAt, type GridShape, gridShape, rangeOf, runs } from "./grid";

interface Companions {
  low?: string;
  high?: string;
  null?: string;
}

interface Reading {
  variable: Variable;
  values: Float64Array;
  low?: Float64Array;
  high?: Float64Array;
  reference?: Float64Array;
  notes: string[];
  scale: ColourScale;
}

const AXES = ["layer", "head"];

export const headGrid: Kind = (stage: Stage) => {
  const { cube, focus, model, options } = stage;
  const names: string[] = options.variables;
  const canvas = sheet("heads", "application");
  const key = document.createElement("div");
  const choose = picker("variable", (name) => {
    model.set("variable", name);
    model.save_changes();
  });
  stage.tools.append(choose.element);
  stage.body.append(canvas.element, key);
  const layers = labels(cube, "layer");
  const heads = labels(cube, "head");
  const marks = options.marks?.map((name: string) => cube.variables[name]).filter(Boolean) as Variable[];
  let shape: GridShape = gridShape(300, layers.length, heads.length);
  let reading: Reading;
  let place: [number, number] | null = null;

  const read = (): Reading => {
    const name = (model.get("variable") as string) || names[0];
    const variable = cube.variables[name];
    const companions: Companions = options.companions?.[name] ?? {};
    const take = (other?: string) => {
      const found = cube.variables[other ?? ""];
      // the mean of intervals is not the interval of the mean
      if (!found || pooledDims(cube, found, AXES, focus.cursor).length) return undefined;
      return slice(cube, found, AXES, focus.cursor, options.reduce).values;
    };
    const { values, notes } = slice(cube, variable, AXES, focus.cursor, options.reduce);
    const range = rangeOf(cube, variable, AXES, focus.cursor, options.reduce);
    const below = cube.variables[companions.low ?? ""]?.values as ArrayLike<number> | undefined;
    // an effect whose interval reaches below 0 is a signed one, even where all estimates happen to be positive
    const signed = range[0] < 0 || (!companions.null && below !== undefined && extent(below)[0] < 0);
    const scale = colourScale(range, stage.theme.dark, signed);
    return { variable, values, notes, scale, low: take(companions.low), high: take(companions.high), reference: take(companions.null) };
  };

  /** The interval holds the value that no effect would give. */
  const undecided = (i: number): boolean => {
    const { low, high, reference, scale } = reading;
    if (!low || !high || (!reference && !scale.signed)) return false;
    const none = reference ? reference[i] : 0;
    return low[i] <= none && none <= high[i];
  };

  const describe = (row: number, column: number): string[] => {
    const i = row * heads.length + column;
    const { variable, values, low, high, reference } = reading;
    const lines = [`Layer ${layers[row]} · head ${heads[column]}`, withUnits(`${variable.longName} ${numberText(values[i])}`, variable.units)];
    if (low && high) lines.push(`interval ${numberText(low[i])} to ${numberText(high[i])}${undecided(i) ? ", holds the null" : ""}`);
    if (reference) lines.push(`null ${numberText(reference[i])}`);
    for (const mark of marks) if (marked(mark)[i]) lines.push(mark.longName);
    return lines;
  };

  const marked = (mark: Variable) => slice(cube, mark, AXES, focus.cursor, "max").values;

  const choosePlace = (row: number, column: number, add: boolean) => {
    const at = { layer: layers[row], head: heads[column] };
    focus.set(add ? toggled(focus.cursor, at) : at);
    stage.say(`Selected ${describe(row, column).join(", ")}`);
  };

  const hover = (at: [number, number] | null, x = 0, y = 0) => {
    focus.point(at ? { layer: layers[at[0]], head: heads[at[1]] } : {});
    stage.tip(at ? describe(...at) : [], { element: canvas.element, x, y });
    canvas.element.style.cursor = at ? "pointer" : "default";
  };

  canvas.element.addEventListener("pointermove", (e) => hover(cellAt(shape, e.offsetX, e.offsetY), e.offsetX, e.offsetY));
  canvas.element.addEventListener("pointerleave", () => hover(null));
  canvas.element.addEventListener("click", (e) => {
    place = cellAt(shape, e.offsetX, e.offsetY);
    if (place) choosePlace(...place, e.shiftKey || e.ctrlKey || e.metaKey);
  });
  canvas.element.addEventListener("blur", () => {
    place = null;
    drawn.draw();
  });
  canvas.element.addEventListener("keydown", (e) => {
    const from = place && isSelected(place) ? place : selected();
    const move: Record<string, [number, number]> = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
    if (e.key in move) {
      const clamp = (v: number, most: number) => Math.max(0, Math.min(most, v));
      const [up, right] = move[e.key];
      place = from ? [clamp(from[0] + up, layers.length - 1), clamp(from[1] + right, heads.length - 1)] : [0, 0];
      choosePlace(...place, e.shiftKey);
    } else if (e.key === "Enter" || e.key === " ") {
      place = from ?? [0, 0];
      choosePlace(...place, e.shiftKey || e.ctrlKey);
    } else if (e.key === "Escape") {
      place = null;
      focus.set({ layer: null, head: null });
      stage.say("No head selected");
    } else return;
    e.preventDefault();
    e.stopPropagation();
  });

  const isSelected = ([row, column]: [number, number]): boolean =>
    Boolean(indicesAt(cube, "layer", focus.cursor)?.includes(row) && indicesAt(cube, "head", focus.cursor)?.includes(column));

  const selected = (): [number, number] | null => {
    const rows = indicesAt(cube, "layer", focus.cursor);
    const columns = indicesAt(cube, "head", focus.cursor);
    return rows && columns ? [rows[0], columns[0]] : null;
  };

  const box = (row: number, column: number): Box => ({
    x: shape.left + column * shape.cell, y: shape.top + (layers.length - 1 - row) * shape.line, w: shape.cell - shape.gap, h: shape.line - shape.gap,
  });

  /** One box around neighbouring cells. */
  const around = ([r0, r1]: [number, number], [k0, k1]: [number, number]): Box => {
    const [first, last] = [box(r1, k0), box(r0, k1)];
    return { x: first.x, y: first.y, w: last.x + last.w - first.x, h: last.y + last.h - first.y };
  };

  const outline = (c: CanvasRenderingContext2D, b: Box, inner: string, outer: string, width: number) => {
    c.lineWidth = width;
    c.strokeStyle = outer;
    c.strokeRect(b.x + 1.5 * width - 1, b.y + 1.5 * width - 1, b.w - 3 * width + 2, b.h - 3 * width + 2);
    c.strokeStyle = inner;
    c.strokeRect(b.x + width / 2 - 1, b.y + width / 2 - 1, b.w - width + 2, b.h - width + 2);
  };

  const cells = (c: CanvasRenderingContext2D) => {
    const { values, scale } = reading;
    const rings = marks.map(marked);
    const largest = Math.max(Math.abs(scale.domain[0]), Math.abs(scale.domain[1]));
    const written = shape.cell >= 34 && shape.line >= 18;
    c.textAlign = "center";
    c.textBaseline = "middle";
    for (let row = 0; row < layers.length; row++) {
      for (let column = 0; column < heads.length; column++) {
        const i = row * heads.length + column;
        const b = box(row, column);
        const rgb = scale.rgb(values[i]);
        if (!rgb) {
          c.fillStyle = stage.theme.rule;
          c.fillRect(b.x, b.y, b.w, b.h);
          hatch(c, b, stage.theme.quiet);
          continue;
        }
        const faded = undecided(i);
        c.fillStyle = css(rgb);
        c.fillRect(b.x, b.y, b.w, b.h);
        if (faded) hatch(c, b, inkOn(rgb) === "#ffffff" ? "rgb(255 255 255 / 0.34)" : "rgb(0 0 0 / 0.24)");
        c.fillStyle = inkOn(rgb);
        c.strokeStyle = inkOn(rgb);
        if (written) {
          c.font = `11px ${stage.theme.font}`;
          c.fillText(cellText(values[i], largest), b.x + b.w / 2, b.y + b.h / 2 + 0.5);
        }
        if (rings.some((r) => r[i]) && shape.cell >= 8) {
          const radius = Math.min(3.2, shape.cell / 5, shape.line / 5);
          c.lineWidth = 1.4;
          c.beginPath();
          c.arc(b.x + b.w - radius - 4, b.y + radius + 4, radius, 0, 7);
          c.stroke();
        }
      }
    }
  };

  const axes = (c: CanvasRenderingContext2D) => {
    const { ink, quiet, font } = stage.theme;
    c.font = `11px ${font}`;
    c.fillStyle = ink;
    c.textBaseline = "middle";
    c.textAlign = "right";
    const everyRow = Math.ceil(14 / shape.line);
    for (let row = 0; row < layers.length; row += everyRow) {
      const b = box(row, 0);
      c.fillText(String(layers[row]), shape.left - 6, b.y + b.h / 2 + 0.5);
    }
    c.textAlign = "center";
    const bottom = shape.top + layers.length * shape.line;
    const everyColumn = Math.ceil((heads.length > 10 ? 20 : 14) / shape.cell);
    for (let column = 0; column < heads.length; column += everyColumn) {
      const b = box(0, column);
      c.fillText(String(heads[column]), b.x + b.w / 2, bottom + 9);
    }
    c.fillStyle = quiet;
    c.fillText("head", shape.left + (heads.length * shape.cell) / 2, bottom + 24);
    c.save();
    c.translate(7, shape.top + (layers.length * shape.line) / 2);
    c.rotate(-Math.PI / 2);
    c.fillText("layer", 0, 0);
    c.restore();
  };

  const drawn = {
    draw() {
      reading = read();
      const { variable, scale, notes } = reading;
      shape = gridShape(stage.width(), layers.length, heads.length);
      setText(stage.title, options.title || sentence(variable.longName));
      setText(stage.subtitle, notes.length ? notes.join(" · ") : `${layers.length} layers × ${heads.length} heads`);
      choose.show(names.map((n) => ({ value: n, text: cube.variables[n].longName })), variable.name);
      canvas.element.setAttribute("aria-label", `${variable.longName} of ${layers.length} layers by ${heads.length} heads; arrows move, Escape clears`);
      if (reading.values.every(Number.isNaN)) setText(stage.subtitle, [...notes, "no values here"].join(" · "));
      const keys: Mark[] = marks.map((m) => ({ look: "ring", text: m.longName }));
      const held = Array.from(reading.values, (_, i) => undecided(i));
      if (held.some(Boolean)) keys.push({ look: "hatched", text: reading.reference ? "interval holds the null" : "interval holds 0" });
      key.replaceChildren(legend(scale, withUnits(variable.longName, variable.units), keys, shape.left, Math.min(190, stage.width() - shape.left - 20)));
      const c = canvas.begin(shape.width, shape.height);
      if (!c) return;
      axes(c);
      cells(c);
      const over = focus.hover;
      const at = (cursor: typeof over) => [indicesAt(cube, "layer", cursor), indicesAt(cube, "head", cursor)] as const;
      const [hoverRows, hoverColumns] = at(over);
      if (hoverRows && hoverColumns) for (const r of hoverRows) for (const k of hoverColumns) outline(c, box(r, k), stage.theme.ink, "transparent", 1);
      const [rows, columns] = at(focus.cursor);
      if (rows || columns) {
        for (const rowRun of runs(rows ?? [...layers.keys()])) {
          for (const columnRun of runs(columns ?? [...heads.keys()])) outline(c, around(rowRun, columnRun), stage.theme.ink, stage.theme.paper, shape.cell < 12 ? 1 : 2);
        }
      }
    },
  };
  return drawn;
};
headGrid.basis = 300;
headGrid.most = 460;
