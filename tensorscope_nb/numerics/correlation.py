"""Correlations over the parts of one model, whose neighbours are alike: what is partialled out, and how many points count.

Values stand in tables whose last axes are layers, heads, kinds of module; the axes before them are separate problems. A NaN
marks a place that is left out, and stands in both variables and in every problem at the same places. Sizes and powers are
simulated in tests/numerics/test_correlation.py: with ``ranks`` alone, as heavy tails make p values of values too small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

LEAST_LAYERS = 8  # of a series, which gives a quadratic and an autocorrelation
LEAST_KINDS = 4  # of module, which stand in for one another
LEAST_N_EFF = 3.0  # one degree of freedom
ROUNDING, LOST = 1e-12, 1e-9  # of the largest value: what a mean leaves of a constant, what a fit leaves of a fitted curve


@dataclass(frozen=True)
class Correlation:
    """``rho`` of all places as they are; ``partial``, of what is left of them; the independent places it stands for; its p."""

    rho: Array
    partial: Array
    n_eff: Array
    p: Array


def along_depth(a: Array, b: Array, depth: Array | None = None, *, ranks: bool = True) -> Correlation:
    """Two series (…, layer): r of the residuals of a quadratic in depth, with n_eff by their lag-1 autocorrelations.

    n_eff = L (1 − αβ) / (1 + αβ) − 2 with α, β = r₁ + 1.5 (1 + 4 r₁) / L of the two, clipped to [0, .99]; t with n_eff − 2
    degrees of freedom. Below 8 layers there is rho alone.
    """
    a, b = (_prepared(x, 1, ranks) for x in (a, b))
    rho, n = _r(a, b, 1), a.shape[-1]
    if n < LEAST_LAYERS:
        return _undecided(rho)
    at = np.arange(n) if depth is None else np.asarray(depth)
    x = (at - at.mean()) / np.ptp(at)
    a, b = (_residuals(y, np.stack([np.ones(n), x, x**2], -1))[0] for y in (a, b))
    product = _lag_1(a) * _lag_1(b)
    return _tested(rho, _r(a, b, 1), n * (1 - product) / (1 + product) - 2)


def within_layers(a: Array, b: Array, *, ranks: bool = True) -> Correlation:
    """Two tables (…, layer, head): r of the deviations from each layer's mean, of ranks over all heads.

    V = Σ_l A_l B_l / (H_l − 1) / (Σ A_l Σ B_l), with A_l and B_l the sums of squares of a layer, is exactly the variance of r
    when heads are exchanged at random within their layers. Heads that share keys and values are alike, so γ ≤ 1 is the smaller
    of (1 − αβ) / (1 + αβ), by the lag-1 autocorrelations over head numbers, and of the expected over the found sum of
    ⟨a_l, b_m⟩² over pairs of layers l ≠ m. n_eff = γ / V + 1; t with n_eff − 2 degrees of freedom. Where layers spread alike
    and nothing is shared this is the usual partial correlation, with n − L − 1.
    """
    a, b = (_prepared(x, 2, ranks) for x in (a, b))
    rho, seen = _r(a, b, 2), np.isfinite(a)
    heads = seen.sum(-1)
    others = np.maximum(heads - 1, 1)
    a, b = (_kept(np.where(seen, x - _mean(x, -1), 0), x, 2, LOST) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        s_a, s_b = (a**2).sum(-1), (b**2).sum(-1)
        variance = (s_a * s_b / others).sum(-1) / (s_a.sum(-1) * s_b.sum(-1))
        product = _neighbours(a, heads) * _neighbours(b, heads)
        alike = (1 - product) / (1 + product)
        found = _apart(np.einsum("...lh,...mh->...lm", a, b) ** 2)
        expected = _apart(s_a[..., :, None] * s_b[..., None, :] / others[..., None])
        return _tested(rho, _r(a, b, 2), np.fmin(alike, expected / found) / variance + 1)


def within_kinds(a: Array, b: Array, size: Array | None = None, *, ranks: bool = True) -> Correlation:
    """Two tables (…, kind of module, layer): r of what is left of each kind's series without its own quadratic in depth,
    without what all kinds of a layer have in common, and without ``size`` where that varies within kinds.

    Values are ranked (or scaled) within their kind, or the kinds would make all of it: norms against matrices. Modules of one
    kind in successive layers are alike, and so are some kinds in one layer. With A and B the residuals, n₀ their degrees of
    freedom and S = ‖A‖² ‖B‖²: n_eff = γ δ n₀ + 1, where γ ≤ 1 is S (K − 1) / (n₀ ‖A Bᵀ‖²), by the spread of r when the kinds
    exchange their whole profiles along depth, and δ ≤ 1 is S (L − 1) / (n₀ ‖Aᵀ B‖²), when the layers exchange theirs; t with
    n_eff − 2 degrees of freedom. Below 8 layers or 4 kinds there is rho alone, which is of all modules as they are.
    """
    rho = _r(_prepared(a, 2, ranks), _prepared(b, 2, ranks), 2)
    seen = np.isfinite(a).reshape(-1, *np.shape(a)[-2:])[0]
    kind, layer = np.nonzero(seen)
    kinds, layers = np.unique(kind), np.unique(layer)
    if len(layers) < LEAST_LAYERS or len(kinds) < LEAST_KINDS:
        return _undecided(rho)
    x = (layer - layer.mean()) / np.ptp(layer)
    of_kind = (kind[:, None] == kinds).astype(float)
    design = [of_kind, of_kind * x[:, None], of_kind * x[:, None] ** 2, (layer[:, None] == layers).astype(float)]
    if size is not None:
        design.append(size[seen][:, None] - size[seen].mean())
    tables = []
    for values in (a, b):
        table = np.zeros(np.shape(values))
        table[..., seen], left = _residuals(_of_each_kind(values, ranks)[..., seen], np.concatenate(design, 1))
        tables.append(table)
    a, b = tables
    with np.errstate(invalid="ignore", divide="ignore"):
        both = (a**2).sum((-1, -2)) * (b**2).sum((-1, -2)) / left
        by_kind = (np.einsum("...kl,...ml->...km", a, b) ** 2).sum((-1, -2)) / (len(kinds) - 1)
        by_layer = (np.einsum("...kl,...km->...lm", a, b) ** 2).sum((-1, -2)) / (len(layers) - 1)
        n_eff = np.minimum(1, both / by_kind) * np.minimum(1, both / by_layer) * left + 1
    return _tested(rho, _r(a, b, 2), n_eff)


def majority_p(p: Array) -> float:
    """One p value of M, whatever their dependence: M / k times the k-th smallest, k more than half of them (Rüger 1978).

    One that is missing counts as 1; where all are, the answer is NaN.
    """
    p = np.asarray(p, dtype=float)
    k = len(p) // 2 + 1
    return float("nan") if np.isnan(p).all() else float(min(1.0, np.sort(np.nan_to_num(p, nan=1.0))[k - 1] * len(p) / k))


def _ranked(values: Array) -> Array:
    """Along the last axis; equal values share their mean rank, NaN stays."""
    from scipy.stats import rankdata

    return rankdata(values, axis=-1, nan_policy="omit" if np.isnan(values).any() else "propagate")


def _prepared(values: Array, n_axes: int, ranks: bool) -> Array:
    """Ranks or values over the last axes together, less their mean."""
    values = np.asarray(values, dtype=float)
    flat = values.reshape(*values.shape[: values.ndim - n_axes], -1)
    flat = _ranked(flat) if ranks else flat
    return _kept(flat - _mean(flat, -1), flat, 1, ROUNDING).reshape(values.shape)


def _of_each_kind(values: Array, ranks: bool) -> Array:
    """Ranks within the last axis, or values less their mean over their standard deviation."""
    centred = _prepared(values, 1, ranks)
    if ranks:
        return centred
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = centred / np.sqrt(_mean(centred**2, -1))
    return np.where(np.isnan(scaled) & np.isfinite(centred), 0, scaled)


def _mean(values: Array, axis: int) -> Array:
    """Of what is there."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(values, axis, keepdims=True) / np.isfinite(values).sum(axis, keepdims=True)


def _kept(residuals: Array, values: Array, n_axes: int, least: float) -> Array:
    """The residuals, or zeros where all of a problem are rounding beside its values."""
    axes = tuple(range(-n_axes, 0))
    largest: Callable[[Array], Array] = lambda x: np.max(np.abs(np.nan_to_num(x)), axis=axes, keepdims=True, initial=0)
    return np.where(largest(residuals) > least * largest(values), residuals, residuals * 0)


def _residuals(values: Array, design: Array) -> tuple[Array, int]:
    """What least squares on ``design`` leaves along the last axis, and its degrees of freedom."""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    u = u[:, s > 1e-10 * s[0]]
    return _kept(values - (values @ u) @ u.T, values, 1, LOST), len(design) - u.shape[1]


def _r(x: Array, y: Array, n_axes: int) -> Array:
    axes = tuple(range(-n_axes, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.nansum(x * y, axes) / np.sqrt(np.nansum(x**2, axes) * np.nansum(y**2, axes)), -1, 1)


def _apart(pairs: Array) -> Array:
    """The sum over the pairs of two different ones."""
    return pairs.sum((-1, -2)) - np.einsum("...ll->...", pairs)


def _lag_1(series: Array) -> Array:
    """Corrected for the quadratic that was taken from so short a series, and within [0, .99]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (series[..., 1:] * series[..., :-1]).sum(-1) / (series**2).sum(-1)
    return np.clip(r + 1.5 * (1 + 4 * r) / series.shape[-1], 0, 0.99)


def _neighbours(deviations: Array, heads: Array) -> Array:
    """The lag-1 autocorrelation over head numbers, pooled over layers, corrected for the layers' means; within [0, .99]."""
    h = heads.max(-1)
    r = (deviations[..., 1:] * deviations[..., :-1]).sum((-1, -2)) / (deviations**2).sum((-1, -2))
    return np.clip((r + 1 / h) * h / np.maximum(h - 1, 1), 0, 0.99)


def _undecided(rho: Array) -> Correlation:
    return Correlation(rho, *np.full((3, *np.shape(rho)), np.nan))


def _tested(rho: Array, partial: Array, n_eff: Array) -> Correlation:
    from scipy.stats import t

    n_eff = np.where(np.isfinite(partial), n_eff, np.nan)
    df = np.where(n_eff >= LEAST_N_EFF, n_eff - 2, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * t.sf(np.abs(partial) * np.sqrt(df / (1 - partial**2)), df)
    return Correlation(rho, partial, n_eff, p)
