import { expect, test } from "vitest";
import { colourScale, hex, inkOn, luminance, pixels } from "../src/core/colour";

test("magnitudes: viridis from zero, ever lighter", () => {
  const scale = colourScale([0.1, 0.8], false);
  expect(scale.domain).toEqual([0, 0.8]);
  expect(scale.rgb(0)).toEqual([68, 1, 84]);
  expect(scale.rgb(0.8)).toEqual([253, 231, 37]);
  const light = Array.from({ length: 50 }, (_, i) => luminance(scale.rgb((0.8 * i) / 49)!));
  expect(light.every((v, i) => i === 0 || v >= light[i - 1])).toBe(true);
});

test.each([false, true])("signed values: centred on zero, blue below, orange above (dark: %s)", (dark) => {
  const scale = colourScale([-0.1, 0.4], dark);
  expect(scale.domain).toEqual([-0.4, 0.4]);
  const [low, middle, high] = [-0.4, 0, 0.4].map((v) => scale.rgb(v)!);
  expect(low[2]).toBeGreaterThan(low[0]);
  expect(high[0]).toBeGreaterThan(high[2]);
  expect(Math.max(...middle) - Math.min(...middle)).toBeLessThan(12);
});

test("an effect that could be negative is centred on zero too", () => {
  expect(colourScale([0, 0.3], false, true).domain).toEqual([-0.3, 0.3]);
});

test("pixels are opaque ABGR, and no value is no pixel", () => {
  expect([...pixels([0, NaN, 1], colourScale([0, 1], false))]).toEqual([0xff540144, 0, 0xff25e7fd]);
});

test("text on a cell can be read", () => {
  for (const scale of [colourScale([0, 1], false), colourScale([-1, 1], false), colourScale([-1, 1], true)]) {
    for (let v = scale.domain[0]; v <= 1; v += 0.01) {
      const cell = luminance(scale.rgb(v)!);
      const ink = luminance(hex(inkOn(scale.rgb(v)!)));
      expect((Math.max(cell, ink) + 0.05) / (Math.min(cell, ink) + 0.05)).toBeGreaterThan(4.5);
    }
  }
});
