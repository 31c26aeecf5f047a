import { expect, test } from "vitest";
import { rampTicks } from "../src/core/legend";
import { cellText, counted, linear, numberText, ticks, tickText, timeScale } from "../src/core/scale";

const STEPS = [0, 200, 600, 900, 1000, 1200, 1800, 3000];

test("linear goes there and back", () => {
  const scale = linear([0, 3000], [50, 650]);
  expect(scale(900)).toBe(230);
  expect(scale.invert(230)).toBe(900);
});

test("ticks are round numbers inside the range", () => {
  expect(ticks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
  expect(ticks(-0.21, 0.21, 4)).toEqual([-0.2, -0.1, 0, 0.1, 0.2]);
  expect(ticks(0, 9950, 8)).toEqual([0, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000]);
});

test("numbers as text", () => {
  expect(tickText(-0.2, 0.1)).toBe("−0.2");
  expect(tickText(1200, 200)).toBe("1200");
  expect(numberText(0.123456)).toBe("0.123");
  expect(numberText(-12.3456)).toBe("−12.3");
  expect(numberText(1234.5)).toBe("1235");
  expect(numberText(0.0000123)).toBe("1.23e−5");
  expect(numberText(NaN)).toBe("no value");
  expect(cellText(0.834, 1)).toBe("0.83");
  expect(cellText(-0.001, 1)).toBe("0.00");
  expect(cellText(NaN, 1)).toBe("");
});

test("no two ticks of an axis read alike, however close the values are", () => {
  const written = (low: number, high: number, step: number) => ticks(low, high, 5).map((t) => tickText(t, step));
  expect(written(2.30255, 2.30263, 2e-5)).toEqual(["2.30256", "2.30258", "2.30260", "2.30262"]);
  expect(written(0.0012, 0.00126, 1e-5)).toEqual(["1.2e−3", "1.21e−3", "1.22e−3", "1.23e−3", "1.24e−3", "1.25e−3", "1.26e−3"]);
  expect(written(300000, 302000, 500)).toEqual(["3e5", "3.005e5", "3.01e5", "3.015e5", "3.02e5"]);
  expect(written(0, 4e-5, 1e-5)).toEqual(["0", "1e−5", "2e−5", "3e−5", "4e−5"]);
});

test("numbers below a colour bar do not run into each other", () => {
  expect(rampTicks([-1, 1], 190).map(([, text]) => text)).toEqual(["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
  expect(rampTicks([-0.0137, 0.0137], 190).map(([, text]) => text)).toEqual(["−0.01", "0.00", "0.01"]);
});

test("one of something is no several", () => {
  expect([counted(0, "test sample"), counted(1, "test sample"), counted(1437, "sample")]).toEqual(["0 test samples", "1 test sample", "1,437 samples"]);
});

test("time is linear where there is room", () => {
  const wide = timeScale(STEPS, [0, 900]);
  expect(wide.words).toBe("");
  expect(wide.at(3)).toBe(270);
  expect(wide.index(285)).toBe(3);
  expect(wide.index(286)).toBe(4);
});

test("crowded steps are spread, and the axis says how", () => {
  const narrow = timeScale(STEPS, [0, 280]);
  expect(narrow.words).toBe("evenly spaced");
  expect(STEPS.map((_, i) => narrow.at(i))).toEqual([0, 40, 80, 120, 160, 200, 240, 280]);
  expect(timeScale([0, 1, 4, 9, 100], [0, 200]).words).toBe("square-root spacing");
});

test("many regular steps stay linear", () => {
  expect(timeScale(Array.from({ length: 500 }, (_, i) => i * 10), [0, 800]).words).toBe("");
});
