// One Focus per composition: views read and write here, and the kernel hears of it once per frame.
import { agreeing } from "./places";
import { patched, same, TIME } from "./rules";
import type { Cursor, Host, Model, Patch, Place, Value } from "./types";

interface State {
  cursor: Cursor;
  places: Place[];
}

const placesOf = (model: Model): Place[] => (model.get("places") as Place[] | undefined) ?? [];

type Listener = (what: "cursor" | "hover") => void;

export class Focus {
  cursor: Cursor;
  /** What the pointer is over. It never leaves the page. */
  hover: Cursor = {};
  private listeners = new Set<Listener>();
  /** The values along each dimension, as the views of this Focus have them. */
  readonly along = new Map<string, Value[]>();
  private listed: Place[];
  private pending: Patch | null = null;
  /** What this page itself writes into the model is no word of the kernel. */
  private sending = false;
  private past: State[] = [];
  private future: State[] = [];
  private lately = { dims: "", at: -Infinity };
  private bound: Record<string, string[]> = {};
  /** The kernel's last word. Beside it the kernel can tell what was done here from what was there before. */
  private known: Cursor;

  constructor(private model: Model, private frame: (run: () => void) => void) {
    this.cursor = { ...(model.get("cursor") as Cursor) };
    this.known = this.cursor;
    this.listed = placesOf(model);
  }

  /** The places that were chosen, where they are not all combinations of what is selected along each dimension. */
  get places(): Place[] {
    return agreeing(this.cursor, this.listed);
  }

  /** Listen to the kernel for as long as a view lives. */
  attach(model: Model): void {
    this.model = model;
    for (const trait of ["cursor", "places"]) model.on(`change:${trait}`, () => this.receive(model.get("cursor") as Cursor, placesOf(model)));
  }

  subscribe(listener: Listener, signal: AbortSignal): void {
    this.listeners.add(listener);
    signal.addEventListener("abort", () => this.listeners.delete(listener));
  }

  /**
   * Change the selection. `bound` says which selections were made on behalf of which others: where `source` was selected for
   * its `layer`, selecting another `layer` takes it away, and a head of the same layer does not.
   */
  set(change: Patch, bound: Record<string, string[]> = {}, places?: Place[]): void {
    const patch = { ...change };
    for (const [dim, bases] of Object.entries(this.bound)) {
      if (!(dim in change) && dim in this.cursor && bases.some((b) => b in change && !same(change[b], this.cursor[b]))) patch[dim] = null;
    }
    const next = patched(this.cursor, patch);
    const untouched = this.listed.length && !Object.keys(this.listed[0]).some((d) => d in change) ? this.listed : [];
    const listed = places ?? untouched;
    if (same(next, this.cursor) && same(listed, this.listed)) return;
    Object.assign(this.bound, bound);
    this.remember(Object.keys(patch).sort().join());
    this.write({ cursor: next, places: listed }, patch);
  }

  /** Go back to what was selected before, or forth again. */
  undo(): void {
    this.travel(this.past, this.future);
  }

  redo(): void {
    this.travel(this.future, this.past);
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  private travel(from: State[], to: State[]): void {
    const next = from.pop();
    if (!next) return;
    to.push({ cursor: this.cursor, places: this.listed });
    this.lately.dims = "";
    this.write(next, { ...Object.fromEntries(Object.keys(this.cursor).map((d) => [d, null])), ...next.cursor });
  }

  /** What is dragged along time is one step back. */
  private remember(dims: string): void {
    const now = performance.now();
    if (!TIME.has(dims) || dims !== this.lately.dims || now - this.lately.at > 700) this.past.push({ cursor: this.cursor, places: this.listed });
    if (this.past.length > 200) this.past.shift();
    this.future = [];
    this.lately = { dims, at: now };
  }

  private write(next: State, patch: Patch): void {
    this.cursor = next.cursor;
    this.listed = next.places;
    if (!this.pending) {
      this.pending = {};
      this.frame(() => this.flush());
    }
    Object.assign(this.pending, patch);
    this.notify("cursor");
  }

  /** What a view has along a dimension. It grows while results are still coming. */
  learn(dim: string, values: Value[]): void {
    const known = this.along.get(dim);
    if (known && (known.length >= values.length || !containing(values, known))) return;
    this.along.set(dim, values);
    if (known) this.notify("cursor");
  }

  point(place: Cursor): void {
    if (same(place, this.hover)) return;
    this.hover = place;
    this.notify("hover");
  }

  private flush(): void {
    this.pending = null;
    this.sending = true;
    this.model.set("cursor", { ...this.cursor });
    this.model.set("known", { ...this.known });
    if (!same(this.listed, placesOf(this.model))) this.model.set("places", this.listed);
    this.sending = false;
    this.model.save_changes();
  }

  private receive(cursor: Cursor, places: Place[]): void {
    if (this.sending) return;
    const next = this.pending ? patched(cursor, this.pending) : { ...cursor };
    const listed = this.pending ? this.listed : places;
    if (same(next, this.cursor) && same(listed, this.listed)) return;
    this.known = { ...cursor };
    this.remember("");
    this.cursor = next;
    this.listed = listed;
    this.notify("cursor");
  }

  private notify(what: "cursor" | "hover"): void {
    for (const listener of [...this.listeners]) listener(what);
  }
}

function containing(values: Value[], known: Value[]): boolean {
  const there = new Set(values);
  return known.every((v) => there.has(v));
}

const open = new Map<string, Focus>();

/** The Focus behind a reference: the same object for every view on the page. */
export async function openFocus(host: Host, ref: string): Promise<Focus> {
  const model = await host.getModel(ref);
  let focus = open.get(ref);
  if (!focus) {
    focus = new Focus(model, (run) => requestAnimationFrame(run));
    open.set(ref, focus);
  }
  focus.attach(model);
  return focus;
}

/** Keep the Focus of a model on an element of the page, as JSON, for as long as the signal lets it. */
export async function mirrorFocus(root: HTMLElement, model: Model, host: Host, signal: AbortSignal): Promise<void> {
  const follow = async () => {
    if (signal.aborted) return;
    const focus = await openFocus(host, model.get("focus_model"));
    const mirror = () => (root.dataset.tsFocus = JSON.stringify(focus.cursor));
    focus.subscribe(mirror, signal);
    mirror();
  };
  model.on("change:focus_model", () => void follow());
  await follow();
}
