// Views beside and below each other. Each is mounted as it is: the Focus that they share is in their models.
import { h } from "./dom";
import { openFocus } from "./focus";
import type { Host, Model, Mount } from "./types";

export async function mountComposition(mount: Mount, mountAny: (mount: Mount) => Promise<void>, basisOf: (kind: string) => number): Promise<void> {
  const { model, el, host, signal } = mount;
  const beside = model.get("options").arrange === "beside";
  const root = h("div", { class: `ts-root ${beside ? "ts-beside" : "ts-below"}`, "data-ts-view": "Composition" });
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  const children = await Promise.all((model.get("children") as string[]).map((ref) => host.getModel(ref)));
  const cells = children.map((child) => {
    const cell = h("div", { class: "ts-cell" });
    void basis(child, host, basisOf).then((width) => cell.style.setProperty("--ts-basis", `${width}px`));
    return cell;
  });
  root.append(...cells);
  const follow = async () => {
    const focus = await openFocus(host, model.get("focus_model"));
    const mirror = () => (root.dataset.tsFocus = JSON.stringify(focus.cursor));
    focus.subscribe(mirror, signal);
    mirror();
  };
  model.on("change:focus_model", () => void follow());
  await follow();
  await Promise.all(children.map((child, i) => mountAny({ model: child, el: cells[i], host, signal })));
}

/** A comfortable width: views beside each other add up, below each other the widest counts. */
async function basis(model: Model, host: Host, basisOf: (kind: string) => number): Promise<number> {
  if (model.get("kind") !== "Composition") return basisOf(model.get("kind"));
  const children = await Promise.all((model.get("children") as string[]).map(async (ref) => basis(await host.getModel(ref), host, basisOf)));
  return model.get("options").arrange === "beside" ? children.reduce((a, b) => a + b, 0) : Math.max(...children);
}
