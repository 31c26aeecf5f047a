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
};

export function iconButton(icon: string, label: string, onClick: () => void): HTMLButtonElement {
  const button = h("button", { ...KEEP_KEYS, class: "ts-button", type: "button", onclick: onClick });
  setIcon(button, icon, label);
  return button;
}

export function setIcon(button: HTMLButtonElement, icon: string, label: string): void {
  if (button.dataset.icon === icon) return;
  button.dataset.icon = icon;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", icon === "previous" || icon === "next" ? "ts-stroke" : "ts-fill");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[icon]);
  svg.append(path);
  button.replaceChildren(svg);
  button.setAttribute("aria-label", label);
  button.title = label;
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Whitespace made visible, so that " the" and "the" are two different tokens to the eye. */
export function visibleToken(token: string): string {
  if (token === "") return "∅";
  return token.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\r", "␍").replaceAll("\t", "⇥");
}

export const shortened = (text: string, most: number): string => ([...text].length <= most ? text : `${[...text].slice(0, most - 1).join("")}…`);

/** A visible token in parts, so that its whitespace can be quieter than its text. */
export function tokenParts(visible: string): Node[] {
  return visible.split(/([·↵␍⇥]+)/).filter(Boolean).map((part) =>
    /^[·↵␍⇥]/.test(part) ? h("span", { class: "ts-space" }, part) : document.createTextNode(part));
}
