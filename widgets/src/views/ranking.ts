// Ranking: the entries of a variable that stand out, in order, each with its coordinates, sign and interval.
import { variableChoice } from "../core/choose";
import { labels, type Variable } from "../core/cube";
import { fill, h, KEEP_KEYS, picker, setText, shortened, visibleToken } from "../core/dom";
import { showMarks, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { chosen } from "../core/places";
import { indicesAt } from "../core/rules";
import { tokensOf } from "../core/tokens";
import { numberText } from "../core/scale";
import { about, along, choice } from "../core/select";
import { extent, pooled } from "../core/slice";
import type { Kind, Stage } from "../core/stage";
import { handMoved, stepped } from "../core/hands";
import { type Order, ranked, unravelled } from "./ranked";

const ORDERS = [
  { value: "size", text: "largest in size" },
  { value: "largest", text: "largest" },
  { value: "smallest", text: "smallest" },
];
const TIME = ["checkpoint", "step"];

export const ranking: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const variables = variableChoice(stage);
  const order = picker("order", (value) => stage.change("order", value));
  stage.tools.append(order.element);
  const table = h("table", { ...KEEP_KEYS, class: "ts-table ts-ranking", tabindex: 0, role: "grid" });
  const key = h("div");
  const hint = h("div", { class: "ts-empty", hidden: true });
  stage.body.append(hint, h("div", { class: "ts-scroll" }, table), key);
  let rows: { at: number[]; flat: number }[] = [];
  let axes: string[] = [];
  let reading: Reading;
  let current = -1;

  /** What is ranked: the dimensions that the options name, else all that are neither time nor pooled, else all but time. */
  const entries = (variable: Variable): string[] => {
    const own = variable.dims.filter((d) => !TIME.includes(d));
    if (options.over) return variable.dims.filter((d) => options.over.includes(d));
    const plain = own.filter((d) => !pooled(d));
    return plain.length ? plain : own;
  };
  /** Of one query and one key there is a number; the mean over all of them answers nothing, and `position` alone says one of the two. */
  const unchosen = (variable: Variable): string[] => {
    const sliced = variable.dims.filter((d) => !axes.includes(d) && cube.dims[d] > 1);
    if (!["query", "key"].every((d) => sliced.includes(d))) return [];
    return ["sample", "query", "key"].filter((d) => sliced.includes(d) && (!(d in stage.cursor()) || indicesAt(cube, d, stage.cursor())?.length !== 1));
  };
  /** A query and a key with their tokens. */
  const withToken = (note: string): string => {
    const dim = ["query", "key"].find((d) => note.startsWith(`${d} `));
    const at = dim && indicesAt(cube, dim, stage.cursor());
    if (!at || !cube.variables.token) return note;
    const row = cube.dims.sample ? (indicesAt(cube, "sample", stage.cursor())?.[0] ?? 0) : -1;
    return `${note} ‘${shortened(visibleToken(tokensOf(cube, row, at[0] + 1)[at[0]]), 24)}’`;
  };
  const placeOf = (row: number) => Object.fromEntries(axes.map((d, i) => [d, labels(cube, d)[rows[row].at[i]]]));
  const words = (row: number) => [sentence(axes.map((d, i) => `${d.replaceAll("_", " ")} ${labels(cube, d)[rows[row].at[i]]}`).join(" · ")), ...describe(reading, rows[row].flat)];
  const pick = (row: number, add: boolean) => {
    current = row;
    const { patch, bound, places } = choice(cube, axes, rows[row].at, focus, add);
    focus.set(patch, bound, places);
    stage.say(`Rank ${row + 1}: ${words(row).join(", ")}`);
    table.rows[row + 1]?.scrollIntoView({ block: "nearest" });
  };
  const rowOf = (e: Event): number => Number((e.target as HTMLElement).closest<HTMLElement>("[data-row]")?.dataset.row ?? -1);

  const moved = handMoved(table);
  table.addEventListener("pointerover", (e) => {
    if (!moved(e)) return;
    const row = rowOf(e);
    focus.point(row >= 0 ? about(cube, placeOf(row)) : {});
    const at = (e.target as HTMLElement).closest("tr")?.getBoundingClientRect();
    const box = table.getBoundingClientRect();
    stage.tip(row >= 0 ? () => (rows[row] ? words(row) : []) : null, at && { element: table, x: e.clientX - box.left, y: at.bottom - box.top - 6 });
  });
  table.addEventListener("pointerleave", () => {
    focus.point({});
    stage.tip(null);
  });
  table.addEventListener("click", (e) => {
    const row = rowOf(e);
    if (row >= 0) pick(row, e.shiftKey || e.ctrlKey || e.metaKey);
  });
  table.addEventListener("keydown", (e) => {
    const selected = rows.findIndex((_, i) => isSelected(i));
    const from = current >= 0 && current < rows.length ? current : selected >= 0 ? selected : null;
    const to = e.key === "Enter" || e.key === " " ? (from ?? 0) : stepped(from, e.key, rows.length, "ArrowUp", "ArrowDown");
    if (e.key === "Escape") {
      current = -1;
      focus.set(along(cube, Object.fromEntries(axes.map((d) => [d, null]))).patch);
      stage.say("Nothing selected here");
    } else if (to === undefined) return;
    else if (to !== null && to < rows.length) pick(to, e.shiftKey);
    e.preventDefault();
    e.stopPropagation();
  });
  const isSelected = (row: number): boolean => {
    return chosen(cube, axes, focus.cursor, focus.places)?.(rows[row].at) ?? false;
  };
  const isHovered = (row: number): boolean => {
    return chosen(cube, axes, focus.hover)?.(rows[row].at) ?? false;
  };

  let built: unknown[] = [];
  return {
    draw() {
      const variable = stage.variable();
      axes = entries(variable);
      const open = unchosen(variable);
      hint.hidden = !open.length;
      table.hidden = key.hidden = open.length > 0;
      reading = stage.measure(variable, axes);
      const how = stage.setting<Order>("order", options.order ?? "size");
      const most: number = options.n ?? 20;
      order.show(ORDERS, how);
      variables.show();
      setText(stage.title, options.title || sentence(variable.longName));
      if (open.length) {
        rows = [];
        built = [];
        setText(hint, "Click a cell of the attention pattern: what its score is made of stands here.");
        setText(stage.subtitle, `not chosen: ${open.join(", ")}`);
        return;
      }
      const total = reading.values.length;
      const signature = [variable, reading.values, reading.low, how, axes.join()];
      if (signature.some((v, i) => v !== built[i])) {
        built = signature;
        rows = ranked(reading.values, how, most).map((flat) => ({ flat, at: unravelled(flat, reading.shape) }));
        rebuild(variable);
      }
      const orderly = ORDERS.find((o) => o.value === how)!.text;
      const there = rows.length === total ? "" : " that have a value";
      const shown = rows.length === most && most < total ? `the ${most} ${orderly} of ${total.toLocaleString("en")}` : `all ${rows.length}${there}, ${orderly} first`;
      setText(stage.subtitle, [...reading.notes.map(withToken), rows.length ? shown : "no values here"].join(" · "));
      for (let i = 0; i < rows.length; i++) {
        const tr = table.rows[i + 1];
        tr.classList.toggle("ts-chosen", isSelected(i));
        tr.setAttribute("aria-selected", String(isSelected(i)));
        tr.classList.toggle("ts-over", isHovered(i));
      }
    },
  };

  function rebuild(variable: Variable): void {
    const { values, low, high } = reading;
    const reach = extent(rows.flatMap(({ flat }) => [values[flat], low?.[flat] ?? NaN, high?.[flat] ?? NaN, 0]));
    const span = reach[1] - reach[0] || 1;
    const percent = (v: number) => (100 * (Math.max(reach[0], Math.min(reach[1], v)) - reach[0])) / span;
    const asides = (options.asides ?? []).map((name: string) => cube.variables[name]).filter((v: Variable | undefined) => v && v.dims.join() === axes.join()) as Variable[];
    const units = withUnits(reading.difference ? `difference in ${variable.longName}` : variable.longName, variable.units);
    const head = h("tr", {}, h("th", { scope: "col" }, "#"), ...axes.map((d) => h("th", { scope: "col" }, d.replaceAll("_", " "))), ...asides.map((v) => h("th", { scope: "col" }, v.longName)), h("th", { scope: "col", class: "ts-number" }, "value"), h("th", { scope: "col", class: "ts-wide" }, units));
    const body = rows.map(({ at, flat }, row) => {
      const v = values[flat];
      const status = reading.status(flat);
      const mark = h("i", { class: `ts-bar ts-${status}${v < 0 ? " ts-negative" : ""}` });
      mark.style.left = `${percent(Math.min(0, v))}%`;
      mark.style.width = `${Math.max(0.5, percent(Math.max(0, v)) - percent(Math.min(0, v)))}%`;
      const zero = h("i", { class: "ts-zero" });
      zero.style.left = `${percent(0)}%`;
      const track = h("div", { class: "ts-track" }, mark, zero);
      if (low && high && Number.isFinite(low[flat]) && Number.isFinite(high[flat])) {
        const whisker = h("i", { class: "ts-interval" });
        whisker.style.left = `${percent(low[flat])}%`;
        whisker.style.width = `${percent(high[flat]) - percent(low[flat])}%`;
        track.append(whisker);
      }
      const texts = asides.map((aside) => visibleText(String(aside.values[flat])));
      return h("tr", { "data-row": row, "aria-selected": "false" }, h("td", { class: "ts-quiet" }, String(row + 1)),
        ...axes.map((d, i) => h("td", { title: String(labels(cube, d)[at[i]]) }, h("bdi", {}, visibleText(String(labels(cube, d)[at[i]]))))),
        ...texts.map((t) => h("td", { title: t }, h("bdi", {}, t))), h("td", { class: "ts-number" }, numberText(v)), h("td", { class: "ts-wide" }, track));
    });
    fill(table, [h("thead", {}, head), h("tbody", {}, ...body)]);
    table.setAttribute("aria-label", `${variable.longName}, ranked; up and down move, Shift adds, Escape clears`);
    const marks = statusMarks(reading).filter((m) => m.look !== "void");
    showMarks(key, low && high ? [{ look: "whisker", text: "interval" }, ...marks] : marks, 0);
  }
};
ranking.basis = 380;
ranking.most = 760;

/** Names as they are, control characters made visible. */
const visibleText = (text: string): string => (/[\u0000-\u001f]/.test(text) ? visibleToken(text) : text);
