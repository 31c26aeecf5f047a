// A Cube: the front end's copy of a Dataset. Values arrive as little-endian buffers.
import type { Value } from "./types";

export type Values = Float32Array | Float64Array | Int32Array | Uint8Array | string[];

export interface Variable {
  name: string;
  dims: string[];
  shape: number[];
  values: Values;
  longName: string;
  units: string;
  /** What the interval, the null and a flag are; which variable a flag is about; why there may be no value; how it is reduced; whether it has a sign, also where all values have the same. */
  words: { interval?: string; null?: string; rule?: string; marks?: string; nan?: string; reduce?: "mean" | "max" | "min" | "sum" | "first" | "strongest"; signed?: string };
  /** The smallest and largest possible value. */
  bounds?: [number, number];
}

export interface Coordinate {
  dims: string[];
  values: Value[];
  /** What it says of itself, where it does. */
  attrs?: { long_name?: string; units?: string };
}

export interface Cube {
  dims: Record<string, number>;
  coords: Record<string, Coordinate>;
  variables: Record<string, Variable>;
  /** What a partial result was computed from, in words; empty for a complete one. */
  partial: string;
  /** What is to be known of it besides. */
  notes: string[];
}

export interface WireVariable {
  dims: string[];
  shape: number[];
  dtype: string;
  attrs: { long_name?: string; units?: string; bounds?: [number, number] } & Variable["words"];
  data: DataView | string[];
}

export interface WireCube {
  dims: Record<string, number>;
  coords: Record<string, Coordinate>;
  variables: Record<string, WireVariable>;
  partial?: string;
  notes?: string[];
}

/** IEEE half precision to float, table-driven: 64 k entries made once, then one look-up per value. */
let halves: Float32Array | undefined;
export function halfTable(): Float32Array {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) halves[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) halves[bits] = fraction ? NaN : sign * Infinity;
    else halves[bits] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
  }
  return halves;
}

/** A DataView may start at any byte: copy, then view. */
export function decode(dtype: string, data: DataView | string[]): Values {
  if (Array.isArray(data)) return data;
  const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) as ArrayBuffer;
  if (dtype === "f32") return new Float32Array(bytes);
  if (dtype === "f64") return new Float64Array(bytes);
  if (dtype === "i32") return new Int32Array(bytes);
  if (dtype === "u8") return new Uint8Array(bytes);
  if (dtype === "f16") {
    const table = halfTable();
    const bits = new Uint16Array(bytes);
    const values = new Float32Array(bits.length);
    // Float32Array.from takes twenty times as long
    for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]];
    return values;
  }
  throw new Error(`This page does not know the value type ${dtype}.`);
}

/** A share lies between 0 and 1, whether it says so by its bounds or by its unit. */
function boundsOf({ bounds, units }: WireVariable["attrs"]): [number, number] | undefined {
  if (bounds?.length === 2) return bounds;
  return units?.startsWith("share of") ? [0, 1] : undefined;
}

const decoded = new WeakMap<object, Cube>();

/** Decode once per message: every view of a Cube shares the arrays. */
export function openCube(wire: WireCube): Cube {
  const known = decoded.get(wire);
  if (known) return known;
  const variables: Record<string, Variable> = {};
  for (const [name, v] of Object.entries(wire.variables)) {
    const longName = v.attrs.long_name || name.replaceAll("_", " ");
    variables[name] = {
      name, dims: v.dims, shape: v.shape, values: decode(v.dtype, v.data), longName, units: v.attrs.units ?? "",
      words: v.attrs, bounds: boundsOf(v.attrs),
    };
  }
  const cube = { dims: wire.dims, coords: wire.coords, variables, partial: wire.partial ?? "", notes: wire.notes ?? [] };
  decoded.set(wire, cube);
  return cube;
}

/** A Cube of one's own, with the same arrays: what replaces its variables changes no other. */
export const ownCube = (cube: Cube): Cube => ({ ...cube, variables: { ...cube.variables } });

/** Take over the values of another Cube, if it is of the same places; false where it is not. */
export function takeOver(own: Cube, next: Cube): boolean {
  if (!samePlaces(own, next)) return false;
  Object.assign(own.variables, next.variables);
  own.partial = next.partial;
  own.notes = next.notes;
  return true;
}

function samePlaces(a: Cube, b: Cube): boolean {
  const same = (x: ArrayLike<unknown>, y: ArrayLike<unknown> | undefined) => y !== undefined && x.length === y.length && Array.from(x).every((v, i) => v === y[i]);
  const [names, others] = [Object.keys(a.coords), Object.keys(b.coords)];
  return JSON.stringify(a.dims) === JSON.stringify(b.dims) && names.length === others.length
    && names.every((n) => same(a.coords[n].dims, b.coords[n]?.dims) && same(a.coords[n].values, b.coords[n].values))
    && Object.entries(a.variables).every(([n, v]) => same(v.dims, b.variables[n]?.dims) && Array.isArray(v.values) === Array.isArray(b.variables[n].values));
}

/** The coordinate values along a dimension; positions where it has none. */
export function labels(cube: Cube, dim: string): Value[] {
  const coordinate = cube.coords[dim];
  if (coordinate && coordinate.dims.length === 1 && coordinate.dims[0] === dim) return coordinate.values;
  return Array.from({ length: cube.dims[dim] ?? 0 }, (_, i) => i);
}
