"""The interval of a ratio of sums over units of unequal sizes, from the matrices of its definition."""

import numpy as np
from scipy.stats import t


def half_width(numerator, denominator):
    """Half of the 95 % interval of Σ a / Σ b: HC2 residuals, and the degrees of freedom of Bell & McCaffrey."""
    a, b = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    share = abs(b) / abs(b).sum()
    residuals = np.eye(len(b)) - np.outer(np.ones(len(b)), share)
    g = residuals.T @ np.diag(share**2 / (1 - share)) @ residuals
    freedom = np.trace(g) ** 2 / np.trace(g @ g)
    apart = a - a.sum() / b.sum() * b
    return t.ppf(0.975, freedom) * np.sqrt((apart**2 / (1 - share)).sum()) / abs(b.sum())
