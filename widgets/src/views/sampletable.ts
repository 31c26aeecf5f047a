// SampleTable: one row per sample. Only the rows in sight are in the page, so a hundred thousand scroll.
import { colourScale, type ColourScale, css } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { become, fill, h, KEEP_KEYS, press, setText, shortened, tokenParts, visibleToken, wordButton } from "../core/dom";
import { finest } from "../core/finest";
import { handMoved, stepped } from "../core/hands";
import { sentence, withUnits } from "../core/legend";
import { toggled } from "../core/places";
import { asList, indicesAt } from "../core/rules";
import { counted, numberText, valueText } from "../core/scale";
import { about, along } from "../core/select";
import { extent } from "../core/slice";
import { describe, type Reading } from "../core/measure";
import type { Kind, Stage } from "../core/stage";
import type { Patch } from "../core/types";
import { rangeOf } from "./grid";
import { thumbs } from "../core/thumbs";
import { sorted, type Sorting, windowOf } from "./rows";

const LINE = 25;
/** A row with a picture. */
const PICTURED = 39;
const HEIGHT = 300;
/** Fewer rows than this are seen at a glance. */
const SOUGHT = 16;

interface Column {
  name: string;
  title: string;
  hint: string;
  reading?: Reading;
  /** How it came to one value for each row. */
  notes?: string[];
  /** Several values for each row, side by side: the dimension, and what colours them. */
  cells?: { along: string; scale: ColourScale };
  text?: (row: number) => string;
  image?: (row: number) => string;
  domain: [number, number];
}

const isText = (name: string): boolean => name === "text" || name === "test_text";

export const sampleTable: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const dim: string = options.by ?? "sample";
  const ids = labels(cube, dim);
  // an id stands for the thing
  const noun = dim.replace(/_id$/, "").replaceAll("_", " ");
  const names: string[] = options.columns;
  const picture = thumbs(cube, options.pictures);
  const line = picture ? PICTURED : LINE;
  const head = h("tr");
  const above = h("tr", { "aria-hidden": "true", class: "ts-space-row" });
  const below = h("tr", { "aria-hidden": "true", class: "ts-space-row" });
  const body = h("tbody", {}, above, below);
  const table = h("table", { ...KEEP_KEYS, class: `ts-table${picture ? " ts-pictured" : ""}`, role: "grid", tabindex: 0, "aria-rowcount": ids.length + 1 }, h("thead", {}, head), body);
  const scroller = h("div", { class: "ts-scroll ts-rows" }, table);
  scroller.style.maxHeight = `${HEIGHT}px`;
  const empty = h("div", { class: "ts-empty", hidden: true });
  stage.body.append(scroller, empty);
  let sought = "";
  let only = false;
  const search = h("input", {
    ...KEEP_KEYS, class: "ts-pick ts-typed", type: "search", placeholder: "search", "aria-label": `search ${noun}s`, title: `type part of a ${noun}`,
    oninput: () => seek(search.value),
    onkeydown: (e: KeyboardEvent) => {
      if (e.key === "Enter" && order.length) pick(order[0], e.shiftKey);
      else if (e.key === "Escape" && search.value) seek((search.value = ""));
      e.stopPropagation();
    },
  });
  const onlySelected = wordButton("only selected", `only the ${noun}s that are selected`, () => {
    only = !only;
    refill();
  });
  stage.tools.append(search, onlySelected);
  const texts = [dim, ...names].filter((n) => (n === dim ? typeof ids[0] === "string" : Array.isArray(cube.variables[n].values)));
  search.hidden = !texts.length || ids.length <= SOUGHT;
  let columns: Column[] = [];
  let order: number[] = [...ids.keys()];
  let where: Map<number, number> | null = null;
  let current: number | null = null;
  let sortedBy: unknown[] = [];
  let shown = "";
  let whole = order;
  /** What is looked through, in small letters: texts as they are, and with their whitespace made visible. */
  let looked: string[] | null = null;
  const found = (row: number): boolean => (looked ??= ids.map((id, i) => {
    const all = texts.map((n) => (n === dim ? String(id) : (cube.variables[n].values as string[])[i]));
    return [...all, ...all.map(visibleToken)].join("\n").toLowerCase();
  }))[row].includes(sought);
  const seek = (text: string) => {
    sought = text.toLowerCase();
    scroller.scrollTop = 0;
    refill();
    stage.say(sought ? `${order.length} of ${ids.length} ${noun}s` : "");
  };
  /** The rows that are looked for, in their order. */
  let narrowed: unknown[] = [];
  const narrow = () => {
    const key = [whole, sought, only && focus.cursor];
    if (key.every((v, i) => v === narrowed[i])) return;
    narrowed = key;
    const selected = only ? new Set(indicesAt(cube, dim, focus.cursor) ?? []) : null;
    order = sought || selected ? whole.filter((row) => (!selected || selected.has(row)) && (!sought || found(row))) : whole;
    where = null;
    shown = "";
  };
  const refill = () => drawn.draw();

  const sorting = () => stage.setting<Sorting | null>("sort", null);
  const sortBy = (column: string) => {
    const now = sorting();
    const next: Sorting | null = now?.column !== column ? { column, descending: true } : now.descending ? { column, descending: false } : null;
    stage.change("sort", next);
    stage.say(next ? `Sorted by ${column}, ${next.descending ? "largest" : "smallest"} first` : "In their own order");
  };
  const rankOf = (row: number): number | null => (where ??= new Map(order.map((r, i) => [r, i]))).get(row) ?? null;
  const words = (row: number) => `${noun} ${ids[row]}, ${columns.slice(1).filter((c) => !c.image).map((c) => `${c.title} ${c.text ? c.text(row) : c.cells ? cellWords(c, row).replaceAll("\n", ", ") : textOf(c, c.reading!.values[row])}`).join(", ")}`;
  /** A row by itself, or a pair with its samples. */
  const choose = (chosen: Patch) => {
    const { patch, bound } = along(cube, chosen);
    focus.set(patch, bound);
  };
  const pick = (row: number, add: boolean) => {
    current = row;
    choose(add ? toggled(focus.cursor, [], { [dim]: ids[row] }).patch : { [dim]: ids[row] });
    reveal(rankOf(row));
    stage.say(`Row ${(rankOf(row) ?? 0) + 1} of ${order.length}: ${words(row)}`);
  };
  const reveal = (rank: number | null) => {
    if (rank === null) return;
    const top = rank * line;
    const height = scroller.clientHeight - head.offsetHeight - 4;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + line > scroller.scrollTop + height) scroller.scrollTop = top + line - height;
  };
  const rowOf = (e: Event): number => Number((e.target as HTMLElement).closest<HTMLElement>("[data-row]")?.dataset.row ?? -1);

  scroller.addEventListener("scroll", () => requestAnimationFrame(rows));
  body.addEventListener("click", (e) => {
    const row = rowOf(e);
    if (row < 0) return;
    const from = current;
    if (e.shiftKey && from !== null) {
      const [a, b] = [rankOf(from) ?? 0, rankOf(row) ?? 0].sort((x, y) => x - y);
      choose({ [dim]: order.slice(a, Math.min(b, a + 999) + 1).map((r) => ids[r]) });
      stage.say(`${b - a + 1} rows selected`);
    } else pick(row, e.ctrlKey || e.metaKey);
  });
  const moved = handMoved(body);
  body.addEventListener("pointerover", (e) => {
    if (!moved(e)) return;
    const row = rowOf(e);
    focus.point(row < 0 ? {} : about(cube, { [dim]: ids[row] }));
  });
  body.addEventListener("pointerleave", () => focus.point({}));
  table.addEventListener("keydown", (e) => {
    if (e.target !== table) return;
    const selected = indicesAt(cube, dim, focus.cursor);
    const row = current !== null && selected?.includes(current) ? current : (selected?.[0] ?? null);
    const rank = row === null ? null : rankOf(row);
    const to = !order.length && e.key !== "Escape" ? null : e.key === "Enter" || e.key === " " ? (rank ?? 0) : stepped(rank, e.key, order.length, "ArrowUp", "ArrowDown");
    if (e.key === "Escape") {
      current = null;
      choose({ [dim]: null });
      stage.say("No row selected");
    } else if (to === undefined) return;
    else if (to !== null) pick(order[to], e.shiftKey);
    e.preventDefault();
    e.stopPropagation();
  });

  const readColumns = (): Column[] => {
    const plain = (text: string) => shortened(/[\u0000-\u001f]/.test(text) ? visibleToken(text).replaceAll("·", " ") : text, 400);
    const first: Column = { name: dim, title: dim.replaceAll("_", " "), hint: "", text: (row) => plain(String(ids[row])), domain: [0, 1] };
    const seen: Column = { name: "image", title: "image", hint: "", text: () => "", image: picture ?? undefined, domain: [0, 1] };
    return [first, ...(picture ? [seen] : []), ...names.map((name): Column => {
      const variable: Variable = cube.variables[name];
      const spaced = (text: string) => shortened(visibleToken(text), 120);
      if (Array.isArray(variable.values)) return { name, title: variable.longName.replace(/^test (?=text$|task$)/, ""), hint: "", text: (row) => (name === "token" ? spaced : plain)((variable.values as string[])[row]), domain: [0, 1] };
      const more: string | undefined = options.along?.[name];
      const axes = more ? [dim, more] : [dim];
      const { variable: told, notes } = finest(cube, variable, options.instead?.[name], axes, stage.cursor());
      const reading = stage.measure(told, axes);
      if (more) {
        const scale = colourScale(rangeOf(cube, told, axes, stage.cursor(), options.reduce), stage.theme.dark, reading.signed, true);
        return { name, title: `by ${more}`, hint: "", reading, notes: [], domain: scale.domain, cells: { along: more, scale } };
      }
      const [low, high] = extent(reading.values);
      return { name, title: told.longName, hint: [...reading.notes, ...notes, told.units].filter(Boolean).join(" · "), reading, notes: [...reading.notes, ...notes], domain: [Math.min(0, low), Math.max(0, high)] };
    })];
  };

  /** Counts have no decimals. */
  const flag = ({ reading }: Column): boolean => reading?.variable.values instanceof Uint8Array;
  const textOf = (column: Column, v: number): string => (flag(column) && (v === 0 || v === 1) ? (v ? "yes" : "no") : numberOf(column, v));
  const numberOf = ({ reading }: Column, v: number): string => (reading!.variable.values instanceof Int32Array && Number.isInteger(v) ? v.toLocaleString("en") : numberText(v));
  const cellOf = (column: Column, row: number): HTMLElement => {
    if (column.image) return h("td", { class: "ts-image" }, h("img", { src: column.image(row), alt: `image of ${noun} ${ids[row]}`, draggable: "false" }));
    if (column.text) {
      const text = column.text(row);
      return h("td", { title: text, class: isText(column.name) ? "ts-text" : "" }, h("bdi", {}, ...(column.name === "token" ? tokenParts(text) : [text])));
    }
    if (column.cells) return cellsOf(column, row);
    const { reading, domain } = column;
    const v = reading!.values[row];
    const status = reading!.status(row);
    const cell = h("td", { class: `ts-number ts-${status}`, title: reading!.low ? describe(reading!, row).join("\n") : "" }, Number.isNaN(v) ? "–" : textOf(column, v) + halfOf(reading!, row));
    const span = domain[1] - domain[0];
    if (!Number.isFinite(v) || !span || flag(column)) return cell;
    const [a, b] = [Math.min(0, v), Math.max(0, v)].map((e) => (100 * (e - domain[0])) / span);
    const rgb = colourScale([-1, 1], stage.theme.dark).rgb(v < 0 ? -0.7 : 0.7)!;
    cell.style.background = `linear-gradient(90deg, transparent ${a}%, ${css(rgb, 0.34)} ${a}% ${b}%, transparent ${b}%)`;
    return cell;
  };

  const intervals = (): string[] => columns.flatMap(({ reading: r }) => {
    if (!r?.low?.some((v, i) => Number.isFinite(r.high![i] - v))) return [];
    const held = ids.some((_, i) => r.status(i) === "undecided") ? `, in italics where it holds ${r.reference ? "the null" : "0"}` : "";
    return [`± half the ${r.variable.words.interval ?? "interval"}${held}`];
  });
  /** Half its interval, where it has one. */
  const halfOf = ({ low, high }: Reading, row: number): string => (low && high && Number.isFinite(high[row] - low[row]) ? ` ± ${numberText((high[row] - low[row]) / 2, 2)}` : "");
  /** Values side by side, each a patch of its colour. */
  const cellsOf = (column: Column, row: number): HTMLElement => {
    const strip = h("i");
    const values = cellValues(column, row);
    const part = (i: number) => `${(100 * i) / values.length}%`;
    const stops = values.map((v, i) => {
      const rgb = column.cells!.scale.rgb(v);
      return `${rgb ? css(rgb) : "transparent"} ${part(i)} ${part(i + 1)}`;
    });
    strip.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    return h("td", { class: "ts-cells", title: cellWords(column, row) }, strip);
  };
  const cellValues = ({ reading }: Column, row: number): number[] => {
    const [, n] = reading!.shape;
    return Array.from(reading!.values.subarray(row * n, (row + 1) * n));
  };
  const cellWords = (column: Column, row: number): string => {
    const { along } = column.cells!;
    const at = labels(cube, along);
    return [column.reading!.variable.longName, ...cellValues(column, row).map((v, i) => `${along} ${valueText(at[i])}: ${numberText(v)}`)].join("\n");
  };

  const rows = () => {
    const [from, to] = windowOf(order.length, line, scroller.scrollTop, HEIGHT);
    const chosen = new Set(indicesAt(cube, dim, focus.cursor) ?? []);
    const over = new Set(indicesAt(cube, dim, focus.hover) ?? []);
    const key = JSON.stringify([from, to, order[from], order[to - 1], stage.theme.dark, sortedBy.length]);
    if (key !== shown) {
      shown = key;
      above.style.height = `${from * line}px`;
      below.style.height = `${(order.length - to) * line}px`;
      const made = order.slice(from, to).map((row, i) => h("tr", { "data-row": row, "aria-rowindex": from + i + 2 }, ...columns.map((c) => cellOf(c, row))));
      const there = [...body.querySelectorAll<HTMLElement>("[data-row]")];
      made.forEach((tr, i) => (there[i] ? become(there[i], tr) : below.before(tr)));
      there.slice(made.length).forEach((tr) => tr.remove());
    }
    for (const tr of body.querySelectorAll<HTMLElement>("[data-row]")) {
      const row = Number(tr.dataset.row);
      tr.setAttribute("aria-selected", String(chosen.has(row)));
      tr.classList.toggle("ts-chosen", chosen.has(row));
      tr.classList.toggle("ts-over", over.has(row));
    }
  };

  let asked = "";
  let ranked = "";
  const drawn = {
    draw() {
      columns = readColumns();
      const now = sorting();
      const by = columns.find((c) => c.name === now?.column);
      const signature = [now?.column, now?.descending, by?.reading?.values, ...columns.map((c) => c.reading?.values)];
      if (signature.length !== sortedBy.length || signature.some((v, i) => v !== sortedBy[i])) {
        sortedBy = signature;
        whole = now && by ? sorted(ids.length, by.text ?? ((row) => by.reading!.values[row]), now.descending) : [...ids.keys()];
        narrowed = [];
        fill(head, columns.map((c) => {
          const on = now?.column === c.name;
          const arrow = on ? (now!.descending ? "\u00a0↓" : "\u00a0↑") : "";
          if (c.cells || c.image) return h("th", { scope: "col" }, c.title);
          const button = h("button", { ...KEEP_KEYS, type: "button", class: "ts-sort", title: `sort by ${c.title}${c.hint ? ` (${c.hint})` : ""}`, onclick: () => sortBy(c.name) }, `${c.reading ? withUnits(c.title, c.reading.variable.units) : c.title}${arrow}`);
          return h("th", { scope: "col", class: c.reading ? "ts-number" : isText(c.name) ? "ts-text" : "", "aria-sort": on ? (now!.descending ? "descending" : "ascending") : "none" }, button);
        }));
      }
      const selected = indicesAt(cube, dim, focus.cursor);
      only &&= selected !== null;
      onlySelected.hidden = selected === null || ids.length <= SOUGHT;
      press(onlySelected, only);
      narrow();
      setText(stage.title, options.title || sentence(`${noun}s`));
      const heavy = options.pictures && !picture ? ["its images are too heavy for the page"] : [];
      const places = [...heavy, ...new Set(columns.flatMap((c) => c.notes ?? [])), ...intervals()];
      // another ranking is read from its top
      if (by?.reading && ranked && places.join() !== ranked) scroller.scrollTop = 0;
      ranked = by?.reading ? places.join() : "";
      const count = counted(ids.length, noun);
      const match = sought ? [`${order.length.toLocaleString("en")} match ‘${shortened(visibleToken(sought), 24)}’`] : [];
      empty.hidden = order.length > 0;
      setText(empty, sought ? `No ${noun} has ‘${visibleToken(sought)}’ in it` : `No ${noun}s`);
      setText(stage.subtitle, [count, ...match, ...(selected ? [`${selected.length.toLocaleString("en")} selected`] : []), ...places].join(" · "));
      table.setAttribute("aria-label", `${count}; up and down move, Shift adds, Escape clears`);
      rows();
      // also a pair that was chosen by its samples, but no group of rows that merely share a task
      const own = selected?.length === 1 ? ids[selected[0]] : focus.cursor[dim];
      const wanted = JSON.stringify(own ?? null);
      if (wanted !== asked) {
        asked = wanted;
        if (selected && own !== undefined && asList(own).length) reveal(topmost(selected));
      }
    },
  };
  /** The rank of the first of these rows. */
  const topmost = (rows: number[]): number | null => rows.reduce<number | null>((best, row) => {
    const rank = rankOf(row);
    return rank !== null && (best === null || rank < best) ? rank : best;
  }, null);
  return drawn;
};
sampleTable.basis = 420;
