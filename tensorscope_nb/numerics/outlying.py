"""How far below a null sample a value lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
TAIL = 0.1  # share of the null that its exponential tail is fitted to
FEWEST = 20  # values in the tail, below which it is not fitted: with 13, discoveries were twice too many
NORMAL = 1.4826  # median absolute deviation of a normal distribution, to its standard deviation


def recentred(cosines: Array) -> Array:
    """The cosines (n, n) of different units, less their median where that is positive: what the units have in common.

    A negative median stays: of cosines with two modes it may be the lower one, and without it the null would stand too high.
    """
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return pairs - max(float(np.median(pairs)), 0.0) if len(pairs) else pairs


def lower_tail(values: Array, null: Array) -> Array:
    """p of each value: its rank in the null down to the null's lowest tenth, and below that an exponential tail.

    The rank alone cannot go below 1 / (N + 1), which leaves a few true ones among many unseen once many are tested. Where
    the tenth is too few values to fit a tail to, the rank is all there is. NaN stays NaN, and is everything without a null.
    Measured over pairs of two tasks of 6 to 64 samples at .05: at most .06 under one law, .075 with orthogonal means.
    """
    ordered = np.sort(np.asarray(null, dtype=np.float64).ravel())
    if not len(ordered):
        return np.full(np.shape(values), np.nan)
    edge = np.quantile(ordered, TAIL)
    excess = edge - ordered[ordered < edge]
    rank = (1 + np.searchsorted(ordered, values, side="right")) / (1 + len(ordered))
    if len(excess) < FEWEST:
        return np.where(np.isnan(values), np.nan, rank)
    with np.errstate(over="ignore"):
        tail = TAIL * np.exp(-(edge - values) / excess.mean())
    return np.where(np.isnan(values), np.nan, np.where(values < edge, tail, rank))


def depth(values: Array, null: Array) -> Array:
    """−value / (1.4826 · median absolute deviation of the null), NaN where the null does not vary."""
    spread = NORMAL * np.median(np.abs(null - np.median(null))) if len(null) else 0.0
    return -values / spread if spread > 0 else np.full_like(values, np.nan)
