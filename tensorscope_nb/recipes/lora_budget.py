"""Sets of modules whose widths add up to a budget: at random, or of the lowest scores."""

from __future__ import annotations

import math
from collections.abc import Set

import numpy as np

ORDERS = 1000


def random_near(widths: np.ndarray, budget: int, seed: int, avoid: Set[int]) -> np.ndarray:
    """The first of the random orders that, cut at its best, comes nearest to the budget; never the set ``avoid``.

    A random order cut after k is a uniform draw among the sets of k. Filling up with what still fits would favour the
    narrow modules.
    """
    rng = np.random.default_rng(seed)
    best, nearest = np.array([], dtype=int), math.inf
    for _ in range(ORDERS):
        order = rng.permutation(len(widths))
        gaps = np.abs(np.cumsum(widths[order]) - budget)
        k = int(gaps.argmin())
        if gaps[k] < nearest and set(order[: k + 1].tolist()) != avoid:
            best, nearest = order[: k + 1], float(gaps[k])
        if not nearest:
            break
    return best


def lowest_near(widths: np.ndarray, scores: np.ndarray, budget: int) -> np.ndarray:
    """Of all sets nearest to the budget, that of the lowest Σ width · score, exactly.

    Of modules of one width the best k are those with the lowest scores: so the sums are built width by width, and
    ``lowest[w]`` is the lowest cost of a set that adds up to w units.
    """
    unit = math.gcd(*widths.tolist())
    lowest = np.full(1 + min(int(widths.sum()), budget + int(widths.max())) // unit, np.inf)
    lowest[0] = 0
    steps: list[tuple[np.ndarray, int, np.ndarray]] = []  # modules of a width by score, their units, how many are taken
    for width in np.unique(widths):
        members = np.flatnonzero(widths == width)
        members = members[np.argsort(scores[members], kind="stable")]
        size, before, taken = int(width) // unit, lowest.copy(), np.zeros(len(lowest), dtype=int)
        for k, cost in enumerate(np.cumsum(scores[members] * width), 1):
            if k * size >= len(lowest):
                break
            reached = before[: -k * size] + cost
            better = reached < lowest[k * size :]
            lowest[k * size :][better] = reached[better]
            taken[k * size :][better] = k
        steps.append((members, size, taken))
    sums = np.flatnonzero(np.isfinite(lowest))[1:]
    at = min(sums.tolist(), key=lambda w: (abs(w * unit - budget), lowest[w]))
    chosen: list[int] = []
    for members, size, taken in reversed(steps):
        chosen += members[: taken[at]].tolist()
        at -= taken[at] * size
    return np.array(chosen)
