// Live: a dashboard that fills in. Its views follow their Cubes by themselves; here is the bar above them, and their coming.
import { h, setText } from "./dom";
import { mirrorFocus } from "./focus";
import { keepPlaces } from "./refresh";
import { type Kernel, kernelOf, runBar, type Status } from "./runbar";
import type { Mount } from "./types";

export async function mountLive(mount: Mount, mountAny: (mount: Mount) => Promise<void>): Promise<void> {
  const { model, el, host, signal, nested } = mount;
  const bar = runBar(model);
  const empty = h("div", { class: "ts-empty" });
  const place = h("div", { class: "ts-place" });
  const root = h("div", { class: "ts-root ts-coming", "data-ts-view": "Live" }, bar.element, empty, place);
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  await mirrorFocus(root, model, host, signal);

  let filled = false;
  let kernel: Kernel = await kernelOf(model);
  const draw = () => {
    if (signal.aborted) return;
    bar.draw(kernel);
    const { state } = model.get("status") as Status;
    empty.hidden = filled;
    setText(empty, state === "idle" || state === "running" ? "No results yet. They appear here as they come." : "No results to show.");
  };
  let latest: AbortController | undefined;
  let shown: AbortController | undefined;
  let standing: HTMLElement | undefined;
  signal.addEventListener("abort", () => [latest, shown].forEach((run) => run?.abort()));
  /** The new dashboard is made out of sight, and takes the place of the former when it is drawn. */
  const arrange = async () => {
    if (signal.aborted) return;
    const run = (latest = new AbortController());
    const [ref] = model.get("children") as string[];
    const box = h("div", { class: "ts-arriving", "data-ts-ref": ref });
    place.append(box);
    try {
      if (ref) await mountAny({ model: await host.getModel(ref), el: box, host, signal: run.signal, nested });
    } catch (error) {
      // another arrangement came meanwhile, and this one is no more
      if (run === latest) throw error;
    } finally {
      if (run === latest) {
        const putBack = standing && keepPlaces(standing);
        standing = box;
        shown?.abort();
        shown = run;
        box.classList.remove("ts-arriving");
        place.replaceChildren(box);
        putBack?.(box);
        filled = Boolean(ref);
        draw();
      } else {
        run.abort();
        box.remove();
      }
    }
  };
  model.on("change:status", draw);
  model.on("comm_live_update", async () => {
    kernel = await kernelOf(model);
    draw();
  });
  model.on("change:children", () => void arrange());
  draw();
  await arrange();
}
