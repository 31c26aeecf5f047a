import { describe, expect, test } from "vitest";
import { finest } from "../src/core/finest";
import { along } from "../src/core/select";
import { slice } from "../src/core/slice";
import { shades, thumbs } from "../src/core/thumbs";
import { rangeHere, rangeOf, thinned } from "../src/views/grid";
import { linesOf } from "../src/views/lines";
import { coloursOf, DASHES } from "../src/views/timeline-plot";
import { cubeOf } from "./cubes";

const cube = cubeOf({ sample: ["a", "b"], test_sample: ["b", "c"], test_position: 2, checkpoint: [0, 600] }, {
  mean: [["sample"], [1, 2]],
  influence: [["sample", "test_sample"], [1, -9, 3, 4]],
  contribution: [["checkpoint", "sample", "test_sample"], [1, 2, 3, 4, 5, 60, 7, 8]],
  by_token: [["sample", "test_sample", "test_position"], [1, 2, 3, -40, 5, 6, 7, 8]],
});
const { influence } = cube.variables;
const names = ["mean", "contribution", "by_token"];

describe("of what says the same more or less finely", () => {
  const shown = (cursor: object, instead: string[] = names, axes = ["sample"]) => {
    const { variable, notes } = finest(cube, influence, instead, axes, cursor as never);
    return [variable.name, ...notes];
  };

  test("the finest is shown whose dimensions are all selected", () => {
    expect(shown({})).toEqual(["mean", "no test sample selected: all 2 test samples"]);
    expect(shown({ test_sample: "b" })).toEqual(["influence"]);
    expect(shown({ test_sample: "b", checkpoint: 600 })).toEqual(["contribution"]);
    expect(shown({ test_sample: "b", test_position: 1 })).toEqual(["by_token"]);
    expect(shown({ test_position: 1 })).toEqual(["mean", "no test sample selected: all 2 test samples"]);
    expect(shown({ checkpoint: 600 }, ["contribution"], ["sample", "test_sample"])).toEqual(["contribution"]);
    expect(shown({ test_sample: "zz" })).toEqual(["mean", "no test sample selected: all 2 test samples", "test sample zz is not among these"]);
  });

  test("what was too heavy to travel is not followed, and that is said", () => {
    expect(shown({ test_sample: "b", test_position: 1 }, ["heavy"])).toEqual(["influence", "does not follow the test position"]);
    expect(shown({ test_sample: "b" }, ["heavy"])).toEqual(["influence"]);
    expect(finest(cube, influence, undefined, ["sample"], { test_position: 1 })).toEqual({ variable: influence, notes: [] });
  });
});

test("a training sample tells nothing of the test sample with its id, and the other way round", () => {
  expect(along(cube, { sample: "b" }).patch).toEqual({ sample: "b" });
  expect(along(cube, { test_sample: "b" }).patch).toEqual({ test_sample: "b" });
  expect(along(cubeOf({ test_sample: ["b"] }, {}), { test_sample: "b" }).patch).toEqual({ test_sample: "b", sample: "b" });
});

test("the strongest is the furthest from 0, with its sign, and leaves out what has no value", () => {
  const odd = cubeOf({ sample: 4, position: 2 }, { v: [["sample", "position"], [1, NaN, -3, NaN, 2, NaN, NaN, NaN]] });
  expect([...slice(odd, odd.variables.v, ["position"], {}, "strongest").values]).toEqual([-3, NaN]);
  expect(slice(odd, odd.variables.v, ["position"], {}, "strongest").notes).toEqual(["strongest of 4 samples"]);
});

test("the colours span what is seen at this place, at all checkpoints", () => {
  const { contribution } = cube.variables;
  expect(rangeHere(cube, contribution, ["sample"], { test_sample: "b", checkpoint: 0 })).toEqual([1, 7]);
  expect(rangeHere(cube, contribution, ["sample", "test_sample"], { checkpoint: 0 })).toEqual([1, 60]);
  // a matrix of one test sample has no use for the range of another
  expect(rangeOf(cube, contribution, ["sample", "checkpoint"], { test_sample: "b" })).toEqual([1, 7]);
  expect(rangeOf(cube, contribution, ["sample", "checkpoint"], {})).toEqual([1.5, 32.5]);
});

test("of many rows in one line of pixels none that stands out is lost", () => {
  const values = new Float64Array(2000 * 3).fill(0.01);
  for (const row of [0, 777, 1999]) values[row * 3 + 1] = -5;
  values[1001 * 3 + 2] = NaN;
  const seen = thinned(values, [2000, 3], [560, 3], true);
  expect(seen).toHaveLength(560 * 3);
  expect([...seen].filter((v) => v === -5)).toHaveLength(3);
  expect([...seen].some(Number.isNaN)).toBe(false);
  expect(seen[Math.floor((777 * 560) / 2000) * 3 + 1]).toBe(-5);
  // of magnitudes the largest counts
  expect([...thinned(Float64Array.from([1, 3, -9, 2]), [4, 1], [2, 1], false)]).toEqual([3, 2]);
  expect([...thinned(Float64Array.from([1, 2, 3, NaN]), [1, 4], [1, 2], true)]).toEqual([2, 3]);
});

test("lines of several runs have a band from the smallest to the largest, unless they have an interval or are one of the runs", () => {
  const runs = cubeOf({ control: ["ticket", "random"], sparsity: [0.5, 0.9], replicate: 3 }, {
    loss: [["control", "sparsity", "replicate"], [1, 2, 6, 4, 5, 6, 7, 8, 9, 10, 11, 15]],
    low: [["control", "sparsity"], [0, 0, 0, 0]],
  });
  const lines = (cursor: object, companions = {}, spread = "replicate") => linesOf(runs, runs.variables.loss, "sparsity", cursor as never, undefined, companions, false, spread).lines;
  const [ticket, random] = lines({});
  expect([[...ticket.values], [...ticket.low!], [...ticket.high!]]).toEqual([[3, 5], [1, 4], [6, 6]]);
  expect([random.place, [...random.high!]]).toEqual([[["control", "random"]], [9, 15]]);
  expect([[...lines({ replicate: 1 })[0].values], lines({ replicate: 1 })[0].low]).toEqual([[2, 5], undefined]);
  expect([...lines({}, { low: "low" })[0].low!]).toEqual([0, 0]);
  expect(lines({}, {}, "")[0].low).toBeUndefined();
});

test("four lines in one picture differ in colour and in dashes", () => {
  for (const dark of [false, true]) expect(new Set(coloursOf(dark, true))).toEqual(new Set(coloursOf(dark, false)));
  expect(new Set(DASHES.map(({ look }) => look)).size).toBe(4);
});

test("a picture is as bright as its values, from 0 to 1 or between the bounds that it names", () => {
  expect([...shades([0, 1, NaN, 0.5])]).toEqual([0, 0, 0, 255, 255, 255, 255, 255, 0, 0, 0, 0, 128, 128, 128, 255]);
  expect([...shades([0, 16, 32], [0, 16])]).toEqual([0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255]);
  expect(thumbs(cube, "pixels")).toBeNull();
});
