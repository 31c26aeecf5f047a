import { expect, test } from "vitest";
import { ceiling, withoutFirst } from "../src/views/attention-data";
import { rangeOf } from "../src/views/grid";
import { broadcast, pointAt, pointDims, selecting } from "../src/views/points";
import { ranked, unravelled } from "../src/views/ranked";
import { sorted, windowOf } from "../src/views/rows";
import { handMoved } from "../src/core/hands";
import { cubeOf } from "./cubes";

test("the largest entries are found without sorting all", () => {
  const values = [0.1, -5, NaN, 3, 3, Infinity, -0.2];
  expect(ranked(values, "size", 3)).toEqual([5, 1, 3]);
  expect(ranked(values, "largest", 4)).toEqual([5, 3, 4, 0]);
  expect(ranked(values, "smallest", 2)).toEqual([1, 6]);
  expect(ranked([NaN, NaN], "size", 5)).toEqual([]);
  const many = Float64Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 300_007);
  expect(ranked(many, "largest", 20).map((i) => many[i])).toEqual([...many].sort((a, b) => b - a).slice(0, 20));
  expect(unravelled(7, [2, 4])).toEqual([1, 3]);
});

test("rows sort by value, with those that have none at the end", () => {
  const values = [2, NaN, 1, 3];
  expect(sorted(4, (i) => values[i], false)).toEqual([2, 0, 3, 1]);
  expect(sorted(4, (i) => values[i], true)).toEqual([3, 0, 2, 1]);
  expect(sorted(3, (i) => ["s-10", "s-9", "s-1"][i], false)).toEqual([2, 1, 0]);
});

test("only the rows in sight are in the page", () => {
  expect(windowOf(100_000, 25, 0, 300)).toEqual([0, 20]);
  const [from, to] = windowOf(100_000, 25, 1_250_000, 300);
  expect([from, to - from]).toEqual([49_992, 28]);
  expect(windowOf(3, 25, 0, 300)).toEqual([0, 3]);
});

test("points: a value by layer is repeated for each head", () => {
  const cube = cubeOf({ layer: [0, 1], head: [0, 1, 2], checkpoint: [0] }, { a: [["layer"], [1, 2]], b: [["checkpoint", "layer", "head"], [0, 0, 0, 0, 0, 0]] });
  expect(pointDims(cube.variables.a, cube.variables.b)).toEqual(["layer", "head"]);
  expect([...broadcast([1, 2], ["layer"], ["layer", "head"], [2, 3])]).toEqual([1, 1, 1, 2, 2, 2]);
  expect(pointAt([0, 10], [0, 10], 9, 9, 5)).toBe(1);
  expect(pointAt([NaN], [0], 0, 0, 5)).toBeNull();
});

test("a brush selects just what it held", () => {
  const cube = cubeOf({ layer: [0, 1], head: [0, 1, 2] }, {});
  expect(selecting(cube, ["layer", "head"], [2, 3], [0, 5])).toEqual({ patch: { layer: [0, 1], head: [0, 2] }, places: [{ layer: 0, head: 0 }, { layer: 1, head: 2 }] });
  expect(selecting(cube, ["layer", "head"], [2, 3], [3, 4])).toEqual({ patch: { layer: 1, head: [0, 1] }, places: [] });
});

test("a share that is small everywhere looks small", () => {
  const cube = cubeOf({ layer: 2 }, { share: [["layer"], [0.03, 0.01]] });
  expect(rangeOf(cube, cube.variables.share, ["layer"], {})[1]).toBeCloseTo(0.03);
  cube.variables.share.bounds = [0, 1];
  expect(rangeOf(cube, cube.variables.share, ["layer"], {})).toEqual([0, 0.5]);
});

test("without its first key a pattern's colours fit the rest", () => {
  const size = 6;
  const values = Float64Array.from({ length: size * size }, (_, i) => (i % size ? 0.04 : 0.8));
  const panel = { words: "", values, size, n: size, causal: false };
  const [rest] = withoutFirst([panel]);
  expect([rest.values[0], rest.values[size], rest.values[1]]).toEqual([NaN, NaN, 0.04]);
  expect([ceiling([panel]), ceiling([rest])]).toEqual([1, 0.05]);
  expect(values[0]).toBe(0.8);
});

test("what the page moved under a resting pointer was not pointed at", () => {
  const heard: Record<string, (e: object) => void> = {};
  const moved = handMoved({ addEventListener: (name: string, run: (e: object) => void) => (heard[name] = run) } as never);
  const at = (screenX: number) => ({ screenX, screenY: 5 }) as never;
  expect(moved(at(1))).toBe(true);
  heard.click(at(1));
  expect([moved(at(1)), moved(at(2))]).toEqual([false, true]);
});
