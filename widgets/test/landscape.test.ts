import { expect, test } from "vitest";
import { decades, powerTicks } from "../src/core/axes";
import { band, type Point, stroke } from "../src/core/canvas";
import { colourScale } from "../src/core/colour";
import { valueText } from "../src/core/scale";
import { slice } from "../src/core/slice";
import { along, layout } from "../src/views/landscape-plot";
import { centreOf, contour, edges, logRelief, lowest, relief } from "../src/views/relief";
import { cubeOf } from "./cubes";

const N = 41;
const at = Array.from({ length: N }, (_, i) => -1 + i / 20);
const bowl = Float64Array.from({ length: N * N }, (_, i) => at[i % N] ** 2 + at[Math.floor(i / N)] ** 2);
const place = (i: number) => -1 + i / 20;

/** How far the ends of the pieces are from the middle. */
const radii = (pieces: [number, number, number, number][]) =>
  pieces.flatMap(([x0, y0, x1, y1]) => [Math.hypot(place(x0), place(y0)), Math.hypot(place(x1), place(y1))]);

test("the contour of x² + y² = r² is the circle of radius r, closed", () => {
  for (const r of [0.2, 0.5, 0.93]) {
    const pieces = contour(bowl, N, r * r);
    // between two points a straight line stands for the parabola: off by at most (step / 2)² / 2r
    for (const radius of radii(pieces)) expect(Math.abs(radius - r)).toBeLessThanOrEqual(0.025 ** 2 / (2 * r) + 1e-9);
    const ends = pieces.flatMap(([x0, y0, x1, y1]) => [`${x0.toFixed(9)} ${y0.toFixed(9)}`, `${x1.toFixed(9)} ${y1.toFixed(9)}`]);
    const count = new Map<string, number>();
    for (const end of ends) count.set(end, (count.get(end) ?? 0) + 1);
    expect([...count.values()].filter((n) => n % 2)).toEqual([]);
    const length = pieces.reduce((sum, [x0, y0, x1, y1]) => sum + Math.hypot(x1 - x0, y1 - y0) / 20, 0);
    expect(Math.abs(length / (2 * Math.PI * r) - 1)).toBeLessThan(0.01);
  }
});

test("a contour ends beside points that were not computed, and outside the values there is none", () => {
  const torn = bowl.map((v, i) => (i % N > 30 ? NaN : v));
  expect(Math.max(...contour(torn, N, 0.81).flatMap(([x0, , x1]) => [x0, x1]))).toBeLessThanOrEqual(30);
  expect(contour(torn, N, 0.81).length).toBeGreaterThan(20);
  expect(contour(bowl, N, 3)).toEqual([]);
  expect(contour([Infinity, 1, 1, 0], 2, 0.5)).toEqual([]);
});

test("at a saddle the mean of the corners says which of them belong together", () => {
  const ends = (values: number[]) => contour(values, 2, 0.5).map((piece) => piece.map((v) => Number(v.toFixed(3))));
  // the low corners 1 and 3 are cut off where the mean is high, the high ones 0 and 2 where it is low
  expect(ends([1, 0, 0, 1].map((v) => v * 2))).toEqual([[0.75, 0, 1, 0.25], [0.25, 1, 0, 0.75]]);
  expect(ends([0.6, 0, 0, 0.6])).toEqual([[0, 0.167, 0.167, 0], [1, 0.833, 0.833, 1]]);
});

test("a linear relief begins at the smallest value, a signed one at 0", () => {
  const loss = relief([3.2, 5.2], [3.2, 4.1], false);
  expect([loss.of(3.2), loss.of(5.2)]).toEqual([0, 2]);
  expect(loss.ticks.map(([v, text]) => [Number(v.toFixed(6)), text])).toEqual([[0.3, "3.5"], [0.8, "4.0"], [1.3, "4.5"], [1.8, "5.0"]]);
  expect(Math.max(...loss.levels.map(([v]) => v))).toBeLessThanOrEqual(4.1);
  const increase = relief([-0.1, 2], [-0.1, 2], true);
  expect(increase.of(0)).toBe(0);
  expect(relief([0, 1], [0.5, 0.500001], true).levels).toEqual([]);
  expect(increase.ticks.map(([, text]) => text)).toEqual(["−2", "−1", "0", "1", "2"]);
});

test("a logarithmic relief tells decades above the smallest apart, and leaves out what is missing", () => {
  const values = [3, 3.001, 3.01, 4, 103, NaN, Infinity];
  const scale = logRelief(values);
  const heights = values.map(scale.of);
  expect(heights[0]).toBe(0);
  expect(heights[1]).toBeCloseTo(0);
  expect(heights[2]).toBeCloseTo(1);
  expect(heights[3]).toBeCloseTo(3);
  expect(heights[4]).toBeCloseTo(scale.domain[1]);
  expect(heights[5]).toBeNaN();
  const colours = colourScale(scale.domain, false, false);
  expect(colours.rgb(heights[5])).toBeNull();
  expect(colours.rgb(heights[6])).toEqual(colours.rgb(heights[4]));
  expect(scale.levels.every(([v, text]) => Math.abs(v - 3 - Number(text)) < 1e-9)).toBe(true);
  expect(scale.levels.map(([, text]) => text)).toContain("+10");
});

test("a smallest value that stands alone does not take the whole logarithmic scale", () => {
  const scale = logRelief([0, 1e-12, 1, 10]);
  expect(scale.domain).toEqual([0, 6]);
  expect(scale.of(1e-12)).toBe(0);
  expect(logRelief([2, 2, NaN]).domain[1]).toBeGreaterThan(0);
  expect(logRelief([NaN]).of(NaN)).toBeNaN();
});

test("the slices of a surface go through the point, whichever dimension comes first", () => {
  const values = Array.from({ length: 6 }, (_, i) => i);
  for (const dims of [["y", "x"], ["x", "y"]]) {
    const cube = cubeOf({ x: [-1, 0, 1], y: [0, 1] }, { loss: [dims, dims[0] === "y" ? values : [0, 3, 1, 4, 2, 5]] });
    expect([...slice(cube, cube.variables.loss, ["y", "x"], {}).values]).toEqual(values);
    expect([...slice(cube, cube.variables.loss, ["x"], { y: 1 }).values]).toEqual([3, 4, 5]);
  }
});

test("cells reach half way to their neighbours", () => {
  expect(edges([0, 1, 3])).toEqual([-0.5, 0.5, 2, 4]);
  expect(edges([2])).toEqual([1.5, 2.5]);
  const scale = along([0, 1, 3], 0, 90);
  expect([scale(-0.5), scale(4)]).toEqual([0, 90]);
  const { map, below, beside } = layout(640, true);
  expect([below.left, below.right, beside!.top, beside!.bottom]).toEqual([map!.left, map!.right, map!.top, map!.bottom]);
  expect(layout(640, false).map).toBeNull();
});

test("the centre is the model, or the middle where the model is not among the points", () => {
  expect(centreOf([-1, -0.25, 0.5])).toBe(1);
  expect(centreOf([1, 2, 3])).toBe(1);
  expect([lowest([NaN, 3, 2, 2]), lowest([NaN])]).toEqual([2, -1]);
});

test("places along a direction are short", () => {
  expect([0.25000000000000006, -1 / 6, 0, 600, "prose-3"].map(valueText)).toEqual(["0.25", "−0.1667", "0", "600", "prose-3"]);
});

test("decades hold their values, at most so many of them", () => {
  expect(decades([0.02, 30])).toEqual([0.01, 100]);
  expect(decades([5, 5])).toEqual([1, 10]);
  expect(decades([1e-300, 0.5])[0]).toBeCloseTo(1e-12, 20);
  expect(powerTicks([1, 100]).map(([, text]) => text)).toEqual(["1", "2", "5", "10", "20", "50", "100"]);
  expect(powerTicks([1e-12, 1]).map(([v]) => Math.round(Math.log10(v)))).toEqual([-12, -10, -8, -6, -4, -2, 0]);
});

test("a line breaks and a band ends where there is no place", () => {
  const told: string[] = [];
  const note = (name: string) => (...a: number[]) => told.push(`${name}${a.join()}`);
  const context = { beginPath: note("begin"), moveTo: note("m"), lineTo: note("l"), stroke: note("stroke"), fill: note("fill") };
  const points: Point[] = [[0, 0], [1, 1], [2, NaN], [3, 3]];
  stroke(context as never, points);
  expect(told).toEqual(["begin", "m0,0", "l1,1", "m3,3", "stroke"]);
  told.length = 0;
  band(context as never, points, points.map(([x, y]) => [x, y + 5]));
  expect(told).toEqual(["begin", "l0,0", "l1,1", "l1,6", "l0,5", "fill", "begin", "l3,3", "l3,8", "fill"]);
});
