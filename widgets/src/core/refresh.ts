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

/** Where lists are scrolled to and what has the keyboard, put back once the elements have been made again. */
export function keepPlace(root: HTMLElement): () => void {
  const lists = () => [...root.querySelectorAll<HTMLElement>(".ts-scroll, .ts-strip")];
  const stops = () => [...root.querySelectorAll<HTMLElement>("[tabindex], button, select, input")];
  const scrolled = lists().map((e) => [e.scrollLeft, e.scrollTop]);
  const at = stops().indexOf(document.activeElement as HTMLElement);
  return () => {
    lists().forEach((e, i) => e.scrollTo(...((scrolled[i] ?? [0, 0]) as [number, number])));
    if (at >= 0) stops()[at]?.focus({ preventScroll: true });
  };
}
