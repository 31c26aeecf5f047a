// Colour maps. Magnitudes: viridis. Signed values: blue below zero, orange above.
export type Rgb = [number, number, number];

const VIRIDIS = ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"];
const SIGNED_LIGHT = ["#0a4a8c", "#2f78bd", "#80b3dc", "#c3dbee", "#f4f2ee", "#fbd9b0", "#f0a95a", "#cf7218", "#8f4503"];
const SIGNED_DARK = ["#a3d3ff", "#5aa5e6", "#377ab5", "#2c4f70", "#313238", "#6b4a24", "#b06f22", "#ea9a3e", "#ffcf94"];

/** Blue, orange, violet, sky, ochre, slate: told apart without relying on red against green. */
export const LINES_LIGHT = ["#0067a8", "#d5640a", "#9b4f96", "#2aa1d8", "#a87b00", "#4c566a"];
export const LINES_DARK = ["#5cb3f0", "#ff9d4d", "#d58fd0", "#8fd6f7", "#e5bf4a", "#b6c0d0"];

export const hex = (text: string): Rgb => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)) as Rgb;

function ramp(stops: string[]): Uint8Array {
  const anchors = stops.map(hex);
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (anchors.length - 1);
    const k = Math.min(anchors.length - 2, Math.floor(at));
    for (let c = 0; c < 3; c++) table[i * 3 + c] = Math.round(anchors[k][c] + (at - k) * (anchors[k + 1][c] - anchors[k][c]));
  }
  return table;
}

export interface ColourScale {
  domain: [number, number];
  signed: boolean;
  /** null where there is no value. */
  rgb(value: number): Rgb | null;
  pixel(value: number): number;
}

const tables = new Map<string, Uint8Array>();
function table(name: string, stops: string[]): Uint8Array {
  if (!tables.has(name)) tables.set(name, ramp(stops));
  return tables.get(name)!;
}

/**
 * Values that go below zero, or could, get the diverging map, centred on 0; the others start at 0, or at their smallest where
 * they are `free` of it and far away.
 */
export function colourScale([low, high]: [number, number], dark: boolean, signed = low < 0, free = false): ColourScale {
  const reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const floor = free && low > 0.5 * high && low < high ? low : 0;
  const domain: [number, number] = signed ? [-reach, reach] : [floor, high || 1];
  const colours = signed ? (dark ? table("dark", SIGNED_DARK) : table("light", SIGNED_LIGHT)) : table("viridis", VIRIDIS);
  const slot = (v: number) => Math.max(0, Math.min(255, Math.round(((v - domain[0]) / (domain[1] - domain[0])) * 255))) * 3;
  return {
    domain,
    signed,
    rgb: (v) => {
      if (Number.isNaN(v)) return null;
      const i = slot(v);
      return [colours[i], colours[i + 1], colours[i + 2]];
    },
    pixel: (v) => {
      if (Number.isNaN(v)) return 0;
      const i = slot(v);
      return (0xff000000 | (colours[i + 2] << 16) | (colours[i + 1] << 8) | colours[i]) >>> 0;
    },
  };
}

export const css = (rgb: Rgb, alpha = 1): string => `rgb(${rgb[0]} ${rgb[1]} ${rgb[2]} / ${alpha})`;

/** Relative luminance, for the text on a cell. */
export function luminance([r, g, b]: Rgb): number {
  const part = (v: number) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
}

/** Black or white, whichever is told apart better: never less than 4.5 to 1, which no softer black reaches on every colour. */
export const inkOn = (rgb: Rgb): string => (luminance(rgb) > 0.179 ? "#000000" : "#ffffff");

/** CSS gradient of a scale, for its legend. */
export function gradient(scale: ColourScale, stops = 17): string {
  const parts = Array.from({ length: stops }, (_, i) => {
    const v = scale.domain[0] + ((scale.domain[1] - scale.domain[0]) * i) / (stops - 1);
    return css(scale.rgb(v)!);
  });
  return `linear-gradient(90deg, ${parts.join(", ")})`;
}

/** Values to ABGR pixels, row by row; NaN stays transparent. */
export function pixels(values: ArrayLike<number>, scale: ColourScale): Uint32Array {
  const out = new Uint32Array(values.length);
  const [low, high] = scale.domain;
  const steps = Uint32Array.from({ length: 256 }, (_, i) => scale.pixel(low + ((high - low) * i) / 255));
  const factor = 255 / (high - low);
  for (let i = 0; i < values.length; i++) {
    const at = (values[i] - low) * factor + 0.5;
    if (at === at) out[i] = steps[at <= 0 ? 0 : at >= 255 ? 255 : at | 0];
  }
  return out;
}
