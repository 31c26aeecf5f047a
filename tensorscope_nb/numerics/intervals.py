"""Intervals over independent units (here: sequences)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def t_interval(values: Array, axis: int = 0, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Mean and Student interval m ± t₍ₙ₋₁₎ s / √n along ``axis``, ignoring NaN; the interval is NaN below 2 values."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    seen = np.isfinite(values)
    n = seen.sum(axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(seen, values, 0).sum(axis) / n
        centred = np.where(seen, values - np.expand_dims(mean, axis), 0)
        error = np.sqrt((centred**2).sum(axis) / (n - 1) / n)
        half = np.where(n > 1, t.ppf(0.5 + level / 2, np.maximum(n - 1, 1)) * error, np.nan)
    return mean, mean - half, mean + half


def bootstrap_ratio(
    numerator: Array, denominator: Array, *, seed: int = 0, n_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of Σ numerator / Σ denominator over resamplings of the units; NaN below 2 units."""
    n = len(numerator)
    if n < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    total = denominator[draws].sum(1)
    ratios = numerator[draws].sum(1)[total > 0] / total[total > 0]
    tail = (1 - level) / 2
    return float(np.quantile(ratios, tail)), float(np.quantile(ratios, 1 - tail))
