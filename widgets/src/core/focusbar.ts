// The Focus bar: what is selected, as chips that can be changed and taken away; undo, redo, clear, copy as code.
import { copyText, selCode, updateCode } from "./code";
import { h, iconButton, KEEP_KEYS, setText, shortened, wordButton } from "./dom";
import { type Focus, openFocus } from "./focus";
import { asList, TIME } from "./rules";
import { valueText } from "./scale";
import type { Mount, Value } from "./types";

/** From coarse to fine: the way down to a token. */
const DRILL = ["model", "checkpoint", "step", "task", "tasks", "layer", "head", "block", "test_sample", "test_position", "sample", "position"];
const LISTED = 300;

export async function mountFocusBar({ model, el, host, signal }: Mount): Promise<void> {
  const chips = h("div", { class: "ts-chips" });
  const said = h("div", { class: "ts-live", "aria-live": "polite" });
  let focus: Focus;
  const copy = (code: string) => copyText(code).then(() => say(`copied ${code}`), () => say(code));
  const undo = iconButton("undo", "undo (Ctrl+Z)", () => focus.undo());
  const redo = iconButton("redo", "redo (Ctrl+Y)", () => focus.redo());
  const clear = wordButton("clear", "select nothing", () => focus.set(Object.fromEntries(Object.keys(focus.cursor).map((d) => [d, null]))));
  const sel = wordButton("copy ds.sel", "copy the selection as code for a Dataset", () => void copy(selCode(focus.cursor)));
  const update = wordButton("copy focus", "copy the selection as code that restores it", () => void copy(updateCode(focus.cursor)));
  const note = h("span", { class: "ts-sub ts-note" });
  const tools = h("div", { class: "ts-tools" }, undo, redo, clear, sel, update);
  const root = h("div", { class: "ts-root ts-focusbar", "data-ts-view": "FocusBar", role: "group", "aria-label": "selection", ...KEEP_KEYS }, chips, note, tools, said);
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  let forget = 0;
  const say = (text: string) => {
    setText(said, text);
    setText(note, text);
    window.clearTimeout(forget);
    forget = window.setTimeout(() => setText(note, ""), 4000);
  };
  root.addEventListener("keydown", (e) => {
    const key = e.key.toLowerCase();
    if (!(e.ctrlKey || e.metaKey) || (key !== "z" && key !== "y")) return;
    if (key === "y" || e.shiftKey) focus.redo();
    else focus.undo();
    e.preventDefault();
    e.stopPropagation();
  });

  const dimsShown = (): string[] => {
    const known = DRILL.filter((d) => d in focus.cursor || (focus.along.get(d)?.length ?? 0) > 1);
    return [...known, ...Object.keys(focus.cursor).filter((d) => !known.includes(d))];
  };
  const chip = (dim: string): HTMLElement => {
    const selected = dim in focus.cursor ? asList(focus.cursor[dim]) : [];
    const values = focus.along.get(dim) ?? selected;
    const noun = dim.replaceAll("_", " ");
    const find = (text: string): Value | undefined => values.find((v) => String(v) === text);
    const several = selected.length > 1 ? shortened(selected.slice(0, 24).map(valueText).join(", "), 24) : null;
    let field: HTMLElement;
    if (values.length <= LISTED) {
      const options = [h("option", { value: "" }, TIME.has(dim) && !focus.along.has("test_sample") ? "last" : "any"), ...(several ? [h("option", { value: "\0" }, several)] : []), ...values.map((v, i) => h("option", { value: String(i) }, shortened(valueText(v), 40)))];
      const list = h("select", { ...KEEP_KEYS, "aria-label": noun, title: several ? selected.join(", ") : noun, onchange: () => {
        if (list.value !== "\0") focus.set({ [dim]: list.value === "" ? null : values[Number(list.value)] });
      } }, ...options);
      const at = selected.length === 1 ? values.indexOf(selected[0]) : -1;
      if (selected.length === 1 && at < 0) list.append(h("option", { value: "\0" }, String(selected[0])));
      list.value = several || (selected.length === 1 && at < 0) ? "\0" : at >= 0 ? String(at) : "";
      field = list;
    } else {
      const input = h("input", { ...KEEP_KEYS, "aria-label": noun, title: `${noun}: type its value`, value: several ?? String(selected[0] ?? ""), placeholder: `any of ${values.length.toLocaleString("en")}`, onchange: () => {
        const found = find(input.value);
        if (found === undefined && input.value) say(`there is no ${noun} ${input.value}`);
        else focus.set({ [dim]: found ?? null });
      } });
      field = input;
    }
    const remove = selected.length ? iconButton("close", `clear ${noun}`, () => focus.set({ [dim]: null })) : null;
    return h("span", { class: `ts-chip${selected.length ? " ts-on" : ""}`, "data-dim": dim }, h("span", {}, noun), field, remove);
  };

  let built = "";
  const draw = () => {
    root.dataset.tsFocus = JSON.stringify(focus.cursor);
    const dims = dimsShown();
    const key = JSON.stringify([focus.cursor, dims, dims.map((d) => focus.along.get(d)?.length ?? 0)]);
    undo.disabled = !focus.canUndo;
    redo.disabled = !focus.canRedo;
    clear.disabled = !Object.keys(focus.cursor).length;
    sel.disabled = update.disabled = clear.disabled;
    if (key === built) return;
    built = key;
    const holder = document.activeElement?.closest<HTMLElement>("[data-dim]");
    const kept = holder && chips.contains(holder) ? holder.dataset.dim : null;
    chips.replaceChildren(...dims.map(chip));
    if (kept) chips.querySelector<HTMLElement>(`[data-dim="${CSS.escape(kept)}"] :is(select, input)`)?.focus();
  };
  let run: AbortController | undefined;
  const follow = async () => {
    run?.abort();
    run = new AbortController();
    const inner = run.signal;
    focus = await openFocus(host, model.get("focus_model"));
    if (inner.aborted) return;
    focus.subscribe(draw, inner);
    draw();
  };
  signal.addEventListener("abort", () => run?.abort());
  model.on("change:focus_model", () => void follow());
  await follow();
}
