// Mounts a view into the page, and draws it again whenever what it shows has changed.
import { compareTools, type Comparison, isComparison, panelsOf, type PanelPlace } from "./compare";
import { labels, openCube, ownCube, takeOver, type WireCube } from "./cube";
import { h, iconButton, setText } from "./dom";
import { openFocus } from "./focus";
import { type Companions, measure } from "./measure";
import { savePicture } from "./picture";
import { keepPlace, onData } from "./refresh";
import { type Drawn, frame, header, type Kind, showTip, type Stage, type Titles } from "./stage";
import { onThemeChange, readTheme } from "./theme";
import type { Mount } from "./types";

/** Mount one view into an element, and keep it drawn until the signal says stop. */
export async function mountView(name: string, kind: Kind, { model, el, host, signal }: Mount): Promise<void> {
  const camera = iconButton("picture", "save as picture (PNG)", () => void savePicture(root, title.textContent || name).catch(complain));
  const parts = frame(name, camera);
  const { root, body, live, tip, title } = parts;
  // JupyterLab would extend its selection of cells
  root.addEventListener("mousedown", (e) => e.shiftKey && e.stopPropagation());
  el.append(root);
  signal.addEventListener("abort", () => root.remove());
  let broken = false;
  const complain = (error: unknown) => {
    broken = true;
    const text = error instanceof Error ? error.message : String(error);
    body.replaceChildren(h("div", { class: "ts-error", role: "alert" }, `This view cannot be drawn: ${text}`));
  };
  const cubeModel = await host.getModel(model.get("cube"));
  let run: AbortController | undefined;
  let draw = () => {};
  /** Show the values that there are now, in the elements that there are. */
  let refresh = () => false;

  const start = async () => {
    if (signal.aborted) return;
    run?.abort();
    run = new AbortController();
    const inner = run.signal;
    try {
      const focus = await openFocus(host, model.get("focus_model"));
      if (inner.aborted) return;
      const putBack = keepPlace(root);
      broken = false;
      parts.tools.replaceChildren();
      body.replaceChildren();
      const cube = ownCube(openCube(cubeModel.get("data") as WireCube));
      for (const dim of Object.keys(cube.dims)) focus.learn(dim, labels(cube, dim));
      const options = model.get("options") ?? {};
      const settings = (): Record<string, unknown> => model.get("settings") ?? {};
      const change = (key: string, value: unknown) => {
        model.set("settings", { ...settings(), [key]: value });
        model.save_changes();
      };
      let theme = readTheme(root);
      const comparison = (): Comparison | null => [settings().compare, options.compare].find(isComparison) ?? null;
      if (kind.most && !comparison()) root.style.setProperty("--ts-most", `${kind.most}px`);

      // asking the page for a width after it was changed makes it lay everything out: ask once, and again when it changes
      const widths = new Map<HTMLElement, number>();
      const widthOf = (element: HTMLElement): number => {
        if (!widths.get(element)) widths.set(element, element.clientWidth);
        return widths.get(element)!;
      };

      let retell = () => {};
      let pictures: AbortController | undefined;
      inner.addEventListener("abort", () => pictures?.abort());
      const staged = (place: PanelPlace | null, titles: Titles): Stage => {
        const cursor = () => (place?.at ? { ...focus.cursor, ...place.at } : focus.cursor);
        const variable = () => cube.variables[model.get("variable") as string] ?? cube.variables[options.variables?.[0]];
        return {
          ...titles, root, model, focus, cube, options, signal: pictures!.signal, cursor, variable, change,
          get theme() {
            return theme;
          },
          width: () => Math.max(160, Math.floor(widthOf(titles.body))),
          measure: (shown, axes, pool = [], at = {}) => measure(shown, axes, {
            cube, companions: (options.companions?.[shown.name] ?? {}) as Companions, cursor: { ...cursor(), ...at }, reduce: options.reduce, pool, pin: place?.at,
            minus: place?.minus ? { ...focus.cursor, ...place.minus, ...at } : null,
          }),
          setting: <T>(key: string, otherwise: T) => (settings()[key] as T | undefined) ?? otherwise,
          say: (text) => setText(live, text),
          tip(lines, near) {
            retell = () => showTip(root, tip, lines?.() ?? [], near);
            retell();
          },
        };
      };

      let drawn: Drawn[] = [];
      let built = "";
      const build = () => {
        const compared = comparison();
        widths.clear();
        pictures?.abort();
        pictures = new AbortController();
        built = JSON.stringify(compared);
        parts.tools.replaceChildren();
        body.replaceChildren();
        if (!compared) {
          drawn = [kind(staged(null, parts))];
          return;
        }
        drawn = sideBySide(kind, compared, parts, compareTools(cube, compared, (next) => change("compare", next)), staged);
      };
      draw = () => {
        if (inner.aborted) return;
        root.dataset.tsFocus = JSON.stringify(focus.cursor);
        try {
          if (built !== JSON.stringify(comparison())) build();
          setText(parts.partial, cube.partial);
          parts.partial.hidden = !cube.partial;
          parts.note(cube.notes);
          for (const each of drawn) each.draw();
          root.setAttribute("aria-label", parts.title.textContent || name);
        } catch (error) {
          complain(error);
          throw error;
        }
      };
      refresh = () => {
        if (broken || !takeOver(cube, openCube(cubeModel.get("data") as WireCube))) return false;
        draw();
        retell();
        return true;
      };
      build();
      focus.subscribe(() => draw(), inner);
      onThemeChange(() => {
        theme = readTheme(root);
        draw();
      }, inner);
      observeWidth(body, () => {
        widths.clear();
        draw();
      }, inner);
      draw();
      putBack(root);
    } catch (error) {
      complain(error);
      throw error;
    }
  };

  signal.addEventListener("abort", () => run?.abort());
  for (const trait of ["focus_model", "options"]) model.on(`change:${trait}`, () => void start());
  for (const trait of ["variable", "settings"]) model.on(`change:${trait}`, () => draw());
  onData(cubeModel, () => refresh() || void start(), signal);
  await start();
}

/** The pictures of a comparison under one header; the first of them has the switches for all. */
function sideBySide(kind: Kind, compared: Comparison, parts: Titles, tools: HTMLElement[], staged: (place: PanelPlace, titles: Titles) => Stage): Drawn[] {
  const shared = h("div", { class: "ts-tools" });
  parts.tools.append(...tools, shared);
  setText(parts.subtitle, "");
  const cells = panelsOf(compared).map((place, i) => {
    const { head, ...titles } = header();
    return { head, titles: { ...titles, body: h("div", { class: "ts-body" }), tools: i ? h("div") : shared }, place };
  });
  const style = `--ts-basis:${kind.basis ?? 300}px;max-width:${kind.most ? `${kind.most}px` : "none"}`;
  parts.body.append(h("div", { class: "ts-beside ts-compared" }, ...cells.map((c) => h("div", { class: "ts-cell", style }, c.head, c.titles.body))));
  return cells.map(({ place, titles }) => {
    const inside = kind(staged(place, titles));
    return {
      draw() {
        inside.draw();
        setText(parts.title, titles.title.textContent ?? "");
        setText(titles.title, place.words);
      },
    };
  });
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
