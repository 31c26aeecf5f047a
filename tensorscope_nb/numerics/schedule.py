"""How many weights each round of pruning leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence

HALF = 0.5  # a weight: what rounding takes beyond the rate needs no round of its own


def kept_counts(n: int, sparsities: Sequence[float], rate: float | None) -> tuple[list[int], list[int]]:
    """How many of ``n`` weights are left at first and after each round, and which rounds end at the ``sparsities``, ascending.

    Sparsity s leaves exactly n − round(s n). On the way there are as few rounds as can be of which none takes more than
    ``rate`` of what is left, each the same share, to the nearest weight; a round that would take none is left out. With
    None as ``rate``: a round for each sparsity.
    """
    counts, ends = [n], []
    for sparsity in sparsities:
        start, end = counts[-1], n - round(sparsity * n)
        n_rounds = 1 if rate is None else max(1, math.ceil(math.log((end + HALF) / start) / math.log(1 - rate)))
        for i in range(1, n_rounds + 1):
            count = end if i == n_rounds else round(start * (end / start) ** (i / n_rounds))
            if count < counts[-1]:
                counts.append(count)
        ends.append(len(counts) - 1)
    return counts, ends
