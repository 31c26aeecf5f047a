// The sentence itself: each token shaded by how much the chosen query looks at it.
import { h, shortened, tokenParts, visibleToken } from "../core/dom";

interface Hands {
  over(query: number | null): void;
  pick(query: number): void;
}

interface Look {
  tokens: string[];
  row: ArrayLike<number>;
  query: number;
  key: number | null;
  pinned: number | null;
}

export function strip(hands: Hands): { element: HTMLElement; draw(look: Look): void } {
  const element = h("div", { class: "ts-strip" });
  let built = "";
  const index = (e: Event): number | null => {
    const token = (e.target as HTMLElement).closest<HTMLElement>("[data-i]");
    return token ? Number(token.dataset.i) : null;
  };
  element.addEventListener("pointerover", (e) => {
    const i = index(e);
    if (i !== null) hands.over(i);
  });
  element.addEventListener("pointerleave", () => hands.over(null));
  element.addEventListener("click", (e) => {
    const i = index(e);
    if (i !== null) hands.pick(i);
  });
  return {
    element,
    draw({ tokens, row, query, key, pinned }) {
      const signature = JSON.stringify(tokens);
      if (signature !== built) {
        built = signature;
        element.replaceChildren(...tokens.flatMap((t, i) => {
          const tag = h("bdi", { class: "ts-token", "data-i": i }, ...tokenParts(shortened(visibleToken(t), 120)));
          return t.includes("\n") ? [tag, h("br")] : [tag];
        }));
      }
      let most = 0;
      for (let k = 0; k < row.length; k++) if (row[k] > most) most = row[k];
      element.querySelectorAll<HTMLElement>(".ts-token").forEach((tag, i) => {
        const share = most > 0 && row[i] > 0 ? row[i] / most : 0;
        tag.style.setProperty("--ts-share", `${Math.round(share * 72)}%`);
        tag.classList.toggle("ts-query", i === query);
        tag.classList.toggle("ts-target", i === key && key !== query);
        tag.classList.toggle("ts-pinned", i === pinned);
        tag.classList.toggle("ts-after", i > query && !(row[i] > 0));
      });
    },
  };
}
