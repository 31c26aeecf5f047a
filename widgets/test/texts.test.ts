import { clipped } from "../src/core/axes";
import { expect, test } from "vitest";
import { textsOn } from "../src/core/tokens";
import { gridShape } from "../src/views/grid";
import { cubeOf } from "./cubes";

test("the words of a grid are those of one text, in the order of its axes", () => {
  const words = ["a0", "a1", "b0", "b1", "c0", "c1", "A0", "A1", "B0", "B1", "C0", "C1"];
  const cube = cubeOf({ sample: ["s", "t"], position: 3, layer: [0, 1] }, { top: [["sample", "position", "layer"], words] });
  const { top } = cube.variables;
  expect(textsOn(cube, top, ["layer", "position"], {})).toEqual(["a0", "b0", "c0", "a1", "b1", "c1"]);
  expect(textsOn(cube, top, ["position", "layer"], { sample: "t" })).toEqual(["A0", "A1", "B0", "B1", "C0", "C1"]);
});

test("cells with words are as wide as these need, unless there are too many", () => {
  const shape = (columns: number, worded: boolean) => gridShape(500, 4, columns, { square: true, worded });
  expect(shape(64, true).cell).toBe(46);
  expect(shape(64, true).width).toBeGreaterThan(500);
  expect(shape(5, true).cell).toBeGreaterThan(80);
  expect(shape(64, false).width).toBeLessThanOrEqual(500);
  expect(shape(400, true).width).toBeLessThanOrEqual(500);
});

test("a text that is too long loses its end, and the path of a module its beginning", () => {
  const c = { measureText: (text: string) => ({ width: text.length }) } as unknown as CanvasRenderingContext2D;
  expect(clipped(c, "increase of the loss", 9)).toBe("increase…");
  expect(clipped(c, "transformer.h.0.ln_1", 8)).toBe("….0.ln_1");
  expect(clipped(c, "1 of 2.5", 4)).toBe("1 o…");
  expect(clipped(c, "short", 9)).toBe("short");
});
