"""Many tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def q_values(p: Array) -> Array:
    """Benjamini–Hochberg's q of all p values together, step-up with the running minimum from the largest; NaN stays NaN."""
    from scipy.stats import false_discovery_control

    p = np.asarray(p, dtype=np.float64)
    q, known = np.full_like(p, np.nan), np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


def holm(p: Array) -> Array:
    """Holm's adjusted p of all p values together, step-down with the running maximum; NaN stays NaN, and is no test."""
    p = np.asarray(p, dtype=np.float64)
    adjusted, known = np.full_like(p, np.nan), np.isfinite(p)
    order = np.argsort(p[known], kind="stable")
    steps = np.maximum.accumulate(p[known][order] * np.arange(len(order), 0, -1))
    found = np.empty(len(order))
    found[order] = np.minimum(steps, 1)
    adjusted[known] = found
    return adjusted
