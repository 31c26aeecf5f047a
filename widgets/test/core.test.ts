import { expect, test } from "vitest";
import { airy, roundTicks } from "../src/core/axes";
import { selCode, updateCode } from "../src/core/code";
import { isComparison, panelsOf } from "../src/core/compare";
import { labelToken, visibleToken } from "../src/core/dom";
import { stepped } from "../src/core/hands";
import { describe as words, measure, statuses } from "../src/core/measure";
import { chosen, sources } from "../src/core/places";
import { logarithmic, numberText } from "../src/core/scale";
import { along, choice, choose } from "../src/core/select";
import type { Cursor } from "../src/core/types";
import { cubeOf } from "./cubes";

const heads = cubeOf({ checkpoint: [0, 600], layer: [0, 1], head: [0, 1] }, {
  score: [["checkpoint", "layer", "head"], [0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.2, NaN]],
  low: [["checkpoint", "layer", "head"], [0, 0, 0, 0, 0, 0.8, 0.1, NaN]],
  high: [["checkpoint", "layer", "head"], [0.2, 0.2, 0.2, 0.2, 0.2, 1, 0.3, NaN]],
  null: [["layer", "head"], [0.15, 0.15, 0.15, 0.15]],
  significant: [["layer", "head"], [1, 1, 0, 1]],
});
const asked = { cube: heads, companions: { low: "low", high: "high", null: "null" }, cursor: {} };
const axes = ["layer", "head"];

test("a value says what it is besides a number", () => {
  const reading = measure(heads.variables.score, axes, asked);
  expect([0, 1, 2, 3].map(reading.status)).toEqual(["undecided", "plain", "undecided", "none"]);
  expect(new Set(statuses(reading))).toEqual(new Set(["undecided", "none"]));
  expect(words(reading, 0)).toEqual(["score 0.100", "interval: 0 to 0.200", "null 0.150", "interval holds the null"]);
  expect(words(reading, 3)).toEqual(["score no value", "no interval", "null 0.150"]);
  const tested = measure(heads.variables.score, axes, { ...asked, companions: { significant: "significant" } });
  expect([0, 1, 2, 3].map(tested.status)).toEqual(["plain", "plain", "insignificant", "none"]);
  expect(reading.notes).toEqual(["at checkpoint 600"]);
});

test("a selection that is not there is said", () => {
  expect(measure(heads.variables.score, axes, { ...asked, cursor: { head: 99 } }).notes).toContain("head 99 is not among these");
});

test("a difference is signed, and has no interval of its own", () => {
  const reading = measure(heads.variables.score, axes, { ...asked, cursor: { checkpoint: 600 }, minus: { checkpoint: 0 }, pin: { checkpoint: 600 } });
  expect([...reading.values.slice(0, 3)].map((v) => Number(v.toFixed(3)))).toEqual([0, 0.8, 0.1]);
  expect(reading).toMatchObject({ signed: true, difference: true, low: undefined, notes: [] });
  expect(words(reading, 1)[0]).toBe("difference in score 0.800");
});

test("bounds decide about the sign, not the end of an interval", () => {
  const shares = cubeOf({ layer: 2 }, { share: [["layer"], [0.1, 0.2]], low: [["layer"], [-0.001, 0.1]] });
  const read = () => measure(shares.variables.share, ["layer"], { cube: shares, companions: { low: "low" }, cursor: {} }).signed;
  expect(read()).toBe(true);
  shares.variables.share.bounds = [0, 1];
  expect(read()).toBe(false);
});

test("a place tells what it is about", () => {
  const cube = cubeOf({ source: ["0.1", "1.2"], target: ["0.1", "1.2"], module: ["wte", "attn"], layer_a: [0, 1] }, {});
  cube.coords.source_layer = { dims: ["source"], values: [0, 1] };
  cube.coords.source_head = { dims: ["source"], values: [1, 2] };
  cube.coords.target_layer = { dims: ["target"], values: [0, 1] };
  cube.coords.module_layer = { dims: ["module"], values: [-1, 1] };
  const none = { cursor: {}, places: [] };
  const picked = choice(cube, ["source", "target"], [0, 1], none);
  expect(picked.patch).toEqual({ source: "0.1", target: "1.2", layer: 1, head: 2 });
  expect(picked.bound).toEqual({ source: ["layer", "head"], target: ["layer", "head"] });
  expect(choice(cube, ["module"], [1], none).patch).toEqual({ module: "attn", layer: 1 });
  expect(choice(cube, ["module"], [0], none).patch).toEqual({ module: "wte", layer: null });
  expect(choice(cube, ["layer_a"], [1], none).patch).toEqual({ layer_a: 1, layer: 1 });
  expect(along(cube, { target: null }).patch).toEqual({ target: null, layer: null, head: null });
  expect(along(cube, { source: null }).patch).toEqual({ source: null });
});

test("two pairs of heads are two heads, and not all of both layers", () => {
  const cube = cubeOf({ kind: ["Q", "K"], source: ["0.1", "0.3"], target: ["1.2", "2.3"], layer: [0, 1, 2], head: [0, 1, 2, 3] }, {});
  const first = choose(cube, { kind: "K", source: "0.1", target: "1.2" }, { cursor: {}, places: [] });
  expect(first).toMatchObject({ patch: { kind: "K", source: "0.1", target: "1.2", layer: 1, head: 2 }, places: [] });
  const cursor = first.patch as Cursor;
  const both = choose(cube, { kind: "K", source: "0.1", target: "2.3" }, { cursor, places: [] }, true);
  expect(both.patch).toEqual({ kind: "K", source: "0.1", target: ["1.2", "2.3"], layer: [1, 2], head: [2, 3] });
  const is = chosen(cube, ["layer", "head"], both.patch as Cursor, both.places)!;
  expect([is([1, 2]), is([2, 3]), is([1, 3]), is([2, 2])]).toEqual([true, true, false, false]);
  const less = choose(cube, { kind: "K", source: "0.1", target: "2.3" }, { cursor: both.patch as Cursor, places: both.places! }, true);
  expect(less).toMatchObject({ patch: cursor, places: [] });
});

test("a circuit tells its kind and both its heads, and the target is the one that is looked at", () => {
  const cube = cubeOf({ circuit: ["K 0.0 → 1.2", "Q mlp 0 → 1.1"] }, {});
  cube.coords.circuit_kind = { dims: ["circuit"], values: ["K", "Q"] };
  cube.coords.circuit_source = { dims: ["circuit"], values: ["0.0", "mlp 0"] };
  cube.coords.circuit_source_layer = { dims: ["circuit"], values: [0, 0] };
  cube.coords.circuit_target = { dims: ["circuit"], values: ["1.2", "1.1"] };
  const told = along(cube, { circuit: "K 0.0 → 1.2" });
  expect(told.patch).toEqual({ circuit: "K 0.0 → 1.2", kind: "K", source: "0.0", source_layer: 0, target: "1.2", layer: 1, head: 2 });
  expect(told.bound.target).toEqual(["layer", "head"]);
  expect(told.bound.source).toEqual(["layer", "head"]);
  expect(along(cube, { source: "0.0", target: "1.1" }).patch.circuit).toBeNull();
});

test("a source beside a head is a second mark, and by itself it is the head", () => {
  const parts = cubeOf({ layer: [0, 1], head: [0, 1], source: ["embed", "0.1"] }, {});
  parts.coords.source_layer = { dims: ["source"], values: [-1, 0] };
  expect(along(parts, { source: "0.1" }).patch).toEqual({ source: "0.1" });
  const alone = cubeOf({ source: ["embed", "0.1"] }, {});
  expect(along(alone, { source: "0.1" }).patch).toEqual({ source: "0.1", layer: 0, head: 1 });
  expect(along(alone, { source: "embed" }).patch).toEqual({ source: "embed", layer: null, head: null });
  expect(sources({ source: ["0.1", "embed", "mlp 1"] })).toEqual([{ layer: 0, head: 1 }]);
});

test("a selection is code that Python takes", () => {
  expect(selCode({ layer: 1, head: [2, 3], sample: 'a "b"' })).toBe('ds.sel(layer=1, head=[2, 3], sample="a \\"b\\"")');
  expect(selCode({ "my dim": true })).toBe('ds.sel({"my dim": True})');
  expect(selCode({})).toBe("ds");
  expect(updateCode({ layer: 1 })).toBe('focus.update({"layer": 1})');
});

test("a comparison is two pictures and their difference", () => {
  const compared = { dim: "checkpoint", from: 600, to: 3000, show: "all" as const };
  expect(panelsOf(compared).map((p) => p.words)).toEqual(["checkpoint 600", "checkpoint 3000", "Difference: checkpoint 3000 minus 600"]);
  expect(panelsOf({ ...compared, show: "difference" })).toEqual([{ words: "Difference: checkpoint 3000 minus 600", at: { checkpoint: 3000 }, minus: { checkpoint: 600 } }]);
  expect([isComparison(compared), isComparison(null), isComparison(undefined)]).toEqual([true, false, false]);
});

test("keys lead along a list and stop at its ends", () => {
  expect([stepped(null, "ArrowRight", 5), stepped(4, "ArrowRight", 5), stepped(1, "Home", 5), stepped(1, "End", 5)]).toEqual([0, 4, 0, 4]);
  expect([stepped(1, "b", 5), stepped(null, "ArrowLeft", 0)]).toEqual([undefined, null]);
});

test("axes have air, and start at 0 where the values come near it", () => {
  expect(airy([0.1, 1])).toEqual([0, 1.05]);
  expect(airy([0.9, 1])[0]).toBeCloseTo(0.895);
  expect([airy([0, 0]), airy([3, 3]), airy([-3, -3])]).toEqual([[-0.5, 0.5], [0, 6], [-6, 0]]);
  expect(roundTicks([0, 1], 4)).toEqual([[0, "0.0"], [0.2, "0.2"], [0.4, "0.4"], [0.6, "0.6"], [0.8, "0.8"], [1, "1.0"]]);
});

test("decades are at even distances", () => {
  const scale = logarithmic([0.01, 100], [0, 400]);
  expect([0.01, 0.1, 1, 100].map(scale).map(Math.round)).toEqual([0, 100, 200, 400]);
  expect(scale(0)).toBeNaN();
  expect(scale.invert(200)).toBeCloseTo(1);
});

test("numbers keep three digits", () => {
  expect([0.00999999977, 0.0001, Infinity, -0.5].map((v) => numberText(v))).toEqual(["0.0100", "0.000100", "∞", "−0.500"]);
});

test("what has no glyph is made visible", () => {
  expect([visibleToken("\u0000a\u001b"), visibleToken("\u202eabc"), visibleToken("שלום")]).toEqual(["␀a␛", "⟨202e⟩abc", "שלום"]);
  expect([labelToken("<|endoftext|>"), labelToken("<s>"), labelToken(" the")]).toEqual(["⟨endo…⟩", "<s>", "·the"]);
});
