// The largest entries of a variable, without sorting all of it.
export type Order = "size" | "largest" | "smallest";

/** Indices of the first `most` entries in an order; what has no value is left out. */
export function ranked(values: ArrayLike<number>, order: Order, most: number): number[] {
  const rank = (v: number) => (order === "size" ? Math.abs(v) : order === "largest" ? v : -v);
  const best: number[] = [];
  let least = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const r = rank(values[i]);
    if (Number.isNaN(r) || (best.length >= most && r <= least)) continue;
    let [low, high] = [0, best.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rank(values[best[middle]]) >= r) low = middle + 1;
      else high = middle;
    }
    best.splice(low, 0, i);
    if (best.length > most) best.pop();
    least = rank(values[best[best.length - 1]]);
  }
  return best;
}

/** The index along each axis of a flat index. */
export function unravelled(flat: number, shape: number[]): number[] {
  const out = new Array<number>(shape.length);
  for (let d = shape.length - 1; d >= 0; d--) {
    out[d] = flat % shape[d];
    flat = Math.floor(flat / shape[d]);
  }
  return out;
}
