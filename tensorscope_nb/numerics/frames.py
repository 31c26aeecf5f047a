"""Many directions in fewer dimensions: how much they overlap. Matrices are of dimensions × dimensions, never of all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 8192  # taken to double precision at a time
SAME = 1e-12  # relative distance of two rows, at which they are equal


@dataclass(frozen=True)
class Frame:
    """Directions as rows W_i (n, m), those of norm zero left out of everything."""

    n: int  # directions
    m: int  # dimensions
    norms: NDArray[np.floating]  # of all rows
    mean_square_overlap: float  # of all pairs, mean of cos²; NaN below two directions
    centred_overlap: float  # the same of the rows less their mean; NaN where one of them is the mean
    dimensionality: NDArray[np.floating]  # ‖W_i‖² / Σ_j (Ŵ_i · W_j)², NaN for a row of zeros

    @classmethod
    def of(cls, rows: Tensor, *, each: bool = True) -> Frame:
        """Without ``each`` the dimensionalities are left NaN, for half of the cost."""
        norms = torch.cat([part.double().norm(dim=1) for part in rows.split(ROWS)])
        there = norms > 0
        n, m = int(there.sum()), rows.shape[1]
        dimensionality = torch.full_like(norms, math.nan)
        if not n:
            return cls(n, m, norms.cpu().numpy(), math.nan, math.nan, dimensionality.cpu().numpy())
        parts = Parts(rows)
        if n < m:  # the same overlaps in as many dimensions as there are directions
            parts = Parts(torch.linalg.qr(torch.cat(list(parts)).T, mode="r").R.T)
        mean = sum((part.sum(0) for part in parts), torch.zeros_like(parts.rows[0], dtype=torch.float64)) / n
        plain = gram(unit(part) for part in parts)
        if each:
            weighted = gram(parts)
            shared = torch.cat([((units @ weighted) * units).sum(1) for units in map(unit, parts)])
            dimensionality[there] = norms[there] ** 2 / shared
        centred = gram(apart(part, mean) for part in parts)
        return cls(n, m, norms.cpu().numpy(), overlap(plain, n), overlap(centred, n), dimensionality.cpu().numpy())

    @property
    def score(self) -> float:
        """m times the mean square overlap: 1 is that of random directions."""
        return self.m * self.mean_square_overlap

    @property
    def centred_score(self) -> float:
        return self.m * self.centred_overlap

    @property
    def n_zero(self) -> int:
        return len(self.norms) - self.n

    def relative_norms(self) -> NDArray[np.floating]:
        """Norms over the median of those that are not zero."""
        some = self.norms[self.norms > 0]
        return self.norms / np.median(some) if len(some) else np.full(len(self.norms), np.nan)


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows that are not zero, in double precision, some at a time: never a copy of them all."""

    rows: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return (part[part.any(1)].double() for part in self.rows.split(ROWS))


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def apart(rows: Tensor, mean: Tensor) -> Tensor:
    """The unit rows less ``mean``; NaN for one that is equal to it, to rounding."""
    found = rows - mean
    norms = found.norm(dim=1, keepdim=True)
    return found / norms.where(norms > SAME * rows.norm(dim=1, keepdim=True), math.nan)


def gram(parts: Iterable[Tensor]) -> Tensor:
    """Σ w wᵀ over all rows."""
    each = (part.T @ part for part in parts)
    total = next(each)
    for part in each:
        total += part
    return total


def overlap(plain: Tensor, n: int) -> float:
    """The mean of cos² over pairs, of the Gram matrix of n unit rows; NaN below two."""
    squares = float(plain.square().sum())
    return math.nan if n < 2 or math.isnan(squares) else max(0.0, squares - n) / (n * (n - 1))


def welch_bound(n: int, m: int) -> float:
    """The least mean square overlap that n unit vectors in m dimensions can have (Welch 1974); its root bounds the largest."""
    return max(0.0, (n - m) / (m * (n - 1))) if n > 1 else math.nan


def random_score(n: int, m: int, level: float = 0.95) -> tuple[float, float, float]:
    """The score of n independent random directions: its standard deviation about 1, and its interval.

    cos² has mean 1/m and variance 2 (m − 1) / (m² (m + 2)), and those of different pairs are uncorrelated, so the deviation is
    exact. The interval is that of Bingham's statistic: n (m + 2) / 2 · (m tr T² − 1), T the mean of ŵ ŵᵀ, is about χ² with
    (m − 1)(m + 2) / 2 degrees of freedom.
    """
    from scipy.stats import chi2

    if n < 2 or m < 2:
        return (math.nan, math.nan, math.nan) if n < 2 else (0.0, 1.0, 1.0)
    deviation = math.sqrt(4 * (m - 1) / ((m + 2) * n * (n - 1)))
    degrees = (m - 1) * (m + 2) / 2
    low, high = (float(2 * chi2.ppf(q, degrees) / (m + 2)) for q in (0.5 - level / 2, 0.5 + level / 2))
    return deviation, 1 + (low - (m - 1)) / (n - 1), 1 + (high - (m - 1)) / (n - 1)
