import { expect, test, vi } from "vitest";
import { Focus } from "../src/core/focus";
import type { Cursor } from "../src/core/types";

function stage(cursor: Cursor) {
  const state: Record<string, unknown> = { cursor };
  const frames: (() => void)[] = [];
  let heard = () => {};
  const model = { get: (n: string) => state[n], set: vi.fn((n: string, v: unknown) => void (state[n] = v)), save_changes: vi.fn(), on: (_: string, run: () => void) => void (heard = run) };
  const focus = new Focus(model, (run) => frames.push(run));
  focus.attach(model);
  return { focus, model, frame: () => frames.splice(0).forEach((run) => run()), fromKernel: (c: Cursor) => ((state.cursor = c), heard()) };
}

test("views hear at once, the kernel once per frame", () => {
  const { focus, model, frame } = stage({});
  const heard: string[] = [];
  focus.subscribe((what) => heard.push(`${what} ${focus.cursor.checkpoint}`), new AbortController().signal);
  for (const checkpoint of [0, 200, 600]) focus.set({ checkpoint });
  expect(heard).toEqual(["cursor 0", "cursor 200", "cursor 600"]);
  expect(model.save_changes).not.toHaveBeenCalled();
  frame();
  expect(model.set.mock.calls).toEqual([["cursor", { checkpoint: 600 }], ["known", {}]]);
  expect(model.save_changes).toHaveBeenCalledTimes(1);
});

test("setting what is set already tells nobody", () => {
  const { focus, model, frame } = stage({ layer: 1 });
  const listener = vi.fn();
  focus.subscribe(listener, new AbortController().signal);
  focus.set({ layer: 1 });
  frame();
  expect(listener).not.toHaveBeenCalled();
  expect(model.save_changes).not.toHaveBeenCalled();
});

test("a message from the kernel does not undo a click that is on its way", () => {
  const { focus, model, frame, fromKernel } = stage({});
  focus.set({ layer: 1 });
  fromKernel({ sample: "s", layer: 0 });
  expect(focus.cursor).toEqual({ sample: "s", layer: 1 });
  frame();
  expect(model.set.mock.calls).toEqual([["cursor", { sample: "s", layer: 1 }], ["known", { sample: "s", layer: 0 }]]);
});

test("the pointer stays in the page", () => {
  const { focus, model, frame } = stage({});
  const listener = vi.fn();
  focus.subscribe(listener, new AbortController().signal);
  focus.point({ layer: 1 });
  focus.point({ layer: 1 });
  frame();
  expect(listener.mock.calls).toEqual([["hover"]]);
  expect(model.save_changes).not.toHaveBeenCalled();
});

test("a view that is gone hears nothing", () => {
  const { focus } = stage({});
  const gone = new AbortController();
  const listener = vi.fn();
  focus.subscribe(listener, gone.signal);
  gone.abort();
  focus.set({ layer: 1 });
  expect(listener).not.toHaveBeenCalled();
});
