import { expect, test } from "vitest";
import { absentAlong, extent, slice } from "../src/core/slice";
import { rangeOf } from "../src/views/grid";
import { cubeOf } from "./cubes";

// value = 100 checkpoint + 10 layer + head, checkpoints 0, 200, 3000
const numbers = [0, 1, 2].flatMap((c) => [0, 1].flatMap((l) => [0, 1, 2].map((h) => 100 * c + 10 * l + h)));
const cube = cubeOf({ checkpoint: [0, 200, 3000], layer: [0, 1], head: [0, 1, 2] }, { score: [["checkpoint", "layer", "head"], numbers] });
const score = cube.variables.score;

test("without a selection the last checkpoint is shown", () => {
  const { values, shape, notes } = slice(cube, score, ["layer", "head"], {});
  expect([...values]).toEqual([200, 201, 202, 210, 211, 212]);
  expect(shape).toEqual([2, 3]);
  expect(notes).toEqual(["at checkpoint 3000"]);
});

test("the Focus picks, and axes may come in another order", () => {
  const { values, notes } = slice(cube, score, ["head", "layer"], { checkpoint: 190 });
  expect([...values]).toEqual([100, 110, 101, 111, 102, 112]);
  expect(notes).toEqual(["at checkpoint 200"]);
});

test("samples are pooled without their missing values, and it says so", () => {
  const samples = cubeOf({ sample: ["a", "b", "c"], layer: [0, 1] }, { loss: [["sample", "layer"], [1, NaN, 3, NaN, 5, 7]] });
  const at = (cursor: object, reduce: "mean" | "max" = "mean") => slice(samples, samples.variables.loss, ["layer"], cursor as never, reduce);
  expect([...at({}).values]).toEqual([3, 7]);
  expect([...at({}, "max").values]).toEqual([5, 7]);
  expect(at({}).notes).toEqual(["mean over 3 samples"]);
  expect([...at({ sample: ["a", "b"] }).values]).toEqual([2, NaN]);
  expect(at({ sample: "b" }).notes).toEqual(["sample b"]);
  expect(at({ sample: "zz" }).notes).toContain("sample zz is not among these");
});

test("values without checkpoints say that they do not follow, or where they are from", () => {
  const plain = cubeOf({ layer: [0, 1] }, { score: [["layer"], [1, 2]] });
  const notes = (cursor: object) => slice(plain, plain.variables.score, ["layer"], cursor as never).notes;
  expect(notes({})).toEqual([]);
  expect(notes({ checkpoint: 900 })).toEqual(["does not follow the checkpoint"]);
  plain.coords.checkpoint = { dims: [], values: [3000] };
  expect(notes({ checkpoint: 900 })).toEqual(["at checkpoint 3000"]);
});

test("a dimension that cannot be averaged shows its first value", () => {
  const kinds = cubeOf({ kind: ["Q", "K"], layer: [0, 1] }, { score: [["kind", "layer"], [1, 2, 3, 4]] });
  expect(slice(kinds, kinds.variables.score, ["layer"], {}).notes).toEqual(["kind Q (the first of 2)"]);
  expect([...slice(kinds, kinds.variables.score, ["layer"], { kind: "K" }).values]).toEqual([3, 4]);
});

test("colours span the whole variable, so that checkpoints compare", () => {
  expect(rangeOf(cube, score, ["layer", "head"], { checkpoint: 0 })).toEqual([0, 212]);
  const samples = cubeOf({ sample: ["a", "b"], layer: [0, 1] }, { loss: [["sample", "layer"], [-10, 0, 10, 2]] });
  expect(rangeOf(samples, samples.variables.loss, ["layer"], {})).toEqual([0, 1]);
  expect(rangeOf(samples, samples.variables.loss, ["layer"], { sample: "a" })).toEqual([-10, 10]);
});

test("the extent skips what is no number", () => {
  expect(extent([NaN, 3, -1, Infinity])).toEqual([-1, 3]);
  expect(extent([NaN])).toEqual([0, 1]);
});

test("the blocks of a head are taken together until one is chosen", () => {
  const heads = cubeOf({ layer: [0], block: ["Q", "O"] }, { mass: [["layer", "block"], [1, 3]] });
  expect(slice(heads, heads.variables.mass, ["layer"], {})).toMatchObject({ notes: ["mean over 2 blocks"] });
  expect([...slice(heads, heads.variables.mass, ["layer"], {}).values]).toEqual([2]);
  expect([...slice(heads, heads.variables.mass, ["layer"], { block: "O" }).values]).toEqual([3]);
});

test("what adds up says so: a sum over modules where none is chosen, but over no models", () => {
  const dots = cubeOf({ model: ["m1", "m2"], module: ["q", "k", "v"], sample_a: ["p"] }, { pair_dot: [["model", "module", "sample_a"], [1, 2, 4, 8, 16, 32]] });
  dots.coords.module_layer = { dims: ["module"], values: [0, 0, 1] };
  const at = (cursor: object, reduce?: "mean") => slice(dots, dots.variables.pair_dot, ["sample_a"], cursor as never, reduce);
  expect(at({}).notes).toEqual(["model m1 (the first of 2)", "module q (the first of 3)"]);
  dots.variables.pair_dot.words = { reduce: "sum" };
  expect([at({}).values[0], at({}).notes]).toEqual([7, ["model m1 (the first of 2)", "sum over 3 modules"]]);
  expect([at({ layer: 0 }).values[0], at({ layer: 0 }).notes[1]]).toEqual([3, "sum over 2 modules"]);
  expect([at({ module: "v", model: "m2" }).values[0], at({ module: "v" }).notes[1]]).toEqual([32, "module v"]);
  expect(at({}, "mean").notes[1]).toBe("mean over 3 modules");
  expect(rangeOf(dots, dots.variables.pair_dot, ["sample_a"], {})).toEqual([7, 56]);
  expect(rangeOf(dots, dots.variables.pair_dot, ["sample_a"], { module: "v" })).toEqual([1, 32]);
  expect(at({ layer: 7 }).notes).toContain("layer 7 is not among these");
  dots.coords.module_block = { dims: ["module"], values: ["Q", "K", "V"] };
  expect(at({ layer: 0, block: "V" }).notes).toContain("layer 0 × block V is not among these");
});

test("a sample that is on one axis of a matrix is not missing on the other", () => {
  const pairs = cubeOf({ sample_a: ["p"], sample_b: ["c"] }, {});
  const missing = (cursor: object) => absentAlong(pairs, ["sample_a", "sample_b"], cursor as never);
  expect(missing({ sample: "p" })).toEqual([]);
  expect(missing({ sample: "x" })).toEqual(["sample x is not among these"]);
  expect(missing({ sample_a: "x", sample: "c" })).toEqual(["sample a x is not among these"]);
  expect(missing({ sample_a: "x", sample_b: "c" })).toEqual(["sample a x is not among these"]);
});

test("of a plane through the weights the point nearest to the weights is shown", () => {
  const plane = cubeOf({ sample: ["a", "b"], x: [-1, 0.1, 1], y: [-2, -1, 3] }, { rise: [["sample", "x", "y"], Array.from({ length: 18 }, (_, i) => i)] });
  const { values, notes } = slice(plane, plane.variables.rise, ["sample"], {});
  expect([...values]).toEqual([4, 13]);
  expect(notes).toEqual(["x 0.1", "y −1"]);
});
