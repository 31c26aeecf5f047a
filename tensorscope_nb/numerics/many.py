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
