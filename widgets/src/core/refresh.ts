// Other values for a Cube while its views are in the page.
import type { Model } from "./types";

/** Call back when the data of a Cube have changed, once per frame however often they do. */
export function onData(cubeModel: Model, refresh: () => void, signal: AbortSignal, frame: (run: () => void) => void = requestAnimationFrame): void {
  let due = false;
  cubeModel.on("change:data", () => {
    if (due || signal.aborted) return;
    due = true;
    frame(() => {
      due = false;
      if (!signal.aborted) refresh();
    });
  });
}

const lists = (root: HTMLElement) => [...root.querySelectorAll<HTMLElement>(".ts-scroll, .ts-strip")];
const stops = (root: HTMLElement) => [...root.querySelectorAll<HTMLElement>("[tabindex], button, select, input")];

/** Where the lists of a view are scrolled to and what has the keyboard, to be put back once its elements were made again. */
export function keepPlace(root: HTMLElement): (again: HTMLElement) => void {
  const scrolled = lists(root).map((e): [number, number] => [e.scrollLeft, e.scrollTop]);
  const at = stops(root).indexOf(document.activeElement as HTMLElement);
  return (again) => {
    lists(again).forEach((e, i) => e.scrollTo(...(scrolled[i] ?? [0, 0])));
    if (at >= 0) stops(again)[at]?.focus({ preventScroll: true });
  };
}

/** The same for all views of a dashboard that stands elsewhere now. */
export function keepPlaces(root: HTMLElement): (again: HTMLElement) => void {
  const cells = (within: HTMLElement) => [within, ...within.querySelectorAll<HTMLElement>("[data-ts-ref]")];
  const kept = new Map(cells(root).map((cell) => [cell.dataset.tsRef, keepPlace(cell)]));
  return (again) => cells(again).forEach((cell) => kept.get(cell.dataset.tsRef)?.(cell));
}
