"""How far two linear maps, one after the other, keep what they carry: ‖A B‖ over ‖A‖ ‖B‖, and what chance makes of it.

With R a random rotation between them (Haar measure), σᵢ² the squared singular values of A as shares of their sum and τⱼ² those
of B, c² = ‖A R B‖² / (‖A‖² ‖B‖²) = Σᵢⱼ σᵢ² τⱼ² rᵢⱼ², and with E rᵢⱼ² = 1/d, E rᵢⱼ⁴ = 3 / (d (d + 2)), in one row or column
1 / (d (d + 2)) and elsewhere (d + 1) / (d (d − 1) (d + 2)),

E c² = 1/d,  var c² = 2 (d Σσ⁴ − 1) (d Στ⁴ − 1) / (d² (d − 1) (d + 2)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

LEAST = 3  # rows, and columns, for a median of the others
SPREAD = 1.4826  # the standard deviation of a normal law over its median absolute deviation


def chance(purity_a: Array, purity_b: Array, d: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of c² in d dimensions; the purities are Σσ⁴ and Στ⁴ of shares, 1 for rank one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.maximum(d * purity_a - 1, 0) * np.maximum(d * purity_b - 1, 0)
        return 1 / d, np.sqrt(2 * excess / ((d - 1) * (d + 2))) / d


def tail(squared: Array, mean: Array, sd: Array) -> Array:
    """P(c² ≥ squared) by the Beta law with that mean and variance: exact where both maps have rank one."""
    from scipy.stats import beta

    with np.errstate(invalid="ignore", divide="ignore"):
        size = mean * (1 - mean) / sd**2 - 1
        return np.where(sd > 0, beta.sf(np.clip(squared, 0, 1), mean * size, (1 - mean) * size), np.nan)


def from_the_others(values: Array) -> Array:
    """What a table (…, row, column) leads to expect of each cell: the median of its row, plus that of its column, less that of
    the cells in neither, all without the cell itself. Exact where values are an effect of the row plus one of the column; rows
    and columns of NaN are left out, and below 3 of either there is nothing to expect.
    """
    values = np.asarray(values, dtype=np.float64)
    expected = np.full_like(values, np.nan)
    for table, out in zip(values.reshape(-1, *values.shape[-2:]), expected.reshape(-1, *values.shape[-2:]), strict=True):
        rows, columns = (np.flatnonzero(np.isfinite(table).any(axis)) for axis in (1, 0))
        if min(len(rows), len(columns)) >= LEAST:
            inner = table[np.ix_(rows, columns)]
            of_row, of_column = _medians_of_others(inner), _medians_of_others(inner.T).T
            neither = (_medians_of_others(of_row.T).T + _medians_of_others(of_column)) / 2
            out[np.ix_(rows, columns)] = of_row + of_column - neither
    return expected


def beyond_the_others(values: Array) -> tuple[Array, Array, Array]:
    """What ``from_the_others`` expects; how far above it in robust standard deviations over the table; the p value of that.

    p is Student's upper tail with half of (rows − 1) (columns − 1) degrees of freedom, for what the median absolute deviation
    knows of the spread: under row and column effects with normal noise BH over all cells then rejects any in .01 to .06 of
    simulated sets of tables at .05 (3 to 12 rows), where the normal tail has .05 to .18. Heavier tails are not allowed for.
    """
    from scipy.stats import t

    expected = from_the_others(values)
    excess = values - expected
    seen = np.isfinite(excess)
    rows, columns = (seen.any(axis, keepdims=True).sum((-2, -1), keepdims=True) for axis in (-1, -2))
    known = np.where(seen.any((-2, -1), keepdims=True), np.abs(excess), 0)  # nothing known is no median, and no warning
    spread = SPREAD * np.nanmedian(known, (-2, -1), keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(spread > 0, excess / spread, np.nan)
        return expected, z, t.sf(z, (rows - 1) * (columns - 1) / 2)


def _medians_of_others(values: Array) -> Array:
    """Of each value, the median of the others along the last axis."""
    order = values.argsort(-1)
    ordered, rank = np.take_along_axis(values, order, -1), order.argsort(-1)
    left = values.shape[-1] - 1
    ends = [np.take_along_axis(ordered, k + (k >= rank), -1) for k in ((left - 1) // 2, left // 2)]
    return (ends[0] + ends[1]) / 2
