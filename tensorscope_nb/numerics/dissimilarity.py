"""Tables of dissimilarities between rows, how alike two of them are, and whether that could be chance.

The pairs of n rows are no n²/2 observations: each row is in n − 1 of them. So it is rows, or the units that they belong to,
that are left out for an interval and exchanged for a p value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorscope_nb.numerics.alignment import CONSTANT, Flags, Numbers, spread
from tensorscope_nb.numerics.intervals import Array, jackknife_interval

DISTANCES = ("correlation", "euclidean", "cosine")
COMPARES = ("spearman", "pearson")
ROUNDING = 1e-12
DIGITS = 12  # of 1 − r and of 1 − cos, from rows in single precision
LEAST = 5  # units for an interval
GROUPS = 40  # of units, left out in turn, where there are more


@dataclass(frozen=True)
class Tables:
    """The dissimilarity of every two rows of different units (layer, pair); ``pairs`` (2, pair) are the numbers of the rows."""

    values: Array
    pairs: Numbers

    @property
    def has(self) -> Flags:
        """Which layers have dissimilarities."""
        return np.array([bool(np.isfinite(layer).all()) for layer in self.values])

    @classmethod
    def of(cls, layers: Sequence[Array], unit: Numbers, distance: str) -> Tables:
        """NaN in a layer in which nothing varies, or all rows are equally far apart; and where a row has no such distance.

        Distances of rows along one line are 0 or 2 but for their rounding, which must not rank them.
        """
        from scipy.spatial.distance import pdist

        pairs = np.stack(np.triu_indices(len(unit), 1))
        apart = unit[pairs[0]] != unit[pairs[1]]
        values = np.full((len(layers), int(apart.sum())), np.nan)
        for i, layer in enumerate(layers):
            if spread(layer).any():
                found = pdist(layer.astype(np.float64), distance)[apart]
                found = found if distance == "euclidean" else found.round(DIGITS)
                if found.std() > CONSTANT * found.mean():
                    values[i] = found
        return cls(values, pairs[:, apart])


def n_pairs(unit: Numbers) -> int:
    """How many pairs of rows there are of different units."""
    return int(len(unit) ** 2 - (np.bincount(unit) ** 2).sum()) // 2


def standardized(values: Array, compare: str) -> Array:
    """Values, or their ranks, in each layer with mean 0 and length 1: products of them are correlations."""
    from scipy.stats import rankdata

    given = rankdata(values, axis=1) if compare == "spearman" else values
    given = np.where(np.isnan(values).any(1, keepdims=True), np.nan, given)
    centred = given - given.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = centred / np.sqrt((centred**2).sum(1, keepdims=True))
    return found


def compared(a: Tables, b: Tables, unit: Numbers, compare: str, seed: int) -> tuple[Array, Array, Array]:
    """The correlation of every two tables (layers of a, layers of b), and its 95 % interval over units.

    The interval is the jackknife's: each unit left out in turn, or of more than 40 each of 40 groups that the seed draws;
    ranks are taken again each time. NaN below 5 units.
    """
    n = int(unit[-1]) + 1
    group = np.arange(n) if n <= GROUPS else np.random.default_rng(seed).permutation(n) % GROUPS
    of_pair = group[unit[a.pairs]]
    left_out = []
    for g in range(min(n, GROUPS)):
        kept = (of_pair != g).all(0)
        left_out.append(_correlations(a.values[:, kept], b.values[:, kept], compare))
    value, low, high = jackknife_interval(_correlations(a.values, b.values, compare), np.array(left_out))
    return (value, low, high) if n >= LEAST else (value, np.full_like(low, np.nan), np.full_like(high, np.nan))


def _correlations(a: Array, b: Array, compare: str) -> Array:
    found: Array = (standardized(a, compare) @ standardized(b, compare).T).clip(-1, 1)
    return found


def exchanged(a: Tables, b: Tables, unit: Numbers, compare: str, n: int, seed: int) -> Array:
    """p of a correlation at least as large where the units of b are exchanged at random, n times; with the one that came.

    Units must have equally many rows. Source: Mantel 1967.
    """
    rng = np.random.default_rng(seed)
    one, other = standardized(a.values, compare), standardized(b.values, compare)
    rows = np.arange(len(unit)).reshape(int(unit[-1]) + 1, -1)
    at = np.zeros((len(unit), len(unit)), dtype=int)
    at[a.pairs[0], a.pairs[1]] = at[a.pairs[1], a.pairs[0]] = np.arange(a.pairs.shape[1])
    value = one @ other.T
    reached = np.ones_like(value)
    for _ in range(n):
        moved = rows[rng.permutation(len(rows))].ravel()
        reached += one @ other[:, at[moved[a.pairs[0]], moved[a.pairs[1]]]].T >= value - ROUNDING
    return np.where(np.isnan(value), np.nan, reached / (n + 1))
