"""Around each of many points: the dimension, and the tests of whether it changes with the radius."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensorscope_nb.numerics.neighbours import Neighbours, middle
from tensorscope_nb.numerics.spacings import dimension, nulls, spacings, splits

Array = NDArray[np.floating]
FEWEST = 30  # spacings, below which nothing is said
TIED = 0.1  # share of the spacings that are ties, beyond which the distances are those of a lattice
ROUNDED = 4  # roundings of a distance, within which two are a tie


@dataclass(frozen=True)
class Window:
    """The neighbours that are looked at: from number ``k_min`` to ``k_max``, and none beyond ``reach``."""

    k_min: int
    k_max: int
    reach: float = np.inf


COLUMNS = (
    "dim", "dim_ci_low", "dim_ci_high", "p_manifold", "p_fiber", "p_fiber_small", "p_fiber_large", "dim_small", "dim_large",
    "dim_ratio", "increase_ratio", "transition_radius", "nearest", "knn_radius", "n_spacings", "n_ties",
)  # fmt: skip


class LocalTests:
    """Of some points among ``points`` (no two equal) one row of ``COLUMNS`` each; NaN until its block is done."""

    def __init__(self, points: Tensor, of: Tensor, window: Window, memory: float) -> None:
        self.of, self.window = of, window
        self.rounding = ROUNDED * torch.finfo(points.dtype).eps
        self._search: Neighbours | None = Neighbours(points, window.k_max, memory)
        self.n_blocks = -(-len(of) // self._search.rows)
        self.values: dict[str, Array] = {name: np.full(len(of), np.nan) for name in COLUMNS}
        self.neighbours = np.full((len(of), window.k_max), -1, dtype=np.int32)
        self.done = 0

    def steps(self) -> Iterator[None]:
        assert self._search is not None
        for some, distances, found in self._search.blocks(self.of):
            rows = slice(self.done, self.done + len(some))
            for name, values in local_tests(distances.numpy(), self.window, self.rounding).items():
                self.values[name][rows] = values
            self.neighbours[rows] = found.numpy()
            self.done = rows.stop
            yield
        self._search = None  # the points are as large as all the rest


def local_tests(distances: Array, window: Window, rounding: float) -> dict[str, Array]:
    """``COLUMNS`` of points with these distances (points, k_max) to their neighbours, ascending.

    Distances closer than ``rounding`` (relative) count as that far apart, so that no logarithm of 0 decides.
    """
    found = {name: np.full(len(distances), np.nan) for name in COLUMNS}
    found["nearest"], found["knn_radius"] = distances[:, 0], distances[:, -1]
    r = distances[:, window.k_min - 1 :]
    apart = rounding * np.arange(window.k_min, window.k_max)
    e = spacings(r, window.k_min)
    inside = np.maximum((r <= window.reach).sum(1) - 1, 0)
    found["n_spacings"] = inside.astype(float)
    found["n_ties"] = ((e <= apart) & (np.arange(e.shape[1]) < inside[:, None])).sum(1).astype(float)
    usable = (inside >= FEWEST) & (found["n_ties"] <= TIED * inside)
    e = np.maximum(e, apart)
    for n in np.unique(inside[usable]):
        rows = np.flatnonzero(usable & (inside == n))
        for name, values in _tests(e[rows, :n], r[rows]).items():
            found[name][rows] = values
    return found


def _tests(e: Array, r: Array) -> dict[str, Array]:
    n = e.shape[1]
    change, increase = splits(e)
    any_, higher = nulls(n)
    dim, low, high = dimension(e)
    p_fiber, small = higher.p(increase.statistic), 2 * increase.at <= n
    return {
        "dim": dim, "dim_ci_low": low, "dim_ci_high": high,
        "p_manifold": any_.p(change.statistic), "p_fiber": p_fiber,
        "p_fiber_small": np.where(small, p_fiber, 1.0), "p_fiber_large": np.where(small, 1.0, p_fiber),
        "dim_small": 1 / change.before, "dim_large": 1 / change.after, "dim_ratio": change.ratio,
        "increase_ratio": np.where(increase.statistic > 0, increase.ratio, 1.0),
        "transition_radius": np.take_along_axis(r, change.at[:, None], 1)[:, 0],
    }  # fmt: skip


def gaussian_like(points: Tensor, seed: int) -> Tensor:
    """As many Gaussian points with the mean and covariance of these."""
    mean, d = middle(points), points.shape[1]
    covariance = torch.zeros(d, d, dtype=torch.float64, device=points.device)
    for part in points.split(4096):
        covariance.addmm_((part.double() - mean).T, part.double() - mean, alpha=1 / (len(points) - 1))
    values, vectors = torch.linalg.eigh(covariance)
    there = values > d * torch.finfo(torch.float64).eps * values[-1]  # a cloud of fewer dimensions stays in them
    root = (vectors * values.where(there, 0).sqrt()).T
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty_like(points)
    for rows in torch.arange(len(points)).split(4096):
        z = torch.randn(len(rows), len(root), generator=generator, dtype=torch.float64).to(points.device)
        drawn[rows] = (z @ root + mean).to(points.dtype)
    return drawn
