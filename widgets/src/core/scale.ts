// Scales, ticks and numbers as text.
export interface Scale {
  (value: number): number;
  invert(pixel: number): number;
}

export function linear([d0, d1]: [number, number], [r0, r1]: [number, number]): Scale {
  const span = d1 - d0 || 1;
  const scale = ((v: number) => r0 + ((v - d0) / span) * (r1 - r0)) as Scale;
  scale.invert = (p) => d0 + ((p - r0) / (r1 - r0 || 1)) * span;
  return scale;
}

/** Powers of ten at even distances; what is not above 0 has no place. */
export function logarithmic([d0, d1]: [number, number], range: [number, number]): Scale {
  const inner = linear([Math.log10(d0), Math.log10(d1)], range);
  const scale = ((v: number) => (v > 0 ? inner(Math.log10(v)) : NaN)) as Scale;
  scale.invert = (p) => 10 ** inner.invert(p);
  return scale;
}

/** A step of 1, 2 or 5 times a power of ten that gives about `count` ticks. */
export function tickStep(low: number, high: number, count: number): number {
  const raw = (high - low) / Math.max(1, count);
  if (!(raw > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const error = raw / power;
  return power * (error >= 7.07 ? 10 : error >= 3.16 ? 5 : error >= 1.41 ? 2 : 1);
}

export function ticks(low: number, high: number, count = 5): number[] {
  const step = tickStep(low, high, count);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const minus = (text: string): string => text.replace(/-/g, "−");

/** Numbers along an axis: as many decimals as the step asks for, so that no two ticks read alike. */
export function tickText(value: number, step: number): string {
  const size = Math.abs(value);
  if (step < 1e-4 && size === 0) return "0";
  if (size >= 1e5 || (step < 1e-4 && size > 0 && size < 1e-2)) {
    const digits = Math.max(1, Math.floor(Math.log10(size) + 1e-9) - Math.floor(Math.log10(step) + 1e-9));
    return minus(value.toExponential(Math.min(digits, 15)).replace(/\.?0*e/, "e").replace("e+", "e"));
  }
  return minus(value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));
}

/** So many of something: 1 sample, 1,437 samples. */
export const counted = (n: number, noun: string): string => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** One number by itself: three significant digits, no exponent where it can be read without. */
export function numberText(value: number, digits = 3): string {
  if (Number.isNaN(value)) return "no value";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  // 0.00999999 is 0.0100 to three digits, not 0.01000
  const size = Math.abs(Number(value.toPrecision(digits)));
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-4) return minus(value.toExponential(digits - 1).replace("e+", "e"));
  return minus(value.toFixed(Math.min(6, Math.max(0, digits - 1 - Math.floor(Math.log10(size))))));
}

/** A place along a dimension: 0.25 and not 0.25000000000000006. */
export function valueText(value: unknown): string {
  if (typeof value !== "number") return String(value);
  return minus(String(Number.isInteger(value) ? value : Number(value.toPrecision(4))));
}

/** A number in a cell: at most two decimals, .83 rather than 0.83 never: zeros carry the eye. */
export function cellText(value: number, largest: number): string {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const decimals = largest >= 100 ? 0 : largest >= 10 ? 1 : largest >= 0.1 ? 2 : largest >= 0.01 ? 3 : -1;
  if (decimals < 0) return minus(value.toExponential(0));
  const text = value.toFixed(decimals);
  return minus(Number(text) === 0 ? (0).toFixed(decimals) : text);
}

export interface TimeScale {
  at(index: number): number;
  index(pixel: number): number;
  /** How the steps are spaced, for the axis; empty where it is the plain linear scale. */
  words: string;
}

/** Training steps along an axis: linear while the closest two can be told apart, else square root, else even. */
export function timeScale(steps: number[], [r0, r1]: [number, number], least = 14): TimeScale {
  const pixels = (f: (v: number) => number): number[] => {
    const scale = linear([f(steps[0]), f(steps.at(-1)!)], [r0, r1]);
    return steps.map((v) => (steps.length > 1 ? scale(f(v)) : (r0 + r1) / 2));
  };
  const clear = (px: number[]): boolean => px.every((p, i) => i === 0 || p - px[i - 1] >= least);
  const ordered = steps.every((v, i) => Number.isFinite(v) && (i === 0 || v > steps[i - 1]));
  const dense = steps.length > 1 && (r1 - r0) / (steps.length - 1) < least;
  let px = ordered ? pixels((v) => v) : [];
  let words = "";
  if (!ordered || (!clear(px) && !dense)) {
    px = ordered && steps[0] >= 0 ? pixels(Math.sqrt) : [];
    words = "square-root spacing";
    if (!px.length || !clear(px)) {
      const even = linear([0, Math.max(1, steps.length - 1)], [r0, r1]);
      px = steps.map((_, i) => even(i));
      words = "evenly spaced";
    }
  }
  return {
    at: (i) => px[i],
    index: (pixel) => px.reduce((best, p, i) => (Math.abs(p - pixel) < Math.abs(px[best] - pixel) ? i : best), 0),
    words,
  };
}
