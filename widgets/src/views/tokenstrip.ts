// TokenStrip: the tokens of one sample, or of one text of a pair of samples, coloured by a value each.
import { variableChoice, sampleChoice } from "../core/choose";
import { colourScale, css, inkOn } from "../core/colour";
import { labels, type Variable } from "../core/cube";
import { h, KEEP_KEYS, setText, shortened, tokenParts, visibleToken } from "../core/dom";
import { stepped } from "../core/hands";
import { showLegend, sentence, statusMarks, withUnits } from "../core/legend";
import { finest } from "../core/finest";
import { describe, type Reading } from "../core/measure";
import { asList } from "../core/rules";
import { along, about } from "../core/select";
import { extent } from "../core/slice";
import { tokensOf } from "../core/tokens";
import type { Cursor, Patch } from "../core/types";
import type { Kind, Stage } from "../core/stage";
import { rangeHere, rangeOf } from "./grid";
import { missingWords, placesAlong, type RowOptions, rowWords, textOf } from "./pair-words";

/** More tokens or letters than this are not drawn. */
const TOKENS = 4000;
const LETTERS = 120;

export const tokenStrip: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const variables = variableChoice(stage);
  const as: RowOptions = { ...(options as RowOptions), rows: options.rows ?? "sample" };
  const dim: string = options.along ?? "position";
  const samples = sampleChoice(stage, as.rows);
  const hasRows = as.rows in cube.dims;
  const ids = hasRows ? labels(cube, as.rows) : [];
  const strip = h("div", { ...KEEP_KEYS, class: "ts-strip ts-coloured", tabindex: 0, role: "application" });
  const nothing = h("div", { class: "ts-sub ts-nothing", hidden: true });
  const key = h("div");
  stage.body.append(nothing, strip, key);
  const positions = labels(cube, dim);
  let reading: Reading;
  let tokens: string[] = [];
  let built = "";
  const row = (): Cursor => (hasRows ? { [as.rows]: ids[samples.seen()] } : {});
  const place = (i: number): Cursor => ({ ...about(cube, row()), [dim]: positions[i] });
  const words = (i: number) => [`${shortened(visibleToken(tokens[i] ?? ""), 40)} · position ${positions[i]}`, ...describe(reading, i)];
  const index = (e: Event): number | null => {
    const token = (e.target as HTMLElement).closest<HTMLElement>("[data-i]");
    return token ? Number(token.dataset.i) : null;
  };
  /** What the tokens of this text are in the vocabulary, where the Cube has it. */
  const idAt = (i: number): number | null => {
    const ids = cube.variables[options.ids];
    if (!ids) return null;
    const id = Number(ids.values[ids.dims.map((d) => (d === dim ? i : Math.max(0, samples.seen()))).reduce((flat, k, d) => flat * ids.shape[d] + k, 0)]);
    return id >= 0 ? id : null;
  };
  const pick = (i: number) => {
    // of the place itself nothing more is told: a position is one within its own text
    const { patch, bound } = along(cube, row());
    const id: Patch = options.ids ? { token_id: idAt(i) } : {};
    focus.set({ ...patch, [dim]: positions[i], ...id }, { ...bound, ...(options.ids ? { token_id: [dim, as.rows] } : {}) });
    stage.say(`Selected ${words(i).join(", ")}`);
    strip.querySelector(`[data-i="${i}"]`)?.scrollIntoView({ block: "nearest" });
  };
  strip.addEventListener("pointerover", (e) => {
    const i = index(e);
    focus.point(i === null ? {} : place(i));
    const box = strip.getBoundingClientRect();
    const at = i === null ? null : (e.target as HTMLElement).getBoundingClientRect();
    stage.tip(i === null ? null : () => words(i), at ? { element: strip, x: at.left - box.left, y: at.bottom - box.top } : undefined);
  });
  strip.addEventListener("pointerleave", () => {
    focus.point({});
    stage.tip(null);
  });
  strip.addEventListener("click", (e) => {
    const i = index(e);
    if (i !== null) pick(i);
  });
  strip.addEventListener("keydown", (e) => {
    const from = placesAlong(cube, dim, focus.cursor)[0] ?? null;
    const to = e.key === "Enter" ? (from ?? 0) : stepped(from, e.key, tokens.length);
    if (e.key === "Escape") focus.set({ [dim]: null, ...(options.ids ? { token_id: null } : {}) });
    else if (to === undefined) return;
    else if (to !== null) pick(to);
    e.preventDefault();
    e.stopPropagation();
  });

  return {
    draw() {
      const { variable, notes: told } = finest(cube, stage.variable(), options.instead?.[stage.variable().name], [as.rows, dim], stage.cursor());
      const seen = samples.seen();
      const missing = hasRows && !samples.preview() ? missingWords(cube, as, stage.cursor()) : "";
      const by = sentence(`${variable.longName} by token`);
      for (const element of [strip, key]) element.hidden = Boolean(missing);
      nothing.hidden = !missing;
      setText(nothing, missing);
      variables.show();
      samples.show(Boolean(missing));
      if (missing) {
        tokens = [];
        strip.replaceChildren();
        built = "";
        setText(stage.title, options.title || by);
        setText(stage.subtitle, as.side ? `text ${as.side} of a ${as.rows}` : "");
        return;
      }
      const at = { ...stage.cursor(), ...row() };
      const read = (shown: Variable) => {
        const every = stage.measure(shown, shown.dims.filter((d) => d === as.rows || d === dim || d === options.alike?.along));
        return { every, here: every.axes.includes(as.rows) ? rowOf(every, as.rows, seen) : every };
      };
      const { every, here } = read(variable);
      reading = here;
      // padding at the end of a shorter text
      let n = positions.length;
      const texts = tokensOf(cube, seen, n, options.tokens, dim);
      while (n > 1 && Number.isNaN(reading.values[n - 1]) && !texts[n - 1]) n--;
      tokens = texts.slice(0, Math.min(n, TOKENS));
      const of = textOf(cube, as, seen);
      setText(stage.title, options.title || (of ? `${of}: ${variable.longName}` : by));
      const notes = [...every.notes.filter((note) => as.rows !== "sample" || !note.includes("samples")), ...told];
      setText(stage.subtitle, [hasRows ? rowWords(cube, as, seen, stage.cursor()) : "", ...notes, ...(samples.preview() ? ["preview: click to keep it"] : []), ...(n > TOKENS ? [`the first ${TOKENS} of ${n} tokens`] : []), ...(reading.values.every(Number.isNaN) ? ["no values here"] : [])].filter(Boolean).join(" · "));
      strip.setAttribute("aria-label", `${tokens.length} tokens${of ? ` of ${of}` : ""} coloured by ${variable.longName}; left and right move, Escape clears`);
      // the two texts of a pair share a scale, which is that of this pair: pairs differ by orders of magnitude
      const other = options.alike && cube.variables[options.alike.variable] ? read(cube.variables[options.alike.variable]).here : null;
      const range = other ? extent([...reading.values, ...other.values]) : every.difference ? extent(every.values) : as.rows === "test_sample" ? rangeHere(cube, variable, [dim], whoever(at), options.reduce) : rangeOf(cube, variable, every.axes, at, options.reduce);
      const scale = colourScale(range, stage.theme.dark, reading.signed || Boolean(other?.signed), true);
      const signature = JSON.stringify(tokens);
      if (signature !== built) {
        built = signature;
        strip.replaceChildren(...tokens.flatMap((t, i) => {
          const long = [...t].length > LETTERS ? `${shortened(visibleToken(t), LETTERS)} (${[...t].length.toLocaleString("en")} characters)` : visibleToken(t);
          const tag = h("bdi", { class: "ts-token", "data-i": i }, ...tokenParts(long));
          return t.includes("\n") ? [tag, h("br")] : [tag];
        }));
      }
      const chosen = placesAlong(cube, dim, focus.cursor);
      const over = placesAlong(cube, dim, focus.hover);
      const wanted = new Set("token_id" in focus.cursor ? asList(focus.cursor.token_id) : []);
      strip.querySelectorAll<HTMLElement>(".ts-token").forEach((tag, i) => {
        const rgb = scale.rgb(reading.values[i]);
        tag.style.background = rgb ? css(rgb) : "";
        tag.style.color = rgb ? inkOn(rgb) : "";
        tag.classList.toggle("ts-void", !rgb);
        tag.classList.toggle("ts-doubtful", Boolean(rgb) && reading.status(i) !== "plain");
        tag.classList.toggle("ts-query", chosen.includes(i));
        tag.classList.toggle("ts-pinned", over.includes(i));
        tag.classList.toggle("ts-same", wanted.size > 0 && wanted.has(idAt(i) ?? -1));
      });
      showLegend(key, scale, `${withUnits(variable.longName, variable.units)}${other ? ` · both texts of this ${as.rows}` : ""}`, statusMarks({ ...reading, values: reading.values.subarray(0, tokens.length) }, { none: "dashed", undecided: "underline", insignificant: "underline", unconverged: "underline" }), 2, Math.min(190, stage.width() - 20));
    },
  };
};
tokenStrip.basis = 380;
tokenStrip.most = 900;

/** A place with no training sample selected: what one of them does is seen beside what the others do. */
const whoever = ({ sample: _, ...rest }: Cursor): Cursor => rest;

/** The part of a [sample, position] reading that is about one sample. */
function rowOf(every: Reading, rows: string, sample: number): Reading {
  const last = every.axes[0] === rows;
  const n = every.shape[last ? 1 : 0];
  const cut = (a?: Float64Array) => a && (last ? a.subarray(sample * n, (sample + 1) * n) : Float64Array.from({ length: n }, (_, i) => a[i * every.shape[1] + sample]));
  const flat = (i: number) => (last ? sample * n + i : i * every.shape[1] + sample);
  return {
    ...every, axes: every.axes.filter((a) => a !== rows), shape: [n], values: cut(every.values)!, low: cut(every.low), high: cut(every.high), reference: cut(every.reference),
    residual: cut(every.residual), p: cut(every.p), q: cut(every.q), status: (i) => every.status(flat(i)),
  };
}
