"""Centred alignment of linear kernels: how far two sets of rows, of the same inputs, hold the same pairs to be alike.

Rows belong to units (the tokens of a sequence, or a sample alone), and units are what is independent. The unbiased form is
over pairs of rows of different units: the kernels there, without what is a sum of a part of either row, and their cosine.
With one row in each unit that is the estimator of Song et al. 2012 (zeroed diagonals, n (n − 3) degrees of freedom): taking
out aᵢ + aⱼ by least squares is its centring. With several, pairs within a unit are left out as it leaves out the diagonal,
and for the same reason: what a unit shares within itself would look like agreement, of kernels that have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tensorscope_nb.numerics.intervals import jackknife_interval

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.integer]
LEAST = 4  # units: of three, nothing is left after the centring
TILE = 2**27  # bytes of kernels that are held at a time
CONSTANT = 1e-6  # of the size of rows: single precision tells less apart


class Alignment(NamedTuple):
    """CKA (layers of x, layers of y), and the ends of its 95 % interval over units; and which layers have one."""

    value: Array
    low: Array
    high: Array
    has_x: Flags
    has_y: Flags


class Rows:
    """Layers of rows (n, width) about the mean of some of them, kept as they came and given in double precision.

    Nothing depends on where the origin is but the digits that are lost: it is where those rows are that are always looked at,
    so that a massive row which is left out at times costs the others none.
    """

    def __init__(self, layers: Sequence[Array], ordinary: Flags) -> None:
        self.layers = layers
        self.means = [layer[ordinary].mean(0, dtype=np.float64) for layer in layers]
        self.widths = np.array([layer.shape[1] for layer in layers])

    def __len__(self) -> int:
        return len(self.layers)

    def of(self, i: int, rows: Any = slice(None)) -> Array:
        return self.layers[i][rows].astype(np.float64) - self.means[i]


def spread(layer: Array) -> Array:
    """The squared distance of each row from their mean; zero where that is what single precision leaves of a constant."""
    wide = layer.astype(np.float64)
    squares: Array = ((wide - wide.mean(0)) ** 2).sum(1)
    return squares if squares.sum() > CONSTANT**2 * (wide**2).sum() else np.zeros_like(squares)


def linear_alignment(
    x: Sequence[Array], y: Sequence[Array] | None, unit: Numbers, kept: Sequence[Flags], *, unbiased: bool = True
) -> list[Alignment]:
    """CKA of all layers of ``x`` with all of ``y`` (None: of x), for each choice ``kept`` among the n rows.

    ``unit`` (n,), ascending from 0, says which unit a row is of. The interval is the jackknife's, each unit left out in turn,
    of artanh CKA, with Student's t; NaN below 5 units. A layer in which nothing varies has NaN, and one whose kernel over the
    pairs is aᵢ + aⱼ to the rounding of single precision (rows that are all as far apart; one row unlike the others). Exact,
    however the rows came; of the two ways to the same sums the one with fewer products is taken, n² Σ d or 2 n Σ d_x d_y.
    """
    always = np.logical_and.reduce(kept)
    layers = Rows([*x, *(y or ())], always if always.any() else ~always)
    here, there = slice(len(x)), slice(len(x) if y else 0, None)
    wanted = np.eye(len(layers), dtype=bool)
    wanted[here, there] = True
    products_of_columns = 2 * len(kept) * (np.outer(layers.widths, layers.widths) * wanted).sum()
    if len(unit) * layers.widths.sum() <= products_of_columns:
        sums = across_by_rows(layers, unit, kept)
    else:
        sums = across_by_columns(layers, unit, kept, wanted)
    found = []
    for flags, across in zip(kept, sums, strict=True):
        value, low, high = _aligned(layers, unit, flags, across, unbiased)
        has = ~np.isnan(np.diag(value))
        found.append(Alignment(value[here, there], low[here, there], high[here, there], has[here], has[there]))
    return found


def across_by_rows(layers: Rows, unit: Numbers, kept: Sequence[Flags]) -> list[Array]:
    """Of each unit, Σ KᵢⱼLᵢⱼ over its rows i and the rows j of others (unit, layer, layer): from kernels (n, n), by tiles."""
    sums = [np.zeros((unit[-1] + 1, len(layers), len(layers))) for _ in kept]
    always = np.logical_and.reduce(kept)
    order = np.argsort(~always, kind="stable")  # what all choices have in common is multiplied once, and the rest is added
    common, rest = slice(int(always.sum())), order[always.sum() :]
    size = max(1, TILE // (8 * len(unit) * len(layers)))
    for start in range(0, len(unit), size):
        rows = slice(start, start + size)
        tile = np.empty((len(unit[rows]), len(layers), len(unit)))
        for i in range(len(layers)):
            whole = layers.of(i)
            tile[:, i] = whole[rows] @ whole[order].T
        row, column = np.nonzero(unit[rows, None] == unit[order])
        tile[row, :, column] = 0
        shared = _products(tile[:, :, common])
        for flags, total in zip(kept, sums, strict=True):
            more = tile[:, :, len(order) - len(rest) :][:, :, flags[rest]]
            mine = flags[rows]
            np.add.at(total, unit[rows][mine], (shared + _products(more))[mine])
    return sums


def _products(tile: Array) -> Array:
    """Σⱼ KᵢⱼLᵢⱼ (row i, layer, layer)."""
    found: Array = np.matmul(tile, tile.transpose(0, 2, 1))
    return found


def across_by_columns(layers: Rows, unit: Numbers, kept: Sequence[Flags], wanted: Flags) -> list[Array]:
    """The same for the pairs of layers that are ``wanted``, from Σⱼ KᵢⱼLᵢⱼ = xᵢ′ (Σⱼ xⱼyⱼ′) yᵢ over all j."""
    sums = []
    for flags in kept:
        total = -within(layers, unit, flags)
        for i in range(len(layers)):
            one = layers.of(i, flags)
            for j in np.flatnonzero(wanted[i]).tolist():
                other = layers.of(j, flags)
                total[:, i, j] += np.bincount(unit[flags], (one @ (one.T @ other) * other).sum(1), len(total))
        sums.append(total)
    return sums


def within(layers: Rows, unit: Numbers, flags: Flags) -> Array:
    """Of each unit, Σ KᵢⱼLᵢⱼ over its own rows (unit, layer, layer)."""
    found = np.zeros((unit[-1] + 1, len(layers), len(layers)))
    for g, rows in _of_units(unit, flags):
        parts = [layers.of(i, rows) for i in range(len(layers))]
        kernels = np.stack([(part @ part.T).ravel() for part in parts])
        found[g] = kernels @ kernels.T
    return found


def _of_units(unit: Numbers, flags: Flags) -> Iterator[tuple[int, Numbers]]:
    """The rows of each unit that has some."""
    rows = np.flatnonzero(flags)
    edges = np.flatnonzero(np.diff(unit[rows], prepend=-1, append=-1))
    for first, last in pairwise(edges):
        yield int(unit[rows[first]]), rows[first:last]


def _aligned(layers: Rows, unit: Numbers, flags: Flags, across: Array, unbiased: bool) -> tuple[Array, Array, Array]:
    """CKA of all layers with all, and its interval."""
    counts = np.bincount(unit[flags], minlength=len(across))
    there = np.flatnonzero(counts)
    if len(there) < LEAST:
        nothing = np.full(across.shape[1:], np.nan)
        return nothing, nothing, nothing
    rows = np.flatnonzero(flags)
    own = np.zeros_like(across) if unbiased else within(layers, unit, flags)
    constant = np.array([not spread(layer[rows]).any() for layer in layers.layers])
    squares = np.stack([np.bincount(unit[rows], (layers.of(i, rows) ** 2).sum(1), len(counts)) for i in range(len(layers))])
    sums, left_out = np.zeros((len(layers), len(rows))), []
    size = max(1, TILE // (8 * len(rows) * len(layers)))
    blocks = [there[i : i + size] for i in range(0, len(there), size)]

    def cosines(products: Array, sums: Array, counts: Numbers) -> Array:
        if (counts > 0).sum() < LEAST:
            return np.full_like(products, np.nan)
        value = products - (_of_parts if unbiased else _of_means)(sums, unit[rows], counts)
        length, of_units = np.diag(value), squares * (counts > 0)
        largest = of_units.sum(1) ** 2 - (of_units**2).sum(1)  # Σ |xᵢ|² |xⱼ|², beside which what is left may be rounding
        size = np.sqrt(np.where(constant | (length <= CONSTANT**2 * largest), np.nan, length))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (value / np.outer(size, size)).clip(-1, 1)

    for block in blocks:
        for g, part in zip(block, _with_units(layers, unit, rows, block), strict=True):
            sums += np.where(unit[rows] == g, 0, part) if unbiased else part
    whole = across.sum(0) + own.sum(0)
    value = cosines(whole, sums, counts)
    for block in blocks:
        for g, part in zip(block, _with_units(layers, unit, rows, block), strict=True):
            products = whole - 2 * across[g] - own[g]
            left = np.where(unit[rows] == g, 0, sums - part)
            left_out.append(cosines(products, left, np.where(np.arange(len(counts)) == g, 0, counts)))
    return jackknife_interval(value, np.array(left_out))


def _with_units(layers: Rows, unit: Numbers, rows: Numbers, units: Numbers) -> Array:
    """Σⱼ Kᵢⱼ over the rows j of a unit (unit, layer, row i)."""
    member = (unit[rows] == units[:, None]).astype(np.float64)
    found = np.empty((len(units), len(layers), len(rows)))
    for i in range(len(layers)):
        whole = layers.of(i, rows)
        found[:, i] = member @ whole @ whole.T
    return found


def _of_parts(sums: Array, unit: Numbers, counts: Numbers) -> Array:
    """⟨A, B⟩ of the nearest aᵢ + aⱼ and bᵢ + bⱼ to two kernels, over pairs of rows of different units.

    The normal equations of a row of unit g, with N_g rows of N: (N − N_g) aᵢ + Σ_{h≠g} α_h = Σⱼ Kᵢⱼ, α_h the sum of a in h.
    Summed over the unit they give (N − 2N_g) α_g + N_g α = the sum of the kernel over the unit's pairs.
    """
    n = counts.sum()
    of_units = np.stack([np.bincount(unit, row, len(counts)) for row in sums])
    free = (n - 2 * counts).astype(np.float64)
    if (half := np.flatnonzero(free == 0)).size:  # a unit with just half of the rows
        whole = of_units[:, half[0]] / counts[half[0]]
        free[half] = np.inf
    else:
        whole = (of_units / free).sum(1) / (1 + (counts / free).sum())
    of_parts = (of_units - counts * whole[:, None]) / free
    of_parts[:, half] = (whole - of_parts.sum(1))[:, None]
    weights = 1 / (n - counts)
    alone = (sums * weights[unit]) @ sums.T
    shared: Array = ((whole[:, None] - of_parts) * weights) @ of_units.T
    return 2 * (alone - shared)


def _of_means(sums: Array, unit: Numbers, counts: Numbers) -> Array:
    """The same over all pairs of rows, each with itself too: what the centring of a kernel takes out."""
    n, total = counts.sum(), sums.sum(1)
    found: Array = 2 * sums @ sums.T / n - np.outer(total, total) / n**2
    return found
