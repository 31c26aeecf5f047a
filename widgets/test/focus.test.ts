import { expect, test, vi } from "vitest";
import { Focus } from "../src/core/focus";
import type { Cursor } from "../src/core/types";

function stage(cursor: Cursor) {
  const state: Record<string, unknown> = { cursor };
  const frames: (() => void)[] = [];
  let heard = () => {};
  // as in Backbone, whoever sets a value hears of it at once
  const model = { get: (n: string) => state[n], set: vi.fn((n: string, v: unknown) => ((state[n] = v), n === "known" || heard())), save_changes: vi.fn(), on: (_: string, run: () => void) => void (heard = run) };
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

test("undo goes back step by step, redo forth, and a new choice ends redo", () => {
  const { focus } = stage({});
  focus.set({ layer: 0 });
  focus.set({ head: 2 });
  focus.undo();
  expect(focus.cursor).toEqual({ layer: 0 });
  focus.undo();
  expect([focus.cursor, focus.canUndo, focus.canRedo]).toEqual([{}, false, true]);
  focus.redo();
  focus.redo();
  expect(focus.cursor).toEqual({ layer: 0, head: 2 });
  focus.undo();
  focus.set({ sample: "s" });
  expect([focus.cursor, focus.canRedo]).toEqual([{ layer: 0, sample: "s" }, false]);
});

test("what is dragged along time is one step back", () => {
  const { focus } = stage({ layer: 1 });
  for (const checkpoint of [3000, 1800, 600]) focus.set({ checkpoint });
  focus.undo();
  expect(focus.cursor).toEqual({ layer: 1 });
});

test("a selection made on behalf of another leaves with it", () => {
  const { focus } = stage({});
  focus.set({ source: "0.1", layer: 0, head: 1 }, { source: ["layer", "head"] });
  focus.set({ checkpoint: 600 });
  expect(focus.cursor.source).toBe("0.1");
  focus.set({ layer: 1, head: 2 });
  expect(focus.cursor).toEqual({ checkpoint: 600, layer: 1, head: 2 });
});

test("places travel, and end when one of their dimensions is chosen anew", () => {
  const { focus, model, frame } = stage({});
  const two = [{ layer: 0, head: 0 }, { layer: 1, head: 2 }];
  focus.set({ layer: [0, 1], head: [0, 2] }, {}, two);
  frame();
  expect(model.set).toHaveBeenLastCalledWith("places", two);
  focus.set({ sample: "s" });
  expect(focus.places).toEqual(two);
  focus.set({ layer: 1 });
  expect(focus.places).toEqual([]);
  focus.undo();
  expect(focus.places).toEqual(two);
});

test("it stays where the choice is in the same place", () => {
  const { focus } = stage({});
  focus.set({ module: "layers.1.attn", layer: 1 }, { module: ["layer"] });
  focus.set({ layer: 1, head: 2 });
  expect(focus.cursor.module).toBe("layers.1.attn");
  focus.set({ layer: 0, head: 2 });
  expect(focus.cursor).toEqual({ layer: 0, head: 2 });
});
