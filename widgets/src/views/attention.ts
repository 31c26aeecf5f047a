// AttentionPattern: who looks at whom, for the focused sample and head(s). Rows are queries, columns are keys.
import { sampleChoice } from "../core/choose";
import { colourScale, LINES_DARK, LINES_LIGHT } from "../core/colour";
import { labels } from "../core/cube";
import { h, press, setText, shortened, visibleToken, wordButton } from "../core/dom";
import { showLegend, sentence, withUnits } from "../core/legend";
import { indicesAt } from "../core/rules";
import { numberText } from "../core/scale";
import { absent } from "../core/slice";
import { tokensOf } from "../core/tokens";
import type { Cursor, Patch, Value } from "../core/types";
import type { Kind, Stage } from "../core/stage";
import { ceiling, extentOf, type Panel, panelsAt, readPanel, rowOf, signedIn, strongest, withoutFirst } from "./attention-data";
import { matrix, type Matrix } from "./attention-matrix";
import { strip } from "./attention-strip";

const MOST = 8;

export const attentionPattern: Kind = (stage: Stage) => {
  const { cube, focus, model, options } = stage;
  const shown = () => cube.variables[model.get("variable") as string];
  const { dims } = shown();
  const hasSample = dims.includes("sample");
  const samples = hasSample ? labels(cube, "sample") : [];
  const positions = labels(cube, "query");
  let over: { query: number; key: number } | null = null;
  let overPanel = 0;
  let panels: Panel[] = [];
  let facets: { cursor: Cursor; words: string }[] = [];
  let tokens: string[] = [];

  const choose = sampleChoice(stage);
  const sampleAt = choose.seen;
  const first = wordButton("without first", "leave out the attention to the first token, and fit the colours to the rest", () => stage.change("skip_first", !skipped()));
  const skipped = () => stage.setting("skip_first", Boolean(options.skip_first));
  stage.tools.append(first);

  const plates = h("div", { class: "ts-plates" });
  const readout = h("div", { class: "ts-readout" });
  const key = h("div");
  const sentenceStrip = strip({
    over: (query) => point(query === null ? null : { query, key: query }),
    pick: (query) => keep(query, null),
  });
  stage.body.append(plates, readout, sentenceStrip.element, key);
  const matrices: Matrix[] = [];

  /** Choose a query; where other views tell of single cells, with its key, and with all that says whose cell it is. */
  const keep = (query: number, k: number | null, panel = 0) => {
    if (!options.cells) return focus.set({ position: positions[query] });
    const at = k ?? keyAt();
    const key = at === null || (panels[0]?.causal && at > query) ? null : positions[at];
    // another position is another query
    const { layer, head } = facets[panel]?.cursor ?? {};
    const whose = Object.fromEntries(Object.entries({ layer, head }).filter(([d]) => dims.includes(d)));
    const sample = hasSample ? { sample: samples[sampleAt()] } : {};
    focus.set({ ...sample, ...whose, position: positions[query], query: positions[query], key } as Patch, { query: ["position"], key: ["position"] });
  };
  const pinnedAt = (): number | null => indicesAt(cube, "query", focus.cursor)?.[0] ?? null;
  /** The key of the cell that is chosen. */
  const keyAt = (): number | null => (options.cells && "key" in focus.cursor ? (indicesAt(cube, "key", focus.cursor)?.[0] ?? null) : null);

  /** The selection, or what the pointer is on in another view while no more than one head is selected. */
  const place = (): { cursor: Cursor; preview: boolean; chosen: boolean } => {
    const facets = ["layer", "head"].filter((d) => dims.includes(d));
    const chosen = facets.every((d) => indicesAt(cube, d, focus.cursor));
    const many = facets.some((d) => (indicesAt(cube, d, focus.cursor)?.length ?? 0) > 1);
    const hovered = facets.length > 0 && facets.every((d) => d in focus.hover);
    const here: Cursor = { ...focus.cursor };
    if (hasSample) here.sample = samples[sampleAt()];
    const preview = hovered && !many && facets.some((d) => focus.hover[d] !== focus.cursor[d]);
    if (preview) for (const d of facets) here[d] = focus.hover[d];
    return { cursor: here, preview, chosen };
  };

  /** The query whose row is read: under the pointer, else selected, else the last. */
  const queryAt = (n: number): number => {
    const wanted: Value | undefined = focus.hover.position as Value | undefined;
    const hovered = wanted === undefined ? -1 : positions.indexOf(wanted);
    const selected = indicesAt(cube, "query", focus.cursor)?.[0];
    return Math.min(n - 1, over?.query ?? (hovered >= 0 ? hovered : (selected ?? n - 1)));
  };

  const point = (at: { query: number; key: number } | null) => {
    over = at;
    focus.point(at ? { position: positions[at.query] } : {});
    if (!at) drawn.draw();
  };

  const name = (i: number): string => `‘${shortened(visibleToken(tokens[i] ?? ""), 40)}’ (${positions[i]})`;

  const keydown = (e: KeyboardEvent) => {
    const n = panels[0]?.n ?? 0;
    const query = queryAt(n);
    const at = over?.key ?? keyAt() ?? query;
    const clamp = (v: number) => Math.max(0, Math.min(n - 1, v));
    if (e.key === "ArrowUp" || e.key === "ArrowDown") {
      const next = clamp(query + (e.key === "ArrowUp" ? -1 : 1));
      over = { query: next, key: Math.min(at, next) };
      keep(next, Math.min(at, next));
    } else if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      over = { query, key: clamp(at + (e.key === "ArrowLeft" ? -1 : 1)) };
      if (options.cells) keep(query, over.key);
    } else if (e.key === "Enter") keep(query, at);
    else if (e.key === "Escape") {
      over = null;
      focus.set({ position: null, ...(options.cells ? { query: null, key: null } : {}) });
    } else return;
    e.preventDefault();
    e.stopPropagation();
    drawn.draw();
    stage.say(readout.textContent ?? "");
  };

  const ensure = (count: number) => {
    while (matrices.length > count) matrices.pop()!.element.remove();
    while (matrices.length < count) {
      const made = matrix({
        over: (query, k) => {
          overPanel = matrices.indexOf(made);
          point(query === null ? null : { query, key: k });
        },
        pick: (query, k) => keep(query, k, matrices.indexOf(made)),
        keydown,
      });
      matrices.push(made);
      plates.append(made.element);
    }
  };

  const drawn = {
    draw() {
      const { cursor, preview, chosen } = place();
      const variable = shown();
      const found = panelsAt(cube, variable, cursor, MOST, focus.places);
      const { total, notes } = found;
      facets = found.facets;
      panels = facets.map((f) => readPanel(cube, variable, f.cursor, f.words));
      const n = Math.max(1, ...panels.map((p) => extentOf(p.values, p.size)));
      for (const panel of panels) panel.n = n;
      if (skipped()) panels = withoutFirst(panels);
      press(first, skipped());
      tokens = tokensOf(cube, hasSample ? sampleAt() : -1, n);

      const where = panels.length === 1 ? panels[0].words : `${total} heads`;
      const here = sentence([where, hasSample ? sampleWords(samples[sampleAt()]) : ""].filter(Boolean).join(" · ")) || "Attention";
      setText(stage.title, options.title || here);
      const asides = [...(options.title ? [here] : []), ...notes, ...(hasSample ? absent(cube, "sample", focus.cursor) : [])];
      if (skipped()) asides.push("without the first token; the colours fit the rest");
      if (preview || choose.preview()) asides.push("preview: click to keep it");
      else if (!chosen) asides.push("click a head to follow it");
      if (options.cells && keyAt() === null) asides.push("click a cell to see what it is made of");
      if (total > MOST) asides.push(`the first ${MOST} of ${total} shown`);
      setText(stage.subtitle, asides.join(" · "));
      choose.show();

      const colours = stage.theme.dark ? LINES_DARK : LINES_LIGHT;
      const signed = signedIn(panels);
      const scale = colourScale([0, ceiling(panels)], stage.theme.dark, signed);
      const query = queryAt(n);
      const at = over ? over.key : null;
      ensure(panels.length);
      const single = panels.length === 1;
      const fitting = Math.max(1, Math.floor((stage.width() + 16) / 176));
      const columns = Math.ceil(panels.length / Math.ceil(panels.length / fitting));
      const width = single ? Math.min(stage.width(), n > 80 ? 800 : 560) : Math.min(250, Math.floor((stage.width() - (columns - 1) * 16) / columns));
      plates.style.gridTemplateColumns = `repeat(${columns}, ${width}px)`;
      const pinned = pinnedAt();
      matrices.forEach((m, i) => m.draw({ panel: panels[i], tokens, scale, theme: stage.theme, width, labelled: single, colour: colours[i] ?? "transparent", query, key: at, pinned, pinnedKey: keyAt(), loud: over !== null || "position" in focus.hover }));

      const row = rowOf(panels, query, n);
      const held = over === null && query === pinnedAt() ? keyAt() : at;
      const target = held !== null && (held !== query || options.cells) ? held : strongest(row);
      const words = `${name(query)} looks ${target === held ? "" : "most "}at ${name(target)}: ${numberText(row[target])}`;
      const own = panels[overPanel];
      const alone = !single && over && own ? `; ${own.words}: ${numberText(own.values[query * own.size + target])}` : "";
      setText(readout, Number.isNaN(row[target]) ? "No attention here" : single ? words : `${words}, the mean of these heads${alone}`);
      sentenceStrip.draw({ tokens, row, query, key: at, pinned });
      const beyond = !signed && panels.some((p) => p.values.some((v) => v > scale.domain[1] * 1.001));
      const label = `${withUnits(variable.longName, variable.units)}${beyond ? `; more than ${numberText(scale.domain[1], 1)} looks the same` : ""}`;
      showLegend(key, scale, label, [], 0, Math.min(190, stage.width() - 20));
    },
  };
  return drawn;
};
attentionPattern.basis = 380;
attentionPattern.most = 860;

/** An id such as "sample-3" says itself what it is. */
const sampleWords = (id: Value): string => (/^samples?\b/i.test(String(id)) ? String(id) : `sample ${id}`);
