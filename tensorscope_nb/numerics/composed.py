"""How far two linear maps, one after the other, keep what they carry: ‖A B‖ over ‖A‖ ‖B‖, and what chance makes of it.

With R a random rotation between them (Haar measure), σᵢ² the squared singular values of A as shares of their sum and τⱼ² those
of B, c² = ‖A R B‖² / (‖A‖² ‖B‖²) = Σᵢⱼ σᵢ² τⱼ² rᵢⱼ², and with E rᵢⱼ² = 1/d, E rᵢⱼ⁴ = 3 / (d (d + 2)), in one row or column
1 / (d (d + 2)) and elsewhere (d + 1) / (d (d − 1) (d + 2)),

E c² = 1/d,  var c² = 2 (d Σσ⁴ − 1) (d Στ⁴ − 1) / (d² (d − 1) (d + 2)).

The third central moment is a multiple of tr A′³ tr B′³, with A′ = A Aᵀ − 1/d and B′ likewise: of a symmetric matrix without
trace no other number of third degree is left alone by rotations. The multiple is that of rank one, where c² is
Beta(1/2, (d − 1)/2): 8 d / ((d − 1) (d − 2) (d + 2) (d + 4)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

LEAST = 3  # rows, and columns, for a median of the others
FLAT = 1e-6  # of d Σσ⁴ − 1: below it a map keeps all directions alike, to the rounding of what it is compared with
SPREAD = 1.4826  # the standard deviation of a normal law over its median absolute deviation


def chance(purity_a: Array, purity_b: Array, d: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of c² in d dimensions; the purities are Σσ⁴ and Στ⁴ of shares, 1 for rank one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.where(d * purity - 1 < FLAT, 0, d * purity - 1) for purity in (purity_a, purity_b))
        excess = left * right
        return 1 / d, np.sqrt(2 * excess / ((d - 1) * (d + 2))) / d


def third_moment(purity_a: Array, cubes_a: Array, purity_b: Array, cubes_b: Array, d: Array) -> Array:
    """E (c² − 1/d)³; the cubes are Σσ⁶ and Στ⁶ of shares."""
    left, right = (cubes - 3 * purity / d + 2 / d**2 for purity, cubes in ((purity_a, cubes_a), (purity_b, cubes_b)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 8 * d / ((d - 1) * (d - 2) * (d + 2) * (d + 4)) * left * right


def tail(squared: Array, mean: Array, sd: Array, third: Array) -> Array:
    """P(c² ≥ squared) by the shifted gamma law (Pearson's type III) with these three moments.

    Of two moments, as a Beta law has them, p would be far too small where one singular value is ahead of many: the tail is that
    of the one, and the many only add to the mean. With three, p ≤ .001 comes with .9 to 1.6 of that rate, p ≤ .0001 up to 5.
    """
    from scipy.stats import pearson3

    with np.errstate(invalid="ignore", divide="ignore"):
        z, skewness = np.broadcast_arrays((squared - mean) / sd, third / sd**3)
    known = np.isfinite(z) & np.isfinite(skewness)
    p = np.full(known.shape, np.nan)
    p[known] = pearson3.sf(z[known], skewness[known])
    return p


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
