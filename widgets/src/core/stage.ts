// What every view gets: a stage with a title, switches and a place to draw on.
import type { Cube, Variable } from "./cube";
import { h, KEEP_KEYS, setText } from "./dom";
import type { Focus } from "./focus";
import type { Reading } from "./measure";
import type { Theme } from "./theme";
import type { Cursor, Model } from "./types";

export interface Stage {
  root: HTMLElement;
  title: HTMLElement;
  subtitle: HTMLElement;
  tools: HTMLElement;
  body: HTMLElement;
  model: Model;
  cube: Cube;
  focus: Focus;
  options: Record<string, any>;
  theme: Theme;
  signal: AbortSignal;
  /** Width there is, in CSS pixels. */
  width(): number;
  /** The Focus as this picture follows it: what it compares is held fast. */
  cursor(): Cursor;
  /** A variable on some axes there, with what qualifies it; `at` places it further. */
  measure(variable: Variable, axes: string[], pool?: string[], at?: Cursor): Reading;
  /** The variable that is shown. */
  variable(): Variable;
  /** What someone has switched in the header; it stays with the notebook and with an exported file. */
  setting<T>(name: string, otherwise: T): T;
  change(name: string, value: unknown): void;
  /** For those who listen instead of look. */
  say(text: string): void;
  /** A tooltip near a place of an element, or none; its lines are asked for again when there are other values. */
  tip(lines: (() => string[]) | null, near?: Near): void;
}

/** A place in an element, in CSS pixels. */
export interface Near {
  element: HTMLElement;
  x: number;
  y: number;
}

export interface Drawn {
  draw(): void;
}

/** A kind of view: build its elements once, draw whenever the Focus, the theme, the width or the data change. */
export interface Kind {
  (stage: Stage): Drawn;
  /** Comfortable and largest width beside other views. */
  basis?: number;
  most?: number;
}

export type Titles = Pick<Stage, "title" | "subtitle" | "tools" | "body">;

/** How many notes a result has, and the notes themselves once it is opened. */
export function notesOf(): { notes: HTMLElement; note(lines: string[]): void } {
  const summary = h("summary");
  const text = h("div");
  const notes = h("details", { class: "ts-notes", hidden: true }, summary, text);
  const note = (lines: string[]) => {
    notes.hidden = !lines.length;
    setText(summary, lines.length === 1 ? "1 note" : `${lines.length} notes`);
    if (text.textContent !== lines.join("")) text.replaceChildren(...lines.map((line) => h("p", {}, line)));
  };
  return { notes, note };
}

type Header = { head: HTMLElement; partial: HTMLElement; note(lines: string[]): void };

export function header(...actions: HTMLElement[]): Header & Omit<Titles, "body"> {
  const title = h("div", { class: "ts-title" });
  const partial = h("div", { class: "ts-partial", title: "computed from a part of what there is: these values will change", hidden: true });
  const subtitle = h("div", { class: "ts-sub" });
  const tools = h("div", { class: "ts-tools" });
  const right = h("div", { class: "ts-tools" }, tools, ...actions);
  const { notes, note } = notesOf();
  const titles = h("div", { class: "ts-titles" }, h("div", { class: "ts-named" }, title, partial), subtitle, notes);
  return { head: h("div", { class: "ts-head" }, titles, right), title, partial, note, subtitle, tools };
}

export function frame(kind: string, ...actions: HTMLElement[]): { root: HTMLElement; live: HTMLElement; tip: HTMLElement } & Omit<Header, "head"> & Titles {
  const { head, ...titles } = header(...actions);
  const body = h("div", { class: "ts-body" });
  const tip = h("div", { class: "ts-tip", role: "presentation", hidden: true });
  const live = h("div", { class: "ts-live", "aria-live": "polite" });
  const root = h("div", { class: "ts-root ts-view", "data-ts-view": kind, role: "group", ...KEEP_KEYS }, head, body, tip, live);
  return { root, ...titles, body, tip, live };
}

/** Lines near a place of an element; none hide it. */
export function showTip(root: HTMLElement, tip: HTMLElement, lines: string[], near?: Near): void {
  tip.hidden = !lines.length;
  if (!lines.length || !near) return;
  tip.replaceChildren(...lines.map((line) => h("div", {}, line)));
  const outer = root.getBoundingClientRect();
  const inner = near.element.getBoundingClientRect();
  const x = inner.left - outer.left + near.x;
  const y = inner.top - outer.top + near.y;
  const left = x + 14 + tip.offsetWidth > outer.width ? x - tip.offsetWidth - 10 : x + 14;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${y + 14 + tip.offsetHeight > outer.height ? Math.max(0, y - tip.offsetHeight - 8) : y + 14}px`;
}
