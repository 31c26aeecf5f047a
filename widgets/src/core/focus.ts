// One Focus per composition: views read and write here, and the kernel hears of it once per frame.
import { patched, same } from "./rules";
import type { Cursor, Host, Model, Patch } from "./types";

type Listener = (what: "cursor" | "hover") => void;

export class Focus {
  cursor: Cursor;
  /** What the pointer is over. It never leaves the page. */
  hover: Cursor = {};
  private listeners = new Set<Listener>();
  private pending: Patch | null = null;
  /** The kernel's last word. Beside it the kernel can tell what was done here from what was there before. */
  private known: Cursor;

  constructor(private model: Model, private frame: (run: () => void) => void) {
    this.cursor = { ...(model.get("cursor") as Cursor) };
    this.known = this.cursor;
  }

  /** Listen to the kernel for as long as a view lives. */
  attach(model: Model): void {
    this.model = model;
    model.on("change:cursor", () => this.receive(model.get("cursor") as Cursor));
  }

  subscribe(listener: Listener, signal: AbortSignal): void {
    this.listeners.add(listener);
    signal.addEventListener("abort", () => this.listeners.delete(listener));
  }

  set(patch: Patch): void {
    const next = patched(this.cursor, patch);
    if (same(next, this.cursor)) return;
    this.cursor = next;
    if (!this.pending) {
      this.pending = {};
      this.frame(() => this.flush());
    }
    Object.assign(this.pending, patch);
    this.notify("cursor");
  }

  point(place: Cursor): void {
    if (same(place, this.hover)) return;
    this.hover = place;
    this.notify("hover");
  }

  private flush(): void {
    this.pending = null;
    this.model.set("cursor", { ...this.cursor });
    this.model.set("known", { ...this.known });
    this.model.save_changes();
  }

  private receive(cursor: Cursor): void {
    const next = this.pending ? patched(cursor, this.pending) : { ...cursor };
    if (same(next, this.cursor)) return;
    this.known = { ...cursor };
    this.cursor = next;
    this.notify("cursor");
  }

  private notify(what: "cursor" | "hover"): void {
    for (const listener of [...this.listeners]) listener(what);
  }
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
