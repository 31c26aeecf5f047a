// Elements. Text always goes in as text: a token may be "<script>".
type Child = Node | string | null | undefined;
type Attributes = Record<string, string | number | boolean | ((event: any) => void) | undefined>;

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((c): c is Node | string => c != null));
  return element;
}

/** JupyterLab looks for this on whatever has the keyboard, not only around it: without it "b" inserts a cell. */
export const KEEP_KEYS = { "data-lm-suppress-shortcuts": "true" };

export interface Choice {
  value: string;
  text: string;
}

/** A drop-down; it is only rebuilt when its choices change. */
export function picker(label: string, onChange: (value: string) => void): { element: HTMLSelectElement; show(choices: Choice[], value: string): void } {
  const element = h("select", { ...KEEP_KEYS, class: "ts-pick", "aria-label": label, title: label, onchange: () => onChange(element.value) });
  let shown = "";
  return {
    element,
    show(choices, value) {
      const key = JSON.stringify(choices);
      if (key !== shown) {
        element.replaceChildren(...choices.map((c) => h("option", { value: c.value }, c.text)));
        shown = key;
      }
      element.value = value;
      element.hidden = choices.length < 2;
    },
  };
}

const PATHS: Record<string, string> = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  previous: "M10.5 3 5.5 8l5 5",
  next: "M5.5 3l5 5-5 5",
  undo: "M6 3 2.5 6.5 6 10M3 6.5h6.5a3.5 3.5 0 0 1 0 7H7",
  redo: "M10 3l3.5 3.5L10 10M13 6.5H6.5a3.5 3.5 0 0 0 0 7H9",
  close: "M4 4l8 8M12 4l-8 8",
  stop: "M3.5 3.5h9v9h-9z",
  picture: "M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10",
};

export function iconButton(icon: string, label: string, onClick: () => void): HTMLButtonElement {
  const button = h("button", { ...KEEP_KEYS, class: "ts-button", type: "button", onclick: onClick });
  setIcon(button, icon, label);
  return button;
}

const FILLED = ["play", "pause", "stop"];

export function iconOf(icon: string): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", FILLED.includes(icon) ? "ts-fill" : "ts-stroke");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[icon]);
  svg.append(path);
  return svg;
}

export function setIcon(button: HTMLButtonElement, icon: string, label: string): void {
  if (button.dataset.icon === icon) return;
  button.dataset.icon = icon;
  button.replaceChildren(iconOf(icon));
  button.setAttribute("aria-label", label);
  button.title = label;
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make an element look like another, and keep the elements that it has: where values change many times a second, a click
 * must end on the element that it began on.
 */
export function become(here: Element, made: Element): void {
  for (const { name } of [...here.attributes]) if (!made.hasAttribute(name)) here.removeAttribute(name);
  for (const { name, value } of made.attributes) if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  fill(here, [...made.childNodes]);
}

/** Give an element these children, by making those that it has become them. */
export function fill(here: Element, made: Node[]): void {
  made.forEach((node, i) => {
    const old = here.childNodes[i];
    if (old instanceof Element && node instanceof Element && old.tagName === node.tagName) become(old, node);
    else if (old instanceof Text && node instanceof Text) old.data = node.data;
    else if (old) old.replaceWith(node);
    else here.append(node);
  });
  while (here.childNodes.length > made.length) here.lastChild!.remove();
}

/** A button with words on it; `pressed` makes it a switch. */
export function wordButton(text: string, label: string, onClick: () => void): HTMLButtonElement {
  return h("button", { ...KEEP_KEYS, class: "ts-button ts-word", type: "button", title: label, onclick: onClick }, text);
}

export function press(button: HTMLButtonElement, on: boolean): void {
  button.setAttribute("aria-pressed", String(on));
}

const SEEN: Record<string, string> = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u007f": "␡" };

/** Whitespace and what has no glyph made visible: " the" and "the" are two different tokens to the eye. */
export function visibleToken(token: string): string {
  if (token === "") return "∅";
  return token
    .replace(/[\u0000-\u0020\u007f]/g, (c) => SEEN[c] ?? String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u0080-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (c) => `⟨${c.charCodeAt(0).toString(16).padStart(4, "0")}⟩`);
}

export const shortened = (text: string, most: number): string => ([...text].length <= most ? text : `${[...text].slice(0, most - 1).join("")}…`);

/** A token beside an axis: short, and a special one by its beginning alone. */
export function labelToken(token: string): string {
  const special = /^<\|?(\w{2,}?)\|?>$/.exec(token)?.[1];
  return special ? `⟨${shortened(special, 5)}⟩` : shortened(visibleToken(token), 8);
}

/** A visible token in parts, so that its whitespace can be quieter than its text. */
export function tokenParts(visible: string): Node[] {
  return visible.split(/([·↵␍⇥]+)/).filter(Boolean).map((part) =>
    /^[·↵␍⇥]/.test(part) ? h("span", { class: "ts-space" }, part) : document.createTextNode(part));
}
