// Colours and type of the page around a view, and word when they change.
import { hex } from "./colour";

export interface Theme {
  dark: boolean;
  ink: string;
  quiet: string;
  rule: string;
  paper: string;
  accent: string;
  font: string;
  mono: string;
}

export function readTheme(root: HTMLElement): Theme {
  const style = getComputedStyle(root);
  const colour = (name: string, otherwise: string) => style.getPropertyValue(name).trim() || otherwise;
  const ink = colour("--ts-ink", "#1c2026");
  return {
    dark: isLight(style.color),
    ink,
    quiet: colour("--ts-quiet", "#667080"),
    rule: colour("--ts-rule", "#d9dde3"),
    paper: colour("--ts-paper", "#ffffff"),
    accent: colour("--ts-accent", "#1668c7"),
    font: style.fontFamily || "sans-serif",
    mono: colour("--ts-mono", "monospace"),
  };
}

/** Light ink means a dark page, whatever the theme is called. */
function isLight(colour: string): boolean {
  const parts = colour.startsWith("#") ? hex(colour) : (colour.match(/[\d.]+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number);
  return (parts[0] + parts[1] + parts[2]) / 3 > 128;
}

const listeners = new Set<() => void>();
let watching = false;

export function onThemeChange(redraw: () => void, signal: AbortSignal): void {
  listeners.add(redraw);
  signal.addEventListener("abort", () => listeners.delete(redraw));
  if (watching) return;
  watching = true;
  const tell = () => {
    for (const wait of [0, 150, 600]) setTimeout(() => listeners.forEach((run) => run()), wait);
  };
  const filter = ["data-jp-theme-name", "data-jp-theme-light", "class", "data-theme"];
  for (const element of [document.body, document.documentElement]) {
    new MutationObserver(tell).observe(element, { attributes: true, attributeFilter: filter });
  }
  window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener("change", tell);
}
