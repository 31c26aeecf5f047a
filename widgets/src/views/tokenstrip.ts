// TokenStrip: the tokens of one sample, coloured by a value each.
import { variableChoice, sampleChoice } from "../core/choose";
import { colourScale, css, inkOn } from "../core/colour";
import { labels } from "../core/cube";
import { h, KEEP_KEYS, setText, shortened, tokenParts, visibleToken } from "../core/dom";
import { stepped } from "../core/hands";
import { showLegend, sentence, statusMarks, withUnits } from "../core/legend";
import { describe, type Reading } from "../core/measure";
import { indicesAt } from "../core/rules";
import { extent } from "../core/slice";
import { tokensOf } from "../core/tokens";
import type { Cursor } from "../core/types";
import type { Kind, Stage } from "../core/stage";
import { rangeOf } from "./grid";

/** More tokens or letters than this are not drawn. */
const TOKENS = 4000;
const LETTERS = 120;

export const tokenStrip: Kind = (stage: Stage) => {
  const { cube, focus, options } = stage;
  const variables = variableChoice(stage);
  const samples = sampleChoice(stage);
  const hasSample = "sample" in cube.dims;
  const strip = h("div", { ...KEEP_KEYS, class: "ts-strip ts-coloured", tabindex: 0, role: "application" });
  const key = h("div");
  stage.body.append(strip, key);
  const positions = labels(cube, "position");
  let reading: Reading;
  let tokens: string[] = [];
  let built = "";
  const place = (i: number): Cursor => ({ position: positions[i], ...(hasSample ? { sample: labels(cube, "sample")[samples.seen()] } : {}) });
  const words = (i: number) => [`${shortened(visibleToken(tokens[i] ?? ""), 40)} · position ${positions[i]}`, ...describe(reading, i)];
  const index = (e: Event): number | null => {
    const token = (e.target as HTMLElement).closest<HTMLElement>("[data-i]");
    return token ? Number(token.dataset.i) : null;
  };
  const pick = (i: number) => {
    focus.set(place(i));
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
    const from = indicesAt(cube, "position", focus.cursor)?.[0] ?? null;
    const to = e.key === "Enter" ? (from ?? 0) : stepped(from, e.key, tokens.length);
    if (e.key === "Escape") focus.set({ position: null });
    else if (to === undefined) return;
    else if (to !== null) pick(to);
    e.preventDefault();
    e.stopPropagation();
  });

  return {
    draw() {
      const variable = stage.variable();
      const sample = samples.seen();
      const at = { ...stage.cursor(), ...(hasSample ? { sample: labels(cube, "sample")[sample] } : {}) };
      const every = stage.measure(variable, variable.dims.filter((d) => d === "sample" || d === "position"));
      reading = every.axes.includes("sample") ? rowOf(every, sample) : every;
      // padding at the end of a shorter sample
      let n = positions.length;
      while (n > 1 && Number.isNaN(reading.values[n - 1]) && !tokensOf(cube, sample, n)[n - 1]) n--;
      tokens = tokensOf(cube, hasSample ? sample : -1, Math.min(n, TOKENS));
      const here = hasSample ? `sample ${at.sample}` : "";
      setText(stage.title, options.title || sentence(`${variable.longName} by token`));
      const notes = every.notes.filter((note) => !note.includes("samples"));
      setText(stage.subtitle, [here, ...notes, ...(samples.preview() ? ["preview: click to keep it"] : []), ...(n > TOKENS ? [`the first ${TOKENS} of ${n} tokens`] : []), ...(reading.values.every(Number.isNaN) ? ["no values here"] : [])].filter(Boolean).join(" · "));
      variables.show();
      samples.show();
      strip.setAttribute("aria-label", `${tokens.length} tokens coloured by ${variable.longName}; left and right move, Escape clears`);
      const range = every.difference ? extent(every.values) : rangeOf(cube, variable, every.axes, at, options.reduce);
      const scale = colourScale(range, stage.theme.dark, reading.signed, true);
      const signature = JSON.stringify(tokens);
      if (signature !== built) {
        built = signature;
        strip.replaceChildren(...tokens.flatMap((t, i) => {
          const long = [...t].length > LETTERS ? `${shortened(visibleToken(t), LETTERS)} (${[...t].length.toLocaleString("en")} characters)` : visibleToken(t);
          const tag = h("bdi", { class: "ts-token", "data-i": i }, ...tokenParts(long));
          return t.includes("\n") ? [tag, h("br")] : [tag];
        }));
      }
      const chosen = indicesAt(cube, "position", focus.cursor) ?? [];
      const over = indicesAt(cube, "position", focus.hover) ?? [];
      strip.querySelectorAll<HTMLElement>(".ts-token").forEach((tag, i) => {
        const rgb = scale.rgb(reading.values[i]);
        tag.style.background = rgb ? css(rgb) : "";
        tag.style.color = rgb ? inkOn(rgb) : "";
        tag.classList.toggle("ts-void", !rgb);
        tag.classList.toggle("ts-doubtful", Boolean(rgb) && reading.status(i) !== "plain");
        tag.classList.toggle("ts-query", chosen.includes(i));
        tag.classList.toggle("ts-pinned", over.includes(i));
      });
      showLegend(key, scale, withUnits(variable.longName, variable.units), statusMarks(reading, { none: "dashed", undecided: "underline", insignificant: "underline", unconverged: "underline" }), 2, Math.min(190, stage.width() - 20));
    },
  };
};
tokenStrip.basis = 380;
tokenStrip.most = 900;

/** The part of a [sample, position] reading that is about one sample. */
function rowOf(every: Reading, sample: number): Reading {
  const n = every.shape[every.axes.indexOf("position")];
  const last = every.axes.at(-1) === "position";
  const cut = (a?: Float64Array) => a && (last ? a.subarray(sample * n, (sample + 1) * n) : Float64Array.from({ length: n }, (_, i) => a[i * every.shape[1] + sample]));
  const flat = (i: number) => (last ? sample * n + i : i * every.shape[1] + sample);
  return {
    ...every, axes: ["position"], shape: [n], values: cut(every.values)!, low: cut(every.low), high: cut(every.high), reference: cut(every.reference),
    residual: cut(every.residual), p: cut(every.p), q: cut(every.q), status: (i) => every.status(flat(i)),
  };
}
