import { expect, test } from "vitest";
import type { Reading } from "../src/core/measure";
import { gridShape } from "../src/views/grid";
import { words } from "../src/views/grid-plot";
import { aboutLine, plainText, tokenLines } from "../src/views/matrix-words";
import { missingWords, placesAlong, rowWords, textOf } from "../src/views/pair-words";
import { tokensOf } from "../src/core/tokens";
import { cubeOf } from "./cubes";

const cube = cubeOf({ pair: ["p1 × c1", "p1 × c2", "p2 × c1"], position_a: 3, position_b: 3, sample_a: ["p1", "p2"], sample_b: ["c1", "c2"] }, {
  token_text_a: [["pair", "position_a"], ["To", " be", "", "To", " be", "", "or", " not", "to"]],
  text_a: [["sample_a"], ["To be,\nor not", ""]],
  task_a: [["sample_a"], ["prose", "verse"]],
  loss_a: [["sample_a"], [3.25, NaN]],
  token_a: [["sample_a", "sample_b"], [1, 2, 3, 4]],
  token_b: [["sample_b", "sample_a"], [" x", " y", "\n", ""]],
});
cube.coords.pair_sample_a = { dims: ["pair"], values: ["p1", "p1", "p2"] };
cube.coords.pair_sample_b = { dims: ["pair"], values: ["c1", "c2", "c1"] };
const as = { rows: "pair", side: "a", of: "pair_sample_a", order: "most conflicting first" };

test("a strip says which pair it shows, and why", () => {
  const words = (row: number, cursor: object) => rowWords(cube, as, row, cursor as never);
  expect(words(0, {})).toBe("text a of pair p1 × c1 (the first of 3, most conflicting first)");
  expect(words(1, { sample_a: "p1", sample_b: "c2" })).toBe("text a of pair p1 × c2");
  expect(words(0, { sample_a: "p1" })).toBe("text a of pair p1 × c1 (the first of 2 selected, most conflicting first)");
  expect(words(2, { sample_a: "p1" })).toBe("text a of pair p2 × c1");
  expect(rowWords(cubeOf({ sample: ["s", "t"] }, {}), { rows: "sample" }, 1, {})).toBe("sample t");
  expect(textOf(cube, as, 2)).toBe("p2");
  expect(textOf(cube, { rows: "pair" }, 2)).toBe("");
});

test("a pair that is not here is told, and a sample that is not leaves the first", () => {
  const words = (cursor: object) => missingWords(cube, as, cursor as never);
  expect(words({})).toBe("");
  expect(words({ sample: "c1" })).toBe("");
  expect(words({ sample_a: "p2", sample_b: "c2", sample: ["p2", "c2"] })).toBe("p2 × c2 is not among the 3 pairs looked at token by token");
  expect(words({ pair: "p7 × c7" })).toBe("p7 × c7 is not among the 3 pairs looked at token by token");
  expect(words({ sample_a: "p7" })).toBe("No pair of p7 is among the 3 pairs looked at token by token");
  expect(words({ sample: ["x", "y"] })).toBe("No pair of x, y is among the 3 pairs looked at token by token");
  expect(missingWords(cubeOf({ sample: ["s"] }, {}), { rows: "sample" }, { sample: "zz" })).toBe("");
});

test("a place in one text is none in the other", () => {
  expect(placesAlong(cube, "position_a", { position_a: 2 })).toEqual([2]);
  expect(placesAlong(cube, "position_b", { position_a: 2 })).toEqual([]);
  expect(placesAlong(cube, "position_b", { position: 2 })).toEqual([]);
  expect(placesAlong(cubeOf({ position: 3 }, {}), "position", { position: [0, 2] })).toEqual([0, 2]);
});

test("tokens come from the variable that is named, whichever way it lies", () => {
  expect(tokensOf(cube, 2, 3, "token_text_a", "position_a")).toEqual(["or", " not", "to"]);
  const upright = cubeOf({ position: 2, sample: 3 }, { token: [["position", "sample"], ["a", "b", "c", "d", "e", "f"]] });
  expect(tokensOf(upright, 1, 3)).toEqual(["b", "e", "2"]);
});

test("a tooltip has the task, numbers and the beginning of the text of each sample", () => {
  expect(aboutLine(cube, "sample_a", ["task_a", "loss_a", "text_a"], 0)).toBe("p1 · prose · loss_a 3.25 · “To be, or not”");
  expect(aboutLine(cube, "sample_a", ["task_a", "loss_a", "text_a"], 1)).toBe("p2 · verse");
  expect(aboutLine(cube, "sample_b", [], 1)).toBe("");
  expect(tokenLines(cube, ["sample_a", "sample_b"], ["token_a", "token_b"], [0, 1])).toEqual(["token_a: 2", "token_b: ↵"]);
  expect([...plainText("a\tb ".repeat(100))]).toHaveLength(72);
});

test("labels stand upright where they do not fit beside each other", () => {
  const shape = (text: string) => gridShape(500, 12, 10, { rowLabels: ["a"], columnLabels: Array(10).fill(text), square: true });
  expect([shape("code-0").cell, shape("code-0").steep, shape("codes-0").steep]).toEqual([44, false, true]);
});

test("a picture has room for what its columns are called", () => {
  const shape = (columns: string) => gridShape(500, 3, 1, { rowLabels: ["0"], columnLabels: ["0.8"], columns, square: true });
  expect(shape("head").width).toBe(shape("").width);
  const { width, left, cell } = shape("share of weights set to zero");
  expect(width / 2).toBeGreaterThan(Math.max(left + cell / 2, "share of weights set to zero".length * 2.9));
  expect(gridShape(120, 3, 1, { columns: "share of weights set to zero" }).width).toBe(120);
});

test("a negative value has its number in a cell where a positive one has", () => {
  const pen = { measureText: (text: string) => ({ width: 6.2 * text.length }) as TextMetrics };
  const written = (value: number, width: number) => words(pen, { values: new Float64Array([value]) } as unknown as Reading, 0, 0.07, width);
  expect([written(0.003, 42), written(-0.003, 42), written(-0.003, 60), written(-0.003, 20)]).toEqual(["0.003", "−.003", "−0.003", ""]);
});
