import { expect, test } from "vitest";
import { openCube, ownCube, takeOver, type WireCube } from "../src/core/cube";
import { Focus } from "../src/core/focus";
import { onData } from "../src/core/refresh";
import { announcement, barOf, kernelOf, type Status } from "../src/core/runbar";
import { extentOf, slice } from "../src/core/slice";
import type { Model } from "../src/core/types";
import { rangeOf } from "../src/views/grid";

const status = (changes: Partial<Status> = {}): Status => ({ state: "idle", done: 0, text: "", start: true, stop: true, ...changes });

test("Run, then Stop, then Run again", () => {
  expect(barOf(status(), "there")).toMatchObject({ hidden: false, look: "quiet", share: null, button: { ask: "start", words: "Run" } });
  expect(barOf(status({ state: "running", done: 0.3, text: "12 of 40" }), "there")).toMatchObject({ look: "busy", share: 0.3, text: "12 of 40", button: { ask: "stop", words: "Stop" } });
  expect(barOf(status({ state: "done", done: 1, text: "40 samples in 3 s" }), "there")).toMatchObject({ look: "quiet", share: null, lead: "", button: { ask: "start", words: "Run again" } });
});

test("without Stop the line says what stops it", () => {
  const bar = barOf(status({ state: "running", text: "12 of 40", stop: false }), "there");
  expect([bar.button, bar.text]).toEqual([null, "12 of 40 · ■ in the toolbar stops the cell"]);
});

test("without Run an idle bar has nothing to say", () => {
  expect(barOf(status({ start: false }), "there").hidden).toBe(true);
  expect(barOf(status({ start: false, state: "done", text: "in 3 s" }), "there")).toMatchObject({ hidden: false, button: null, text: "in 3 s" });
});

test("what is partial or failed leads the line", () => {
  expect(barOf(status({ state: "stopped", done: 0.3, text: "12 of 40" }), "there")).toMatchObject({ look: "partial", lead: "Partial results", text: "12 of 40", share: 0.3 });
  expect(barOf(status({ state: "failed", text: "out of memory" }), "there")).toMatchObject({ look: "failed", lead: "Failed", text: "out of memory" });
});

test("where no kernel is, nothing can be clicked and nothing runs", () => {
  for (const kernel of ["none", "gone"] as const) {
    for (const state of ["idle", "running", "done", "stopped", "failed"] as const) expect(barOf(status({ state }), kernel).button).toBeNull();
    expect(barOf(status({ state: "done" }), kernel).hidden).toBe(true);
    expect(barOf(status({ state: "running", text: "about 8 s left" }), kernel)).toMatchObject({ look: "partial", lead: "Partial results" });
    expect(barOf(status({ state: "running", text: "about 8 s left" }), kernel).text).not.toContain("left");
  }
});

test("a kernel is there as long as its models can be reached", async () => {
  const of = (more: object) => kernelOf({ get: () => "anywidget:abc", ...more } as unknown as Model);
  const manager = (comm_live: boolean) => ({ send() {}, widget_manager: { get_model: async (id: string) => ({ comm_live: comm_live && id === "abc" }) } });
  expect([await of({}), await of({ send() {} }), await of(manager(true)), await of(manager(false))]).toEqual(["none", "there", "there", "gone"]);
});

test("a listener hears each turn and each quarter", () => {
  const at = (done: number) => status({ state: "running", done, text: `${done}` });
  expect(announcement(null, at(0.5))).toBe("");
  expect(announcement(status(), at(0))).toBe("Running: 0");
  expect(announcement(at(0.24), at(0.26))).toBe("25 %");
  expect(announcement(at(0.26), at(0.3))).toBe("");
  expect(announcement(at(0.3), status({ state: "stopped", text: "12 of 40" }))).toBe("Stopped, the results are partial: 12 of 40");
});

function wire(values: number[], { samples = ["a", "b"], partial = "" } = {}): WireCube {
  const data = new DataView(Float32Array.from(values).buffer);
  const score = { dims: ["sample"], shape: [values.length], dtype: "f32", attrs: {}, data };
  return { dims: { sample: samples.length }, coords: { sample: { dims: ["sample"], values: samples } }, variables: { score }, partial };
}

test("other values are taken over in place, with their own extent", () => {
  const own = ownCube(openCube(wire([1, 2], { partial: "partial: 1 of 2 samples" })));
  const { variables } = own;
  expect(rangeOf(own, variables.score, ["sample"], {})).toEqual([1, 2]);
  expect([own.partial, ...slice(own, variables.score, ["sample"], {}).values]).toEqual(["partial: 1 of 2 samples", 1, 2]);
  expect(takeOver(own, openCube(wire([5, 9])))).toBe(true);
  expect(own.variables).toBe(variables);
  expect([own.partial, ...slice(own, own.variables.score, ["sample"], {}).values]).toEqual(["", 5, 9]);
  expect(extentOf(own.variables.score)).toEqual([5, 9]);
});

test("other places are not, nor do two views share what they took over", () => {
  const first = openCube(wire([1, 2]));
  const [one, two] = [ownCube(first), ownCube(first)];
  expect(takeOver(one, openCube(wire([1, 2], { samples: ["a", "c"] })))).toBe(false);
  expect(takeOver(one, openCube(wire([1, 2, 3], { samples: ["a", "b", "c"] })))).toBe(false);
  takeOver(one, openCube(wire([5, 9])));
  expect([...(two.variables.score.values as Float32Array)]).toEqual([1, 2]);
});

test("data that come many times in a frame are drawn once, and no more once the view is gone", () => {
  const heard: (() => void)[] = [];
  const model = { on: (_: string, run: () => void) => heard.push(run) } as unknown as Model;
  const frames: (() => void)[] = [];
  const next = () => frames.splice(0).forEach((run) => run());
  const view = new AbortController();
  let drawn = 0;
  onData(model, () => drawn++, view.signal, (run) => frames.push(run));
  for (let i = 0; i < 5; i++) heard[0]();
  expect([drawn, frames.length]).toEqual([0, 1]);
  next();
  heard[0]();
  next();
  expect(drawn).toBe(2);
  heard[0]();
  view.abort();
  next();
  heard[0]();
  expect([drawn, frames.length]).toEqual([2, 0]);
});

test("the Focus learns of places that come later", () => {
  const model = { get: (name: string) => (name === "cursor" ? {} : []), set() {}, save_changes() {}, on() {} } as unknown as Model;
  const focus = new Focus(model, (run) => run());
  let told = 0;
  focus.subscribe(() => told++, new AbortController().signal);
  focus.learn("sample", ["a", "b"]);
  focus.learn("sample", ["a"]);
  focus.learn("sample", ["c", "d", "e"]);
  expect([focus.along.get("sample"), told]).toEqual([["a", "b"], 0]);
  focus.learn("sample", ["a", "b", "c"]);
  expect([focus.along.get("sample"), told]).toEqual([["a", "b", "c"], 1]);
});
