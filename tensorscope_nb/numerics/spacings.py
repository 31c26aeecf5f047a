"""Rényi's spacings of distances to neighbours, and whether one dimension explains them.

Where points lie uniformly in d dimensions around one of them, at distances r₁ ≤ r₂ ≤ …, the spacings Eᵢ = i log(rᵢ₊₁ / rᵢ)
are independent and exponential with mean 1 / d, exactly and for any d (Rényi 1953). So d̂ = 1 / mean(E), the estimator of
Levina and Bickel 2004, has a known law, and a change of dimension is a change of the mean of exponential variables, whose
test has one null distribution for all points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
SHORTEST = 5  # spacings on each side of a change: with fewer, one somewhat long spacing would decide
DRAWS, SEED = 200_000, 0
TAIL = 0.01  # share of the null that its exponential tail is fitted to


def spacings(distances: Array, first: int) -> Array:
    """Eᵢ of distances (…, n) ascending, the first of them that to neighbour number ``first``."""
    i = np.arange(first, first + distances.shape[-1] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return i * np.diff(np.log(distances), axis=-1)


def dimension(e: Array, level: float = 0.95) -> tuple[Array, Array, Array]:
    """d̂ = 1 / mean(E) over the last axis, and its exact interval: 2 n d / d̂ is χ² with 2 n degrees of freedom."""
    from scipy.stats import chi2

    n = e.shape[-1]
    with np.errstate(divide="ignore"):
        found = 1 / e.mean(-1)
    low, high = (chi2.ppf(q, 2 * n) / (2 * n) for q in (0.5 - level / 2, 0.5 + level / 2))
    return found, found * low, found * high


@dataclass(frozen=True)
class Split:
    """The split of each row's spacings that the likelihood prefers, and the mean of the spacings on each side."""

    statistic: Array  # the log-likelihood ratio of two means to one
    at: NDArray[np.intp]  # spacings before it
    before: Array
    after: Array

    @property
    def ratio(self) -> Array:
        """The dimension after it over the dimension before it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.before / self.after


def splits(e: Array) -> tuple[Split, Split]:
    """The best split of each row (rows, n), and the best of those behind which the dimension is higher.

    n log m − s log m₁ − (n − s) log m₂ over all s that leave ``SHORTEST`` on each side. Where no split has a higher
    dimension behind it, the statistic of the second is 0.
    """
    n = e.shape[1]
    s = np.arange(SHORTEST, n - SHORTEST + 1)
    sums = e.cumsum(1)
    total, first = sums[:, -1:], sums[:, SHORTEST - 1 : n - SHORTEST]
    before, after = first / s, (total - first) / (n - s)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = n * np.log(total / n) - s * np.log(before) - (n - s) * np.log(after)

    def best(values: Array) -> Split:
        at = values.argmax(1)[:, None]
        pick = lambda array: np.take_along_axis(array, at, 1)[:, 0]
        return Split(np.maximum(pick(values), 0), s[at[:, 0]], pick(before), pick(after))

    return best(ratio), best(np.where(after < before, ratio, 0.0))


class Null:
    """How large a statistic is where one dimension holds: draws, and beyond their 99 % quantile an exponential tail.

    The draws alone end at 5e-6, which the correction for a vocabulary of tokens asks to go far below.
    """

    def __init__(self, draws: Array) -> None:
        self.ordered = np.sort(draws)
        self.edge = float(np.quantile(self.ordered, 1 - TAIL))
        self.scale = float((self.ordered[self.ordered > self.edge] - self.edge).mean())

    def p(self, statistic: Array) -> Array:
        n = len(self.ordered)
        rank = (1 + n - np.searchsorted(self.ordered, statistic)) / (1 + n)
        with np.errstate(over="ignore", invalid="ignore"):
            tail = TAIL * np.exp(-(statistic - self.edge) / self.scale)
        return np.where(np.isnan(statistic), np.nan, np.where(statistic > self.edge, tail, rank))


@lru_cache(maxsize=128)
def nulls(n: int) -> tuple[Null, Null]:
    """Of the two statistics of n spacings; always the same draws."""
    rng = np.random.default_rng([SEED, n])
    found = [splits(rng.exponential(size=(DRAWS // 10, n))) for _ in range(10)]
    any_, higher = (Null(np.concatenate([each.statistic for each in side])) for side in zip(*found, strict=True))
    return any_, higher
