// The rows of a SampleTable: in which order, and which of them are in sight.
export interface Sorting {
  column: string;
  descending: boolean;
}

/** Row indices in the order of a column; what has no value comes last either way. */
export function sorted(count: number, value: (row: number) => number | string, descending: boolean): number[] {
  const keys = Array.from({ length: count }, (_, i) => value(i));
  const none = (v: number | string) => typeof v === "number" && Number.isNaN(v);
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const sign = descending ? -1 : 1;
  return keys.map((_, i) => i).sort((a, b) => {
    const [x, y] = [keys[a], keys[b]];
    if (none(x) || none(y)) return none(x) && none(y) ? a - b : none(x) ? 1 : -1;
    const order = typeof x === "number" && typeof y === "number" ? x - y : compare(String(x), String(y));
    return order ? sign * order : a - b;
  });
}

/** The rows to have in the page: those in sight, and some on either side. */
export function windowOf(count: number, line: number, top: number, height: number, beyond = 8): [number, number] {
  const first = Math.max(0, Math.floor(top / line) - beyond);
  return [Math.min(first, count), Math.min(count, Math.ceil((top + height) / line) + beyond)];
}
