// The run bar above results that are still coming: Run and Stop, how far it is, and one line about it.
import { h, iconOf, KEEP_KEYS, setText } from "./dom";
import type { Model } from "./types";

export interface Status {
  state: "idle" | "running" | "done" | "stopped" | "failed";
  /** From 0 to 1. */
  done: number;
  text: string;
  /** Whether someone listens to Run, and to Stop. */
  start: boolean;
  stop: boolean;
}

/** Who is behind the results: a kernel, one that is gone, or none ever (a file). */
export type Kernel = "there" | "gone" | "none";

export interface Bar {
  hidden: boolean;
  look: "quiet" | "busy" | "partial" | "failed";
  button: { ask: "start" | "stop"; words: string } | null;
  /** How much of the track is full; null where there is none. */
  share: number | null;
  /** What must not be missed, before the line. */
  lead: string;
  text: string;
}

export function barOf({ state, done, text, start, stop }: Status, kernel: Kernel): Bar {
  const bar: Bar = { hidden: false, look: "quiet", button: null, share: null, lead: "", text };
  if (kernel !== "there") {
    if (state === "idle" || state === "done") return { ...bar, hidden: true };
    if (state === "running") {
      const why = kernel === "gone" ? "the kernel went away before the run was done" : "the run was not done when this was saved";
      return { ...bar, look: "partial", share: done, lead: "Partial results", text: why };
    }
  }
  if (start && kernel === "there") bar.button = { ask: "start", words: state === "idle" ? "Run" : "Run again" };
  if (state === "idle") return { ...bar, hidden: !start && !text };
  if (state === "running") {
    const button: Bar["button"] = stop ? { ask: "stop", words: "Stop" } : null;
    return { ...bar, look: "busy", share: done, button, text: button ? text : [text, "■ in the toolbar stops the cell"].filter(Boolean).join(" · ") };
  }
  if (state === "stopped") return { ...bar, look: "partial", share: done, lead: "Partial results", text };
  if (state === "failed") return { ...bar, look: "failed", share: done, lead: "Failed", text };
  return bar;
}

/** What a listener hears: each turn, and every quarter of the way; the line itself changes too often. */
export function announcement(before: Status | null, now: Status): string {
  if (!before) return "";
  const words = { idle: "", running: "Running", done: "Done", stopped: "Stopped, the results are partial", failed: "Failed" }[now.state];
  if (before.state !== now.state) return [words, now.text].filter(Boolean).join(": ");
  const quarter = Math.floor(now.done * 4);
  return now.state === "running" && quarter > Math.floor(before.done * 4) ? `${quarter * 25} %` : "";
}

/** Tell by a model that every view has: where its line to the kernel is cut, all of them are. */
export async function kernelOf(model: Model): Promise<Kernel> {
  if (!model.send) return "none";
  const known = await model.widget_manager?.get_model(String(model.get("focus_model")).replace("anywidget:", ""));
  return known?.comm_live === false ? "gone" : "there";
}

/** A second click of a double click is not meant for what the button says by then. */
const TWICE = 500;
/** How long a click may go unanswered before the line says so. */
const PATIENCE = 5000;

export function runBar(model: Model): { element: HTMLElement; draw(kernel: Kernel): void } {
  const words = h("span");
  const picture = h("span", { class: "ts-run-icon", "aria-hidden": "true" });
  const fill = h("i");
  const track = h("div", { class: "ts-run-track", role: "progressbar", "aria-label": "progress", "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  const lead = h("span", { class: "ts-run-lead" });
  const line = h("span", { class: "ts-run-line" });
  const said = h("div", { class: "ts-live", "aria-live": "polite" });
  let shown: Bar;
  let turned = -Infinity;
  let before: Status | null = null;
  let heard = true;
  const button = h("button", { ...KEEP_KEYS, class: "ts-button ts-word ts-run", type: "button", onclick: () => {
    if (!shown.button || !heard || performance.now() - turned < TWICE) return;
    heard = false;
    button.setAttribute("aria-disabled", "true");
    model.send?.({ ask: shown.button.ask });
    window.setTimeout(() => {
      if (heard) return;
      answered();
      setText(line, "No answer from the kernel yet.");
    }, PATIENCE);
  } }, picture, words);
  const element = h("div", { class: "ts-runbar", "data-ts-run": "idle", role: "group", "aria-label": "run", ...KEEP_KEYS }, button, track, lead, line, said);
  const answered = () => {
    heard = true;
    button.removeAttribute("aria-disabled");
  };

  const draw = (kernel: Kernel) => {
    const status = model.get("status") as Status;
    const bar = barOf(status, kernel);
    if (before && bar.button?.ask !== shown?.button?.ask) turned = performance.now();
    // reports go on while the run comes to its stop
    if (bar.button?.ask !== shown?.button?.ask || status.state !== before?.state) answered();
    shown = bar;
    element.hidden = bar.hidden;
    element.dataset.tsRun = status.state;
    element.dataset.tsLook = bar.look;
    button.hidden = !bar.button;
    if (bar.button && words.textContent !== bar.button.words) {
      setText(words, bar.button.words);
      picture.replaceChildren(iconOf(bar.button.ask === "stop" ? "stop" : "play"));
    }
    track.hidden = bar.share === null;
    const percent = Math.round(100 * (bar.share ?? 0));
    fill.style.width = `${100 * (bar.share ?? 0)}%`;
    track.setAttribute("aria-valuenow", String(percent));
    track.setAttribute("aria-valuetext", status.text || `${percent} %`);
    setText(lead, bar.lead);
    lead.hidden = !bar.lead;
    setText(line, bar.text);
    line.title = bar.text;
    const news = announcement(before, status);
    if (news) setText(said, news);
    before = status;
  };
  return { element, draw };
}
