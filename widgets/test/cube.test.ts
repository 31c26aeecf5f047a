import { expect, test } from "vitest";
import { decode, labels, openCube } from "../src/core/cube";
import { cubeOf } from "./cubes";

/** A buffer that starts at an odd byte, as they do in a message. */
function unaligned(bytes: Uint8Array): DataView {
  const holder = new Uint8Array(bytes.length + 3);
  holder.set(bytes, 3);
  return new DataView(holder.buffer, 3, bytes.length);
}

test("typed arrays come out of unaligned buffers", () => {
  const floats = Float32Array.from([1.5, -2, NaN]);
  expect([...(decode("f32", unaligned(new Uint8Array(floats.buffer))) as Float32Array)]).toEqual([1.5, -2, NaN]);
  expect([...(decode("u8", unaligned(Uint8Array.of(0, 1))) as Uint8Array)]).toEqual([0, 1]);
});

test("half precision: known bit patterns", () => {
  const bits = Uint16Array.of(0x0000, 0x3c00, 0xc000, 0x3555, 0x0001, 0x7bff, 0x7c00, 0x7e00);
  const values = [...(decode("f16", unaligned(new Uint8Array(bits.buffer))) as Float32Array)];
  expect(values[1]).toBe(1);
  expect(values[2]).toBe(-2);
  expect(values[3]).toBe(0.333251953125);
  expect(values[4]).toBeCloseTo(5.96e-8, 10);
  expect(values[5]).toBe(65504);
  expect(values[6]).toBe(Infinity);
  expect(values[7]).toBeNaN();
});

test("an unknown value type is named", () => {
  expect(() => decode("c128", new DataView(new ArrayBuffer(8)))).toThrow("c128");
});

test("a message is decoded once", () => {
  const wire = { dims: { layer: 2 }, coords: {}, variables: { a: { dims: ["layer"], shape: [2], dtype: "u8", attrs: {}, data: new DataView(new ArrayBuffer(2)) } } };
  expect(openCube(wire)).toBe(openCube(wire));
  expect(openCube(wire).variables.a.longName).toBe("a");
});

test("a dimension without coordinates counts", () => {
  expect(labels(cubeOf({ layer: 3, head: ["a"] }, {}), "layer")).toEqual([0, 1, 2]);
  expect(labels(cubeOf({ layer: 3, head: ["a"] }, {}), "head")).toEqual(["a"]);
});
