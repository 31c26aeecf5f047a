"""How well influence foretells what a model is like that was trained on other samples: the linear datamodeling score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tensorscope_nb.numerics.intervals import CERTAIN

Array = NDArray[np.floating]


@dataclass(frozen=True)
class DatamodelingScore:
    """The mean over test samples of their rank correlations over retrained models, and its interval; and each of them."""

    score: float
    low: float
    high: float
    each: Array


def datamodeling_score(influence: Array, subsets: NDArray[np.bool_], measured: Array, level: float = 0.95) -> DatamodelingScore:
    """The linear datamodeling score (Park et al. 2023, arXiv:2303.14186) of ``influence`` (samples, test samples).

    Of each test sample the Spearman correlation, over models that were each trained on one of ``subsets`` (subsets, samples),
    of the sum of the influences of the samples that are in it with ``measured`` (subsets, test samples): minus the loss there,
    or another number that is larger where the model does better. The score is their mean. Subsets must be of one size:
    otherwise a score measures that more samples are better.
    """
    influence, measured, chosen = (np.asarray(x, dtype=np.float64) for x in (influence, measured, subsets))
    if chosen.shape != (len(measured), len(influence)) or influence.shape[1:] != measured.shape[1:] or measured.ndim != 2:
        raise ValueError(
            f"influence is {influence.shape}, subsets {chosen.shape} and measured {measured.shape}: "
            "they are (samples, test samples), (subsets, samples) and (subsets, test samples)"
        )
    if len(set(chosen.sum(1).tolist())) > 1:
        raise ValueError("the subsets are of several sizes: give them one size, so that it is not their size that ranks them")
    return rank_agreement(chosen @ influence, measured, level)


def rank_agreement(predicted: Array, measured: Array, level: float = 0.95) -> DatamodelingScore:
    """The mean over columns of the Spearman correlations over rows of two tables (models, test samples), and its interval.

    It goes by the table of the jackknife's pseudo-values: all test samples are measured on the same models, so that they are
    no independent replicates. It is Student's with one degree of freedom less than the fewer of the two, on the scale of
    atanh; NaN below 3 models or 2 test samples, and for a score of ±1: nothing varies there, which with few models is luck.
    A test sample on which all models are alike has no correlation, and is left out.
    """
    from scipy.stats import t

    for name, values in (("predicted", predicted), ("measured", measured)):
        if not np.isfinite(values).all():
            raise ValueError(f"what is {name} holds what is no finite number: leave out the samples or models it comes from")
    pairs = [_correlations(a, b) for a, b in zip(predicted.T, measured.T, strict=True)]
    each, left_out = np.array([one for one, _ in pairs]), np.stack([without for _, without in pairs], 1)
    seen, m = np.isfinite(each), len(measured)
    n = int(seen.sum())
    if not n:
        return DatamodelingScore(np.nan, np.nan, np.nan, each)
    score = float(each[seen].mean())
    if m < 3 or n < 2 or abs(score) > CERTAIN:
        return DatamodelingScore(score, np.nan, np.nan, each)
    error = _error(m * each[seen] - (m - 1) * left_out[:, seen])
    half = t.ppf(0.5 + level / 2, min(m, n) - 1) * error / (1 - score**2)
    low, high = (float(np.tanh(np.arctanh(score) + sign * half)) for sign in (-1, 1))
    return DatamodelingScore(score, low, high, each)


def _error(table: Array) -> float:
    """The standard error of the mean of a crossed table: √(s_r² / m + s_c² / n − s_e² / (m n)), no less than √(s_e² / (m n))."""
    m, n = table.shape
    rows, columns = table.mean(1), table.mean(0)
    rest = table - rows[:, None] - columns + table.mean()
    noise = (rest**2).sum() / ((m - 1) * (n - 1)) / (m * n)
    return float(np.sqrt(max(rows.var(ddof=1) / m + columns.var(ddof=1) / n - noise, noise)))


def _correlations(a: Array, b: Array) -> tuple[float, Array]:
    """Spearman's of two series, and what it is without each of their places."""
    a, b = _ranks(a), _ranks(b)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return float(found[0]), found[1:]


def _ranks(values: Array) -> Array:
    """Less their mean: in row 0 of all, in row 1 + i without the i-th, which has 0 there.

    Without one that is smaller a rank is less by one, and without its equal, with which it shared a mean rank, by half.
    """
    from scipy.stats import rankdata

    n, ranks = len(values), rankdata(values)
    smaller = (values[:, None] < values) + 0.5 * (values[:, None] == values)
    without = ranks - smaller - n / 2
    np.fill_diagonal(without, 0)
    return np.concatenate([(ranks - (n + 1) / 2)[None], without])
