import { expect, test } from "vitest";
import { shortened, visibleToken } from "../src/core/dom";
import { linear, timeScale } from "../src/core/scale";
import { ceiling, extentOf, isCausal, panelsAt, readPanel, rowOf, strongest } from "../src/views/attention-data";
import { tokensOf } from "../src/core/tokens";
import { cellAt, gridShape, groupsOf, runs } from "../src/views/grid";
import { shownLabels } from "../src/views/grid-plot";
import { axisTicks, commonName, lineAt, linesOf, shortName, spread } from "../src/views/lines";
import { leftOf } from "../src/views/timeline-plot";
import { cubeOf } from "./cubes";

test("a HeadGrid has layer 0 at the bottom", () => {
  const shape = gridShape(334, 2, 4);
  expect(shape.cell).toBe(74);
  expect(cellAt(shape, shape.left + 1, shape.top + 1)).toEqual([1, 0]);
  expect(cellAt(shape, shape.left + 3 * shape.cell + 1, shape.top + shape.line + 1)).toEqual([0, 3]);
  expect(cellAt(shape, shape.left - 1, shape.top + 1)).toBeNull();
});

test("large grids stay within their width", () => {
  const shape = gridShape(420, 32, 32);
  expect(shape.width).toBeLessThanOrEqual(420);
  expect(shape.height).toBeLessThan(600);
});

test("heads are grouped by layer where they are in order", () => {
  const names = (layers: number, heads: number) => Array.from({ length: layers * heads }, (_, i) => `${Math.floor(i / heads)}.${i % heads}`);
  const cube = cubeOf({ source: names(3, 4), target: ["0.0", "0.1", "1.0", "1.1", "0.2"], module: ["a", "b", "c"], layer: [0, 1] }, {});
  cube.coords.module_layer = { dims: ["module"], values: [0, 0, 1] };
  const groups = [{ label: "0", from: 0, to: 3 }, { label: "1", from: 4, to: 7 }, { label: "2", from: 8, to: 11 }];
  expect(groupsOf(cube, "source")).toEqual(groups);
  expect(groupsOf(cube, "module")).toEqual([{ label: "0", from: 0, to: 1 }, { label: "1", from: 2, to: 2 }]);
  expect([groupsOf(cube, "target"), groupsOf(cube, "layer")]).toEqual([[], []]);
  expect(shownLabels(names(3, 4), groups, 20, 14)).toHaveLength(12);
  expect(shownLabels(names(3, 4), groups, 4, 14)).toEqual([{ text: "0", at: 1.5 }, { text: "1", at: 5.5 }, { text: "2", at: 9.5 }]);
  expect(shownLabels(names(3, 4), groups, 2, 14).map((l) => l.text)).toEqual(["0", "2"]);
  expect(shownLabels(names(3, 4), [], 4, 14).map((l) => l.text)).toEqual(["0.0", "1.0", "2.0"]);
});

test("as many rows as columns make a square, also of many cells", () => {
  for (const n of [8, 24, 144, 270]) {
    const { cell, line } = gridShape(560, n, n, { rowLabels: ["11.11"], columnLabels: ["11.11"], square: true, grouped: true });
    expect(line).toBe(cell);
    expect(n * cell).toBeLessThanOrEqual(560);
  }
});

test("two rows of many columns are rows that can be read and hit", () => {
  const { cell, line } = gridShape(600, 2, 192, { rowLabels: ["0", "1"], columnLabels: ["0"], square: true });
  expect(cell).toBeLessThan(4);
  expect(line).toBe(14);
  expect(gridShape(600, 100, 192, { square: true }).line).toBeLessThan(6);
});

test("neighbouring cells are outlined together", () => {
  expect(runs([5, 1, 0, 2])).toEqual([[0, 2], [5, 5]]);
});

// one sample of 3 positions in a frame of 4, heads of two layers
const pattern = [1, 0, 0, NaN, 0.3, 0.7, 0, NaN, 0.2, 0.2, 0.6, NaN, NaN, NaN, NaN, NaN];
const cube = cubeOf({ sample: ["a"], layer: [0, 1], head: [0, 1], query: 4, key: 4, position: 4 }, {
  pattern: [["sample", "layer", "head", "query", "key"], [0, 1, 2, 3].flatMap(() => pattern)],
});
cube.variables.token = { name: "token", dims: ["sample", "position"], shape: [1, 4], values: ["<b>", " the", "\n", ""], longName: "token", units: "", words: {} };

test("patterns: padding is cut, what lies above the diagonal is not drawn", () => {
  const panel = readPanel(cube, cube.variables.pattern, { layer: 1, head: 0 }, "");
  expect(extentOf(panel.values, panel.size)).toBe(3);
  expect(panel.causal).toBe(true);
  expect(panel.values[1]).toBeNaN();
  expect(isCausal([0.5, 0.5, 0.5, 0.5], 2)).toBe(false);
  const row = rowOf([panel], 2, 3);
  expect(row[2]).toBeCloseTo(0.6);
  expect(strongest(row)).toBe(2);
  expect(strongest(Float64Array.of(NaN, 0.1, NaN))).toBe(1);
});

test("several heads of several layers are their rectangle, at most so many", () => {
  const { facets, total } = panelsAt(cube, cube.variables.pattern, { layer: [1, 0], head: [0, 1] }, 3);
  expect(total).toBe(4);
  expect(facets.map((f) => f.words)).toEqual(["layer 0 · head 0", "layer 0 · head 1", "layer 1 · head 0"]);
});

test("the colour scale ends at 1 unless no later row comes near it", () => {
  const flat = (v: number) => [{ words: "", values: new Float64Array(64).fill(v), size: 8, n: 8, causal: false }];
  expect(ceiling(flat(0.9))).toBe(1);
  expect(ceiling(flat(0.08))).toBe(0.1);
});

test("tokens are text, with their whitespace to be seen", () => {
  expect(tokensOf(cube, 0, 4).map(visibleToken)).toEqual(["<b>", "·the", "↵", "∅"]);
  expect(tokensOf(cubeOf({}, {}), -1, 2)).toEqual(["0", "1"]);
  expect(shortened("extraordinary", 8)).toBe("extraor…");
});

test("a Timeline has one line per head and pools samples", () => {
  const history = cubeOf({ checkpoint: [0, 10], sample: ["a", "b"], layer: [0, 1] }, {
    score: [["checkpoint", "sample", "layer"], [0, 1, 2, 3, 4, 5, 6, 7]], ci_low: [["checkpoint", "layer"], [0, 0, 0, 0]],
  });
  const { lines, notes } = linesOf(history, history.variables.score, "checkpoint", {}, "mean", { low: "ci_low" });
  expect(lines.map((l) => l.place)).toEqual([[["layer", 0]], [["layer", 1]]]);
  expect([...lines[0].values]).toEqual([1, 5]);
  expect(lines[0].low).toHaveLength(2);
  expect(notes).toEqual(["mean over 2 samples"]);
});

test("intervals of single samples are no interval of their mean", () => {
  const score: [string[], number[]] = [["checkpoint", "sample"], [0, 1, 2, 3]];
  const history = cubeOf({ checkpoint: [0, 10], sample: ["a", "b"] }, { score, ci_low: score });
  const low = (cursor: object) => linesOf(history, history.variables.score, "checkpoint", cursor as never, "mean", { low: "ci_low" }).lines[0].low;
  expect(low({})).toBeUndefined();
  expect([...low({ sample: "b" })!]).toEqual([1, 3]);
});

test("the line under the pointer is the closest within reach", () => {
  const line = (values: number[]) => ({ place: [], index: [], values: Float64Array.from(values) });
  const lines = [line([0, 0]), line([1, 1])];
  const value = linear([0, 1], [100, 0]);
  const at = (i: number) => i * 200;
  expect(lineAt(lines, at, value, 100, 4, 7)).toBe(lines[1]);
  expect(lineAt(lines, at, value, 100, 95, 7)).toBe(lines[0]);
  expect(lineAt(lines, at, value, 100, 50, 7)).toBeNull();
});

test("labels move apart and keep their order", () => {
  expect(spread([50, 52, 10], 13, 0, 100)).toEqual([50, 63, 10]);
  expect(spread([98, 99], 13, 0, 100)).toEqual([87, 100]);
});

test("few steps get a tick each, many get round numbers", () => {
  const few = [0, 200, 3000];
  expect(axisTicks(few, timeScale(few, [0, 300])).map(([, text]) => text)).toEqual(["0", "200", "3000"]);
  const many = Array.from({ length: 101 }, (_, i) => i * 10);
  expect(axisTicks(many, timeScale(many, [0, 500])).map(([, text]) => text)).toEqual(["0", "100", "200", "300", "400", "500", "600", "700", "800", "900", "1000"]);
});

test("the name at a line's end is short", () => {
  expect(shortName([["layer", 1], ["head", 2]])).toBe("1.2");
  expect(shortName([["layer", 1], ["head", 2], ["block", "V"]])).toBe("1.2 V");
  expect(shortName([["module", "transformer.h.0.attn.c_proj"]])).toBe("0.attn.c_proj");
  expect(shortName([["layer", 1]])).toBe("layer 1");
  expect(shortName([["kind", "K"], ["source", "0.0"], ["target", "1.2"]])).toBe("K 0.0 → 1.2");
  expect(shortName([["source", "0.0"]])).toBe("source 0.0");
});

test("over another number than time there is a line at the checkpoint of the Focus, or one at its layer", () => {
  const curves = cubeOf({ checkpoint: [0, 10], layer: [0, 1], sparsity: [0, 0.3, 0.9] }, {
    loss: [["checkpoint", "layer", "sparsity"], Array.from({ length: 12 }, (_, i) => i)],
  });
  const read = (cursor: object, single = false) => linesOf(curves, curves.variables.loss, "sparsity", cursor as never, undefined, {}, single);
  expect(read({}).lines.map((l) => [...l.values])).toEqual([[6, 7, 8], [9, 10, 11]]);
  expect(read({}).notes).toEqual(["at checkpoint 10"]);
  expect(read({ checkpoint: 0 }).lines.map((l) => l.place)).toEqual([[["layer", 0]], [["layer", 1]]]);
  const one = read({ checkpoint: 0, layer: 1 }, true);
  expect(one.lines.map((l) => [l.place, [...l.values]])).toEqual([[[], [3, 4, 5]]]);
  expect(one.notes).toEqual(["at checkpoint 0", "layer 1"]);
  expect(shortName([["sparsity", 0.1 + 0.2]])).toBe("sparsity 0.3");
});

test("several variables are called by what their names have in common", () => {
  expect(commonName(["predicted increase", "measured increase"])).toBe("increase");
  expect(commonName(["increase measured", "increase predicted from the gradient"])).toBe("increase");
  expect(commonName(["loss", "surprise"])).toBe("loss, surprise");
  expect(commonName(["loss in nats"])).toBe("loss in nats");
});

test("numbers that are no time stand at their own distances, however close", () => {
  const at = timeScale([0, 0.5, 0.99, 0.999], [0, 1000], 0);
  expect([at.words, at.at(1), at.at(3)]).toEqual(["", expect.closeTo(500.5, 1), 1000]);
});

test("a Timeline makes room for long numbers", () => {
  expect(leftOf([[0, "0.000"], [1, "0.005"]])).toBe(58);
  expect(leftOf([[2.30202, "2.302020"], [2.302025, "2.302025"]])).toBeGreaterThan(16 + 8 * 6);
});
