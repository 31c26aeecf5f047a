// Pointer and keyboard on a picture: hover previews, a click selects, Shift adds, Escape clears, and the live line says it.
import { about, along, type Choice } from "./select";
import type { Cursor } from "./types";
import type { Stage } from "./stage";

export interface Hands<T> {
  element: HTMLElement;
  /** What is at a pixel of the element. */
  at(x: number, y: number): T | null;
  /** Where that is, by dimension name. */
  place(item: T): Cursor;
  choose(item: T, add: boolean): Choice;
  describe(item: T): string[];
  selected(): T | null;
  /** Where a key leads; undefined where it is none of ours. */
  move(from: T | null, key: string): T | null | undefined;
  /** The dimensions that Escape clears. */
  dims(): string[];
}

export function hands<T>(stage: Stage, given: Hands<T>): { pick(item: T, add: boolean): void } {
  const { element } = given;
  const { focus } = stage;
  let last: T | null = null;
  const hover = (item: T | null, x = 0, y = 0) => {
    focus.point(item === null ? {} : about(stage.cube, given.place(item)));
    stage.tip(item === null ? null : () => given.describe(item), { element, x, y });
    element.style.cursor = item === null ? "default" : "pointer";
  };
  const pick = (item: T, add: boolean) => {
    last = item;
    const { patch, bound, places } = given.choose(item, add);
    focus.set(patch, bound, places);
    stage.say(`Selected ${given.describe(item).join(", ")}`);
  };
  element.addEventListener("pointermove", (e) => hover(given.at(e.offsetX, e.offsetY), e.offsetX, e.offsetY));
  element.addEventListener("pointerleave", () => hover(null));
  element.addEventListener("click", (e) => {
    const item = given.at(e.offsetX, e.offsetY);
    if (item !== null) pick(item, e.shiftKey || e.ctrlKey || e.metaKey);
  });
  element.addEventListener("keydown", (e) => {
    const selected = given.selected();
    const from = selected === null ? null : (last ?? selected);
    if (e.key === "Enter" || e.key === " ") {
      const item = from ?? given.move(null, "ArrowRight") ?? null;
      if (item !== null) pick(item, e.shiftKey || e.ctrlKey);
    } else if (e.key === "Escape") {
      last = null;
      const cleared = along(stage.cube, Object.fromEntries(given.dims().map((d) => [d, null])));
      focus.set(cleared.patch);
      hover(null);
      stage.say("Nothing selected here");
    } else {
      const to = given.move(from, e.key);
      if (to === undefined) return;
      if (to !== null && JSON.stringify(to) !== JSON.stringify(from)) pick(to, e.shiftKey);
    }
    e.preventDefault();
    e.stopPropagation();
  });
  // what other views and the kernel do since then counts more than where the keyboard was last
  focus.subscribe((what) => {
    if (what === "cursor" && last !== null && !(element === document.activeElement)) last = null;
  }, stage.signal);
  return { pick };
}

/** Along a list: arrows by one, Home and End to its ends. */
export function stepped(from: number | null, key: string, count: number, back = "ArrowLeft", forth = "ArrowRight", page = 10): number | null | undefined {
  const to: Record<string, number> = { [back]: -1, [forth]: 1, PageUp: -page, PageDown: page };
  if (key === "Home") return count ? 0 : null;
  if (key === "End") return count ? count - 1 : null;
  if (!(key in to)) return undefined;
  if (!count) return null;
  return from === null ? 0 : Math.max(0, Math.min(count - 1, from + to[key]));
}

/**
 * Whether a pointer event came of a hand: a click may make the page longer above, and what then lies under the pointer was
 * not pointed at.
 */
export function handMoved(element: HTMLElement): (e: PointerEvent) => boolean {
  let last: [number, number] = [NaN, NaN];
  for (const name of ["pointermove", "pointerdown", "click"] as const) element.addEventListener(name, (e) => (last = [e.screenX, e.screenY]));
  // a click has whole pixels, a pointer may have parts of them
  return (e) => !(Math.abs(e.screenX - last[0]) < 1 && Math.abs(e.screenY - last[1]) < 1);
}
