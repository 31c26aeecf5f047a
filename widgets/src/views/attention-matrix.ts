// One attention matrix: an image with token labels around it.
import { paint, sheet } from "../core/canvas";
import { type ColourScale, pixels } from "../core/colour";
import { h, labelToken, setText, tokenParts } from "../core/dom";
import type { Theme } from "../core/theme";
import type { Panel } from "./attention-data";

interface Look {
  panel: Panel;
  tokens: string[];
  scale: ColourScale;
  theme: Theme;
  width: number;
  labelled: boolean;
  /** The colour of this head's line in a Timeline. */
  colour: string;
  query: number;
  key: number | null;
  pinned: number | null;
  /** The key of a cell that is chosen. */
  pinnedKey: number | null;
  /** The pointer is on a query: show its row. */
  loud: boolean;
}

interface Hands {
  over(query: number | null, key: number): void;
  pick(query: number, key: number): void;
  keydown(event: KeyboardEvent): void;
}

export interface Matrix {
  element: HTMLElement;
  draw(look: Look): void;
}

const LEFT = 66;
const TOP = 62;

export function matrix(hands: Hands): Matrix {
  const canvas = sheet("attention", "application");
  const swatch = h("i");
  const words = h("span");
  const caption = h("div", { class: "ts-caption" }, swatch, words);
  const rows = h("div", { "aria-hidden": "true" });
  const columns = h("div", { "aria-hidden": "true" });
  const box = h("div", { class: "ts-matrix" }, canvas.element, rows, columns);
  const element = h("div", { class: "ts-plate" }, caption, box);
  let cell = 1;
  let n = 1;
  let built = "";

  const at = (e: PointerEvent | MouseEvent): [number, number] | null => {
    const [q, k] = [Math.floor(e.offsetY / cell), Math.floor(e.offsetX / cell)];
    return q >= 0 && q < n && k >= 0 && k < n ? [q, k] : null;
  };
  canvas.element.style.cursor = "crosshair";
  canvas.element.addEventListener("pointermove", (e) => {
    const found = at(e);
    if (found) hands.over(...found);
  });
  canvas.element.addEventListener("pointerleave", () => hands.over(null, 0));
  canvas.element.addEventListener("click", (e) => {
    const found = at(e);
    if (found) hands.pick(...found);
  });
  canvas.element.addEventListener("keydown", hands.keydown);

  const label = (tokens: string[], left: number, top: number, side: number) => {
    const key = JSON.stringify([tokens, left, top, side]);
    if (key === built) return;
    built = key;
    const every = Math.max(1, Math.ceil(12.5 / cell));
    const make = (i: number, vertical: boolean) => {
      const tag = h("span", { class: `ts-tick ${vertical ? "ts-up" : "ts-side"}` }, h("bdi", {}, ...tokenParts(labelToken(tokens[i]))));
      if (i % every) tag.classList.add("ts-thin");
      const middle = (i + 0.5) * cell;
      if (vertical) {
        tag.style.left = `${left + middle}px`;
        tag.style.bottom = `${side + 5}px`;
      } else {
        tag.style.top = `${top + middle}px`;
        tag.style.right = `calc(100% - ${left - 5}px)`;
      }
      return tag;
    };
    rows.replaceChildren(...tokens.map((_, i) => make(i, false)));
    columns.replaceChildren(...tokens.map((_, i) => make(i, true)));
  };

  const mark = (list: HTMLElement, on: number | null, pinned: number | null) => {
    [...list.children].forEach((tag, i) => {
      tag.classList.toggle("ts-on", i === on);
      tag.classList.toggle("ts-pinned", i === pinned);
    });
  };

  return {
    element,
    draw({ panel, tokens, scale, theme, width, labelled, colour, query, key, pinned, pinnedKey, loud }) {
      n = panel.n;
      const [left, top] = labelled ? [LEFT, TOP] : [0, 0];
      cell = Math.min(24, (width - left - 1) / n);
      const side = cell * n;
      setText(words, panel.words);
      swatch.style.background = colour;
      caption.hidden = labelled;
      box.style.width = `${left + side + 1}px`;
      box.style.height = `${top + side + 1}px`;
      canvas.element.style.left = `${left}px`;
      canvas.element.style.top = `${top}px`;
      canvas.element.setAttribute("aria-label", `attention of ${panel.words || "the model"}, ${n} by ${n} tokens; up and down move the query, left and right the key`);
      if (labelled) label(tokens, left, top, side + 1);
      else rows.replaceChildren(), columns.replaceChildren(), (built = "");
      mark(rows, loud ? query : null, pinned);
      mark(columns, loud ? key : null, pinnedKey);
      const c = canvas.begin(side + 1, side + 1);
      if (!c) return;
      const image = new Float64Array(n * n);
      for (let q = 0; q < n; q++) image.set(panel.values.subarray(q * panel.size, q * panel.size + n), q * n);
      paint(c, pixels(image, scale), n, { x: 0, y: 0, w: side, h: side });
      c.strokeStyle = theme.rule;
      c.lineWidth = 1;
      c.strokeRect(0.5, 0.5, side, side);
      // white inside, dark outside: to be seen on any colour of the map
      const frame = (x: number, y: number, w: number, h: number, strong: boolean) => {
        c.lineWidth = strong ? 3 : 2.5;
        c.strokeStyle = strong ? "#14171c" : "rgb(20 23 28 / 0.5)";
        c.strokeRect(x, y, w, h);
        c.lineWidth = strong ? 1.4 : 1;
        c.strokeStyle = strong ? "#ffffff" : "rgb(255 255 255 / 0.7)";
        c.strokeRect(x, y, w, h);
      };
      const band = (q: number, strong: boolean) => frame(0, q * cell, (panel.causal ? q + 1 : n) * cell, cell, strong);
      if (loud && key !== null) frame(key * cell, (panel.causal ? key : 0) * cell, cell, (n - (panel.causal ? key : 0)) * cell, false);
      if (pinned !== null && pinned < n) band(pinned, !loud || pinned === query);
      if (loud && query !== pinned) band(query, true);
      if (pinned !== null && pinnedKey !== null && pinned < n && pinnedKey < n) frame(pinnedKey * cell, pinned * cell, cell, cell, true);
    },
  };
}
