// Views beside and below each other. Each is mounted as it is: the Focus that they share is in their models.
import { h } from "./dom";
import { mirrorFocus } from "./focus";
import { mountFocusBar } from "./focusbar";
import type { Host, Model, Mount } from "./types";

export async function mountComposition(mount: Mount, mountAny: (mount: Mount) => Promise<void>, basisOf: (kind: string) => number): Promise<void> {
  const { model, el, host, signal } = mount;
  const beside = model.get("options").arrange === "beside";
  const bar = h("div", { class: "ts-bar-place" });
  const row = h("div", { class: beside ? "ts-beside" : "ts-below" });
  const root = h("div", { class: "ts-root", "data-ts-view": "Composition" }, bar, row);
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  const refs = model.get("children") as string[];
  const children = await Promise.all(refs.map((ref) => host.getModel(ref)));
  const cells = children.map((child, i) => {
    const cell = h("div", { class: "ts-cell", "data-ts-ref": refs[i] });
    void basis(child, host, basisOf).then((width) => cell.style.setProperty("--ts-basis", `${width}px`));
    return cell;
  });
  row.append(...cells);
  await mirrorFocus(root, model, host, signal);
  // the bar comes last: it lists the places that the views know
  await Promise.all(children.map((child, i) => mountAny({ model: child, el: cells[i], host, signal, nested: true })));
  let shown: AbortController | undefined;
  const showBar = () => {
    shown?.abort();
    if (mount.nested || !model.get("focus_bar")) return;
    shown = new AbortController();
    void mountFocusBar({ model, el: bar, host, signal: shown.signal });
  };
  signal.addEventListener("abort", () => shown?.abort());
  model.on("change:focus_bar", showBar);
  showBar();
}

/** A comfortable width: views beside each other add up, below each other the widest counts. */
async function basis(model: Model, host: Host, basisOf: (kind: string) => number): Promise<number> {
  const refs = (model.get("children") ?? []) as string[];
  if (!refs.length) return basisOf(model.get("kind"));
  const children = await Promise.all(refs.map(async (ref) => basis(await host.getModel(ref), host, basisOf)));
  return model.get("options").arrange === "beside" ? children.reduce((a, b) => a + b, 0) : Math.max(...children);
}
