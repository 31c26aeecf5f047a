// What every view gets, and the frame around it.
import { openCube, type Cube, type WireCube } from "./cube";
import { h, KEEP_KEYS, setText } from "./dom";
import { type Focus, openFocus } from "./focus";
import { onThemeChange, readTheme, type Theme } from "./theme";
import type { Model, Mount } from "./types";

export interface Stage {
  root: HTMLElement;
  title: HTMLElement;
  subtitle: HTMLElement;
  tools: HTMLElement;
  body: HTMLElement;
  model: Model;
  cube: Cube;
  focus: Focus;
  options: Record<string, any>;
  theme: Theme;
  signal: AbortSignal;
  /** Width there is, in CSS pixels. */
  width(): number;
  /** For those who listen instead of look. */
  say(text: string): void;
  /** A tooltip near a place of an element; no lines hide it. */
  tip(lines: string[], near?: { element: HTMLElement; x: number; y: number }): void;
}

export interface Drawn {
  draw(): void;
}

/** A kind of view: build its elements once, draw whenever the Focus, the theme, the width or the data change. */
export interface Kind {
  (stage: Stage): Drawn;
  /** Comfortable and largest width beside other views. */
  basis?: number;
  most?: number;
}

export function frame(kind: string): { root: HTMLElement; live: HTMLElement; tip: HTMLElement } & Pick<Stage, "title" | "subtitle" | "tools" | "body"> {
  const title = h("div", { class: "ts-title" });
  const subtitle = h("div", { class: "ts-sub" });
  const tools = h("div", { class: "ts-tools" });
  const body = h("div", { class: "ts-body" });
  const tip = h("div", { class: "ts-tip", role: "presentation", hidden: true });
  const live = h("div", { class: "ts-live", "aria-live": "polite" });
  const head = h("div", { class: "ts-head" }, h("div", { class: "ts-titles" }, title, subtitle), tools);
  const root = h("div", { class: "ts-root ts-view", "data-ts-view": kind, ...KEEP_KEYS }, head, body, tip, live);
  return { root, title, subtitle, tools, body, tip, live };
}

/** Mount one view into an element, and keep it drawn until the signal says stop. */
export async function mountView(name: string, kind: Kind, { model, el, host, signal }: Mount): Promise<void> {
  const parts = frame(name);
  const { root, body, live, tip } = parts;
  if (kind.most) root.style.setProperty("--ts-most", `${kind.most}px`);
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  const complain = (error: unknown) => {
    const text = error instanceof Error ? error.message : String(error);
    body.replaceChildren(h("div", { class: "ts-error", role: "alert" }, `This view cannot be drawn: ${text}`));
  };
  const cubeModel = await host.getModel(model.get("cube"));
  let run: AbortController | undefined;

  const start = async () => {
    run?.abort();
    run = new AbortController();
    const inner = run.signal;
    try {
      const focus = await openFocus(host, model.get("focus_model"));
      if (inner.aborted) return;
      parts.tools.replaceChildren();
      body.replaceChildren();
      const stage: Stage = {
        ...parts, model, focus, cube: openCube(cubeModel.get("data") as WireCube), options: model.get("options") ?? {},
        theme: readTheme(root), signal: inner,
        width: () => Math.max(200, Math.floor(body.clientWidth)),
        say: (text) => setText(live, text),
        tip: (lines, near) => showTip(root, tip, lines, near),
      };
      const drawn = kind(stage);
      const draw = () => {
        if (inner.aborted) return;
        root.dataset.tsFocus = JSON.stringify(focus.cursor);
        try {
          drawn.draw();
        } catch (error) {
          complain(error);
          throw error;
        }
      };
      focus.subscribe(draw, inner);
      onThemeChange(() => {
        stage.theme = readTheme(root);
        draw();
      }, inner);
      observeWidth(body, draw, inner);
      model.on("change:variable", draw);
      draw();
    } catch (error) {
      complain(error);
      throw error;
    }
  };

  signal.addEventListener("abort", () => run?.abort());
  for (const trait of ["focus_model", "options"]) model.on(`change:${trait}`, () => void start());
  cubeModel.on("change:data", () => void start());
  await start();
}

function observeWidth(element: HTMLElement, draw: () => void, signal: AbortSignal): void {
  let width = element.clientWidth;
  const observer = new ResizeObserver(() => {
    if (element.clientWidth === width || !element.clientWidth) return;
    width = element.clientWidth;
    requestAnimationFrame(draw);
  });
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect());
}

function showTip(root: HTMLElement, tip: HTMLElement, lines: string[], near?: { element: HTMLElement; x: number; y: number }): void {
  tip.hidden = !lines.length;
  if (!lines.length || !near) return;
  tip.replaceChildren(...lines.map((line) => h("div", {}, line)));
  const outer = root.getBoundingClientRect();
  const inner = near.element.getBoundingClientRect();
  const x = inner.left - outer.left + near.x;
  const y = inner.top - outer.top + near.y;
  const left = x + 14 + tip.offsetWidth > outer.width ? x - tip.offsetWidth - 10 : x + 14;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${y + 14 + tip.offsetHeight > outer.height ? Math.max(0, y - tip.offsetHeight - 8) : y + 14}px`;
}
