import { expect, test } from "vitest";
import { baseName, eitherSide, followed, indicesAt, patched, same, unmet } from "../src/core/rules";
import { along } from "../src/core/select";
import { chosen, toggled } from "../src/core/places";
import type { Cursor, Value } from "../src/core/types";
import cases from "../../tests/views/focus_cases.json";
import { cubeOf } from "./cubes";

interface Case {
  coords: Record<string, Value[]>;
  others?: Record<string, [string, Value[]]>;
  cursor: Cursor;
  selected: Record<string, Value[]>;
}

const cube = cubeOf({ checkpoint: [0, 200, 600, 3000], layer: [0, 1], head: [0, 1, 2, 3], sample_a: ["x", "y"], query: 3 }, {});

test("a variant of a dimension is about its base", () => {
  expect(["sample_a", "test_sample", "source_layer", "layer_b", "query", "key", "layer", "null"].map(baseName))
    .toEqual(["sample", "sample", "layer", "layer", "position", "position", null, null]);
  expect(followed("checkpoint")).toEqual(["checkpoint", "step"]);
});

test("dimensions follow by exact name first, then by base name", () => {
  expect(indicesAt(cube, "layer", { layer: 1 })).toEqual([1]);
  expect(indicesAt(cube, "sample_a", { sample: "y" })).toEqual([1]);
  expect(indicesAt(cube, "sample_a", { sample: "y", sample_a: "x" })).toEqual([0]);
  expect(indicesAt(cube, "query", { position: 2 })).toEqual([2]);
});

test("time matches the nearest training step, the others only what is there", () => {
  expect(indicesAt(cube, "checkpoint", { checkpoint: 950 })).toEqual([2]);
  expect(indicesAt(cube, "checkpoint", { step: 2000 })).toEqual([3]);
  expect(indicesAt(cube, "layer", { layer: 7 })).toBeNull();
  expect(indicesAt(cube, "head", { head: [3, 9, 1] })).toEqual([3, 1]);
});

test("a dimension follows a coordinate of a base name", () => {
  const modules = cubeOf({ module: ["a", "b", "c"] }, {});
  modules.coords.module_layer = { dims: ["module"], values: [0, 1, 1] };
  modules.coords.module_block = { dims: ["module"], values: ["Q", "K", "Q"] };
  expect(indicesAt(modules, "module", { layer: 1 })).toEqual([1, 2]);
  expect(indicesAt(modules, "module", { layer: 1, block: "Q" })).toEqual([2]);
  expect(indicesAt(modules, "module", { module: "a", layer: 1 })).toEqual([0]);
});

test("a patch sets, replaces and clears", () => {
  expect(patched({ layer: 1, head: 2 }, { head: null, sample: "s" })).toEqual({ layer: 1, sample: "s" });
  expect(same({ a: 1, b: [2] }, { b: [2], a: 1 })).toBe(true);
  expect(same({ a: 1 }, { a: "1" })).toBe(false);
});

test("toggling adds exactly one place, then takes it away", () => {
  expect(toggled({}, [], { layer: 1, head: 2 })).toEqual({ patch: { layer: 1, head: 2 }, places: [] });
  expect(toggled({ layer: 1, head: 2 }, [], { layer: 1, head: 3 })).toEqual({ patch: { layer: 1, head: [2, 3] }, places: [] });
  const two = [{ layer: 0, head: 0 }, { layer: 1, head: 2 }];
  expect(toggled({ layer: 0, head: 0 }, [], two[1])).toEqual({ patch: { layer: [0, 1], head: [0, 2] }, places: two });
  expect(toggled({ layer: [0, 1], head: [0, 2] }, two, two[0])).toEqual({ patch: { layer: 1, head: 2 }, places: [] });
  expect(toggled({ layer: 1, head: 2 }, [], { layer: 1, head: 2 })).toEqual({ patch: { layer: null, head: null }, places: [] });
});

test("places count while they agree with what is selected along each dimension", () => {
  const two = [{ layer: 0, head: 0 }, { layer: 1, head: 2 }];
  const cursor = { layer: [0, 1], head: [0, 2] };
  const test = chosen(cube, ["layer", "head"], cursor, two)!;
  expect([test([0, 0]), test([1, 2]), test([0, 2])]).toEqual([true, true, false]);
  expect(chosen(cube, ["layer", "head"], { ...cursor, layer: 1 }, two)!([1, 0])).toBe(true);
  expect(chosen(cube, ["layer"], cursor, two)!([1])).toBe(true);
  expect(chosen(cube, ["layer"], {}, two)).toBeNull();
});

test.each(cases as unknown as Case[])("as in Python: $why", ({ coords, others, cursor, selected }) => {
  const here = cubeOf(coords, {});
  for (const [name, [dim, values]] of Object.entries(others ?? {})) here.coords[name] = { dims: [dim], values };
  const found = Object.keys(coords).map((d) => [d, indicesAt(here, d, cursor)?.map((i) => coords[d][i])]);
  expect(Object.fromEntries(found.filter(([, values]) => values))).toEqual(selected);
});

const pairs = cubeOf({ pair: ["p1 × c1", "p1 × c2", "p2 × c1"], sample_a: ["p1", "p2"], sample_b: ["c1", "c2"] }, {});
pairs.coords.pair_sample_a = { dims: ["pair"], values: ["p1", "p1", "p2"] };
pairs.coords.pair_sample_b = { dims: ["pair"], values: ["c1", "c2", "c1"] };
pairs.coords.pair_task_a = { dims: ["pair"], values: ["prose", "prose", "verse"] };

test("what is asked for and is not there is told", () => {
  expect(unmet(pairs, "pair", { sample_a: "p2", sample_b: "c2" })).toEqual([["sample_a", ["p2"]], ["sample_b", ["c2"]]]);
  expect(unmet(pairs, "pair", { sample: "x" })).toEqual([["sample", ["x"]]]);
  expect(unmet(pairs, "pair", { sample_a: "p1", head: 3 })).toEqual([]);
  expect(unmet(pairs, "pair", { pair: "p9 × c9", sample_a: "p9" })).toEqual([["pair", ["p9 × c9"]]]);
});

test("a pair tells both its samples and no task, and gives way to a choice of them", () => {
  const told = along(pairs, { pair: "p2 × c1" });
  expect(told.patch).toEqual({ pair: "p2 × c1", sample_a: "p2", sample_b: "c1", sample: ["p2", "c1"] });
  expect(told.bound).toEqual({ pair: ["sample_a", "sample", "sample_b"], sample_a: ["sample"], sample_b: ["sample"] });
  expect(along(pairs, { sample_a: "p1", sample_b: "c2" }).patch).toEqual({ pair: null, sample_a: "p1", sample_b: "c2", sample: ["p1", "c2"] });
  expect(along(pairs, { pair: null }).patch).toEqual({ pair: null, sample_a: null, sample_b: null, sample: null });
});

test("what may be on either of two sides is on either", () => {
  const both = cubeOf({ source: ["0.1", "1.2"], target: ["0.1", "1.2"], kind: ["Q", "K"] }, {});
  for (const side of ["source", "target"]) {
    both.coords[`${side}_layer`] = { dims: [side], values: [0, 1] };
    both.coords[`${side}_head`] = { dims: [side], values: [1, 2] };
  }
  const either = chosen(both, ["source", "target"], { layer: 1, head: 2 })!;
  expect([either([1, 0]), either([0, 1]), either([1, 1]), either([0, 0])]).toEqual([true, true, true, false]);
  const named = chosen(both, ["source", "target"], { source: "0.1", target: "1.2", layer: 1, head: 2 })!;
  expect([named([0, 1]), named([1, 1]), named([0, 0])]).toEqual([true, false, false]);
  expect([eitherSide("layer_a", "layer_b", { layer: 1 }), eitherSide("layer_a", "layer_b", { layer_a: 1 }), eitherSide("layer", "head", {})]).toEqual([true, false, false]);
});

test("a long list of values is looked up", () => {
  const many = cubeOf({ token_id: Array.from({ length: 50_000 }, (_, i) => 2 * i) }, {});
  const wanted = Array.from({ length: 20_000 }, (_, i) => 4 * i);
  const began = performance.now();
  expect(indicesAt(many, "token_id", { token_id: wanted })).toEqual(wanted.map((w) => w / 2));
  expect(indicesAt(many, "token_id", { token_id: [1, 7] })).toBeNull();
  expect(performance.now() - began).toBeLessThan(500);
});
