// SampleTable: one row per sample. Only the rows in sight are in the page, so a hundred thousand scroll.
import { colourScale, css } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { become, fill, h, KEEP_KEYS, setText, shortened, visibleToken } from "../core/dom";
import { handMoved, stepped } from "../core/hands";
import { sentence, withUnits } from "../core/legend";
import { toggled } from "../core/places";
import { asList, indicesAt } from "../core/rules";
import { numberText } from "../core/scale";
import { about, along } from "../core/select";
import { extent } from "../core/slice";
import type { Reading } from "../core/measure";
import type { Kind, Stage } from "../core/stage";
import type { Patch } from "../core/types";
import { sorted, type Sorting, windowOf } from "./rows";

const LINE = 25;
const HEIGHT = 300;

interface Column {
  name: string;
  title: string;
  hint: string;
  reading?: Reading;
  text?: (row: number) => string;
  domain: [number, number];
}

export const sampleTable: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const dim: string = options.by ?? "sample";
  const ids = labels(cube, dim);
  const names: string[] = options.columns;
  const head = h("tr");
  const above = h("tr", { "aria-hidden": "true", class: "ts-space-row" });
  const below = h("tr", { "aria-hidden": "true", class: "ts-space-row" });
  const body = h("tbody", {}, above, below);
  const table = h("table", { ...KEEP_KEYS, class: "ts-table", role: "grid", tabindex: 0, "aria-rowcount": ids.length + 1 }, h("thead", {}, head), body);
  const scroller = h("div", { class: "ts-scroll ts-rows" }, table);
  scroller.style.maxHeight = `${HEIGHT}px`;
  stage.body.append(scroller);
  let columns: Column[] = [];
  let order: number[] = [...ids.keys()];
  let where: Map<number, number> | null = null;
  let current: number | null = null;
  let sortedBy: unknown[] = [];
  let shown = "";

  const sorting = () => stage.setting<Sorting | null>("sort", null);
  const sortBy = (column: string) => {
    const now = sorting();
    const next: Sorting | null = now?.column !== column ? { column, descending: true } : now.descending ? { column, descending: false } : null;
    stage.change("sort", next);
    stage.say(next ? `Sorted by ${column}, ${next.descending ? "largest" : "smallest"} first` : "In their own order");
  };
  const rankOf = (row: number): number => (where ??= new Map(order.map((r, i) => [r, i]))).get(row)!;
  const words = (row: number) => `${dim} ${ids[row]}, ${columns.slice(1).map((c) => `${c.title} ${c.text ? c.text(row) : textOf(c, c.reading!.values[row])}`).join(", ")}`;
  /** A row by itself, or a pair with its samples. */
  const choose = (chosen: Patch) => {
    const { patch, bound } = along(cube, chosen);
    focus.set(patch, bound);
  };
  const pick = (row: number, add: boolean) => {
    current = row;
    choose(add ? toggled(focus.cursor, [], { [dim]: ids[row] }).patch : { [dim]: ids[row] });
    reveal(rankOf(row));
    stage.say(`Row ${rankOf(row) + 1} of ${ids.length}: ${words(row)}`);
  };
  const reveal = (rank: number) => {
    const top = rank * LINE;
    const height = scroller.clientHeight - LINE - 4;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + LINE > scroller.scrollTop + height) scroller.scrollTop = top + LINE - height;
  };
  const rowOf = (e: Event): number => Number((e.target as HTMLElement).closest<HTMLElement>("[data-row]")?.dataset.row ?? -1);

  scroller.addEventListener("scroll", () => requestAnimationFrame(rows));
  body.addEventListener("click", (e) => {
    const row = rowOf(e);
    if (row < 0) return;
    const from = current;
    if (e.shiftKey && from !== null) {
      const [a, b] = [rankOf(from), rankOf(row)].sort((x, y) => x - y);
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
    const to = e.key === "Enter" || e.key === " " ? (row === null ? 0 : rankOf(row)) : stepped(row === null ? null : rankOf(row), e.key, ids.length, "ArrowUp", "ArrowDown");
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
    const first: Column = { name: dim, title: dim, hint: "", text: (row) => plain(String(ids[row])), domain: [0, 1] };
    return [first, ...names.map((name): Column => {
      const variable: Variable = cube.variables[name];
      if (Array.isArray(variable.values)) return { name, title: variable.longName, hint: "", text: (row) => plain((variable.values as string[])[row]), domain: [0, 1] };
      const reading = stage.measure(variable, [dim]);
      const [low, high] = extent(reading.values);
      return { name, title: variable.longName, hint: [...reading.notes, variable.units].filter(Boolean).join(" · "), reading, domain: [Math.min(0, low), Math.max(0, high)] };
    })];
  };

  /** Counts have no decimals. */
  const textOf = ({ reading }: Column, v: number): string => (reading!.variable.values instanceof Int32Array && Number.isInteger(v) ? v.toLocaleString("en") : numberText(v));
  const cellOf = (column: Column, row: number): HTMLElement => {
    if (column.text) {
      const text = column.text(row);
      return h("td", { title: text, class: column.name === "text" ? "ts-text" : "" }, h("bdi", {}, text));
    }
    const { reading, domain } = column;
    const v = reading!.values[row];
    const status = reading!.status(row);
    const cell = h("td", { class: `ts-number ts-${status}` }, Number.isNaN(v) ? "–" : textOf(column, v));
    const span = domain[1] - domain[0];
    if (!Number.isFinite(v) || !span) return cell;
    const [a, b] = [Math.min(0, v), Math.max(0, v)].map((e) => (100 * (e - domain[0])) / span);
    const rgb = colourScale([-1, 1], stage.theme.dark).rgb(v < 0 ? -0.7 : 0.7)!;
    cell.style.background = `linear-gradient(90deg, transparent ${a}%, ${css(rgb, 0.34)} ${a}% ${b}%, transparent ${b}%)`;
    return cell;
  };

  const rows = () => {
    const [from, to] = windowOf(order.length, LINE, scroller.scrollTop, HEIGHT);
    const chosen = new Set(indicesAt(cube, dim, focus.cursor) ?? []);
    const over = new Set(indicesAt(cube, dim, focus.hover) ?? []);
    const key = JSON.stringify([from, to, order[from], order[to - 1], stage.theme.dark, sortedBy.length]);
    if (key !== shown) {
      shown = key;
      above.style.height = `${from * LINE}px`;
      below.style.height = `${(order.length - to) * LINE}px`;
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
  return {
    draw() {
      columns = readColumns();
      const now = sorting();
      const by = columns.find((c) => c.name === now?.column);
      const signature = [now?.column, now?.descending, by?.reading?.values, ...columns.map((c) => c.reading?.values)];
      if (signature.length !== sortedBy.length || signature.some((v, i) => v !== sortedBy[i])) {
        sortedBy = signature;
        order = now && by ? sorted(ids.length, by.text ?? ((row) => by.reading!.values[row]), now.descending) : [...ids.keys()];
        where = null;
        shown = "";
        fill(head, columns.map((c) => {
          const on = now?.column === c.name;
          const arrow = on ? (now!.descending ? " ↓" : " ↑") : "";
          const button = h("button", { ...KEEP_KEYS, type: "button", class: "ts-sort", title: `sort by ${c.title}${c.hint ? ` (${c.hint})` : ""}`, onclick: () => sortBy(c.name) }, `${c.reading ? withUnits(c.title, c.reading.variable.units) : c.title}${arrow}`);
          return h("th", { scope: "col", class: c.reading ? "ts-number" : c.name === "text" ? "ts-text" : "", "aria-sort": on ? (now!.descending ? "descending" : "ascending") : "none" }, button);
        }));
      }
      const selected = indicesAt(cube, dim, focus.cursor);
      setText(stage.title, options.title || sentence(`${dim}s`));
      const places = [...new Set(columns.flatMap((c) => c.reading?.notes ?? []))];
      const count = `${ids.length.toLocaleString("en")} ${dim}s`;
      setText(stage.subtitle, [count, ...(selected ? [`${selected.length} selected`] : []), ...places].join(" · "));
      table.setAttribute("aria-label", `${count}; up and down move, Shift adds, Escape clears`);
      rows();
      // also a pair that was chosen by its samples, but no group of rows that merely share a task
      const own = selected?.length === 1 ? ids[selected[0]] : focus.cursor[dim];
      const wanted = JSON.stringify(own ?? null);
      if (wanted !== asked) {
        asked = wanted;
        if (selected && own !== undefined && asList(own).length) reveal(rankOf(selected[0]));
      }
    },
  };
};
sampleTable.basis = 420;
