// HeadGrid and Matrix: a coloured cell for each place along two dimensions.
import { sheet } from "../core/canvas";
import { sampleChoice, sliceChoice, variableChoice } from "../core/choose";
import { colourScale, type ColourScale } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { finest } from "../core/finest";
import { h, labelToken, setText, shortened, visibleToken } from "../core/dom";
import { hands, stepped } from "../core/hands";
import { axisLabel, axisName, commonNull, showLegend, type Mark, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { sources } from "../core/places";
import { eitherSide, indicesAt } from "../core/rules";
import { valueText } from "../core/scale";
import { choose } from "../core/select";
import { extent, slice } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { textsOn, tokensOf } from "../core/tokens";
import type { Cursor, Value } from "../core/types";
import { cellAt, type GridShape, gridShape, groupsOf, rangeOf } from "./grid";
import { gridPlot, outlines, type Pen, SMALL } from "./grid-plot";
import { aboutLine, tokenLines } from "./matrix-words";

type Place = [number, number];

/** The axes are layer and head with layer 0 at the bottom, or those that the options name, read as a matrix. */
const cellGrid = (heads: boolean): Kind => (stage: Stage) => {
  const { cube, focus, options } = stage;
  const [rowDim, columnDim]: string[] = heads ? ["layer", "head"] : [options.y, options.x];
  const axes = [rowDim, columnDim];
  const canvas = sheet("cells", "application");
  const key = h("div");
  const variables = variableChoice(stage);
  const slices = sliceChoice(stage, axes);
  // of a text there are tokens along an axis, or words in the cells; then it is one text, and no mean over several
  const textual = Boolean(options.words || options.tokens) && "sample" in cube.dims;
  const samples = textual ? sampleChoice(stage) : null;
  const here = (): Record<string, Value> => (samples ? { sample: labels(cube, "sample")[samples.seen()] } : {});
  const scroller = h("div", { class: options.words ? "ts-scroll ts-aired" : "" }, canvas.element);
  if (options.words) stage.root.style.setProperty("--ts-most", "none");
  stage.body.append(scroller, key);
  const [rows, columns] = [labels(cube, rowDim), labels(cube, columnDim)];
  const rowLabels = rows.map(valueText);
  let columnLabels = columns.map(valueText);
  let words: string[] | null = null;
  let tokens: string[] | null = null;
  const marks = () => (options.marks ?? []).map((name: string) => cube.variables[name]).filter(Boolean) as Variable[];
  const noun = (dim: string) => dim.replaceAll("_", " ");
  const groups: [ReturnType<typeof groupsOf>, ReturnType<typeof groupsOf>] = [groupsOf(cube, rowDim), groupsOf(cube, columnDim)];
  // a pair is one of its kind
  const placeOf = ([row, column]: Place): Record<string, Value> => ({ ...(heads ? {} : slices.place()), ...here(), [rowDim]: rows[row], [columnDim]: columns[column] });
  let shape: GridShape;
  let reading: Reading;
  let scale: ColourScale;

  const marked = (mark: Variable) => slice(cube, mark, axes, { ...stage.cursor(), ...here() }, "max").values;
  /** The flags that are about the variable that is shown, where its values are shown and not their difference. */
  const ringing = () => (reading.difference ? [] : marks().filter((m) => !m.words.marks || m.words.marks === reading.variable.name));
  const markWords = (m: Variable) => (m.words.rule ? `${m.longName}: ${m.words.rule}` : m.longName);
  const indexOf = ([row, column]: Place) => row * columns.length + column;
  const at = (dim: string, label: string) => (cube.coords[dim]?.attrs?.long_name ? `${axisName(cube, dim)}: ${label}` : `${noun(dim)} ${label}`);
  const lines = (place: Place): string[] => [
    sentence(`${at(rowDim, rowLabels[place[0]])} · ${at(columnDim, valueText(columns[place[1]]))}`) + (tokens ? ` ‘${shortened(visibleToken(tokens[place[1]]), 40)}’` : ""),
    ...(words ? [`${cube.variables[options.words].longName} ‘${shortened(words[indexOf(place)], 60)}’`] : []),
    ...describe(reading, indexOf(place)),
    ...ringing().filter((m) => marked(m)[indexOf(place)]).map(markWords),
    ...tokenLines(cube, axes, options.cells ?? [], place),
    ...axes.map((d, i) => aboutLine(cube, d, options.about?.[d] ?? [], place[i])).filter(Boolean),
  ];
  /** In a matrix few cells stand out: those that are significant are marked, not the many that are not. */
  const ringed = (): { values: ArrayLike<number>; text: string }[] => {
    const flags = ringing().map((m) => ({ values: marked(m), text: markWords(m) }));
    const significant = cube.variables[options.companions?.[reading.variable.name]?.significant ?? ""];
    return heads || !reading.significant ? flags : [{ values: reading.significant, text: markWords(significant) }, ...flags];
  };
  hands<Place>(stage, {
    element: canvas.element,
    at: (x, y) => cellAt(shape, x, y),
    place: placeOf,
    choose(place, add) {
      // the keyboard leads out of sight
      const left = shape.left + place[1] * shape.cell;
      if (left < scroller.scrollLeft || left + shape.cell > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = left - scroller.clientWidth / 2;
      return choose(cube, placeOf(place), focus, add);
    },
    describe: lines,
    selected() {
      const [r, k] = axes.map((d) => indicesAt(cube, d, focus.cursor));
      return r && k ? [r[0], k[0]] : null;
    },
    move(from, name) {
      const up = stepped(from?.[0] ?? null, name, rows.length, shape.upward ? "ArrowDown" : "ArrowUp", shape.upward ? "ArrowUp" : "ArrowDown");
      const right = stepped(from?.[1] ?? null, name, columns.length);
      if (up === undefined && right === undefined) return undefined;
      // where one of the two is selected the keyboard starts there
      if (!from) return [indicesAt(cube, rowDim, focus.cursor)?.[0] ?? 0, indicesAt(cube, columnDim, focus.cursor)?.[0] ?? 0];
      return name === "Home" ? [from[0], 0] : name === "End" ? [from[0], columns.length - 1] : [up ?? from[0], right ?? from[1]];
    },
    dims: () => axes,
  });

  /** Whether a cell in the picture has no value. */
  const gaps = (): boolean => rows.some((_, row) => Array.from({ length: shape.columns }, (_, column) => reading.values[indexOf([row, column])]).some(Number.isNaN));

  return {
    draw() {
      const cursor = { ...stage.cursor(), ...here() };
      const { variable, notes: told } = finest(cube, stage.variable(), options.instead?.[stage.variable().name], axes, cursor);
      reading = stage.measure(variable, axes, [], here());
      words = options.words && !reading.difference ? textsOn(cube, cube.variables[options.words], [rowDim, columnDim], cursor) : null;
      tokens = options.tokens ? tokensOf(cube, samples?.seen() ?? -1, columns.length, options.tokens, columnDim) : null;
      if (tokens) columnLabels = tokens.map(labelToken);
      const range = reading.difference ? extent(reading.values) : rangeOf(cube, variable, axes, cursor, options.reduce);
      scale = colourScale(range, stage.theme.dark, reading.signed, !heads);
      const many = words ? columns.length - trailing() : columns.length;
      shape = gridShape(stage.width(), rows.length, many, heads ? undefined : { worded: words !== null, rowLabels, columnLabels, columns: axisLabel(cube, columnDim), upward: Boolean(options.upward), square: true, grouped: groups[1].length > 0 });
      const size = heads ? `${rows.length} layers × ${columns.length} heads` : `${rows.length} × ${columns.length}`;
      const none = reading.values.every(Number.isNaN) ? [`no values here${variable.words.nan ? `: ${variable.words.nan}` : ""}`] : [];
      setText(stage.title, options.title || sentence(variable.longName));
      const crowded = Math.min(shape.cell, shape.line) < 1 ? [`where several lie in one line, the ${reading.signed ? "strongest" : "largest"} is seen`] : [];
      setText(stage.subtitle, [...(reading.notes.length ? reading.notes : [size]), ...told, ...crowded, ...none].join(" · "));
      variables.show();
      slices.show();
      samples?.show();
      canvas.element.setAttribute("aria-label", `${variable.longName}, ${rows.length} ${noun(rowDim)}s by ${columns.length} ${noun(columnDim)}s; arrows move, Shift adds, Escape clears`);
      const rings = ringed();
      const shown: Reading = heads ? reading : { ...reading, status: (i) => (reading.status(i) === "insignificant" ? "plain" : reading.status(i)) };
      const keys: Mark[] = [...rings.filter(({ values }) => Array.prototype.some.call(values, Boolean)).map(({ text }): Mark => ({ look: Math.min(shape.cell, shape.line) < SMALL ? "dot" : "ring", text })), ...statusMarks(shown, { unconverged: "hatched" }).filter((m) => m.look !== "void" || !words || gaps())];
      const from = sourcesHere();
      if (from.length) keys.push({ look: "dashed", text: `source ${from.map(([row, column]) => `${rowLabels[row]}.${columnLabels[column]}`).join(", ")}` });
      const label = withUnits(reading.difference ? `difference in ${variable.longName}` : variable.longName, variable.units);
      showLegend(key, scale, label, keys, shape.left, Math.max(60, Math.min(190, stage.width() - shape.left - 20)), commonNull(reading));
      const c = canvas.begin(shape.width, shape.height);
      if (!c) return;
      gridPlot(c, { shape, reading: shown, scale, theme: stage.theme, rowLabels, columnLabels, rows: axisLabel(cube, rowDim), columns: axisLabel(cube, columnDim), rings: rings.map((r) => r.values), groups, texts: words, room: stage.width() });
      const { ink, paper } = stage.theme;
      const thick = Math.min(shape.cell, shape.line) < 12 ? 1 : 2;
      mark(c, focus.hover, { inner: ink, outer: "transparent", width: 1 });
      const pen: Pen = { inner: ink, outer: paper, width: thick };
      const listed = focus.places.filter((p) => axes.every((d) => d in p));
      for (const p of listed) outlines(c, shape, [rows.indexOf(p[rowDim])], [columns.indexOf(p[columnDim])], pen);
      if (!listed.length) mark(c, focus.cursor, pen);
      for (const [row, column] of from) outlines(c, shape, [row], [column], { ...pen, dashed: true });
    },
  };

  /** What is selected, or under a pointer: all of a dimension where nothing is along it, and both a row and a column where it may be either. */
  function mark(c: CanvasRenderingContext2D, cursor: Cursor, pen: Pen): void {
    const [atRows, atColumns] = axes.map((d) => indicesAt(cube, d, cursor));
    const [all, every] = [[...rows.keys()], Array.from({ length: shape.columns }, (_, i) => i)];
    if (atRows && atColumns && eitherSide(rowDim, columnDim, cursor)) {
      outlines(c, shape, atRows, every, pen);
      outlines(c, shape, all, atColumns, pen);
    } else if (atRows || atColumns) outlines(c, shape, atRows ?? all, atColumns ?? every, pen);
  }

  /** Columns at the end that have no value: padding of a shorter text. */
  function trailing(): number {
    let n = 0;
    while (n < columns.length - 1 && rows.every((_, row) => Number.isNaN(reading.values[indexOf([row, columns.length - 1 - n])]))) n++;
    return n;
  }

  /** Heads that what is selected comes from. */
  function sourcesHere(): Place[] {
    const found = heads ? sources({ ...focus.cursor, ...focus.hover }).map((p): Place => [rows.indexOf(p.layer), columns.indexOf(p.head)]) : [];
    return found.filter(([row, column]) => row >= 0 && column >= 0);
  }
};

export const headGrid: Kind = cellGrid(true);
headGrid.basis = 300;
headGrid.most = 620;

export const matrix: Kind = cellGrid(false);
matrix.basis = 340;
matrix.most = 720;
