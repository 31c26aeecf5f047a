"""What a validation of metrics found: by module, by metric, and by pair of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorscope_nb.numerics.agreement import chance, jaccard, overlap_p
from tensorscope_nb.numerics.crossed import crossed_ratio_interval
from tensorscope_nb.numerics.intervals import ratio_interval
from tensorscope_nb.numerics.predictive import predictive, rank_correlation
from tensorscope_nb.recipes.dataset import Variable, loss_unit
from tensorscope_nb.recipes.emptied import Emptied
from tensorscope_nb.recipes.modules import block_of

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Scores = Mapping[tuple, tuple[float, np.ndarray]]  # by metric and module: Σ of the metric, and what it predicts
KINDS = ("matrix", "norm")


def kind_of(scope: Scope, module: str) -> str:
    """Norms are few weights near 1, on which much hangs; all else is matrices."""
    return "norm" if block_of(scope, module) == "norm" else "matrix"


def of_modules(
    scope: Scope, emptied: Emptied, names: Sequence[str], modules: Sequence[str], scores: Scores, n_seeds: int
) -> dict[str, Variable]:
    terms = emptied.objective.weights.numpy()

    def interval(differences: np.ndarray) -> tuple[float, float, float]:
        """Of (samples,), or (samples, draws)."""
        sums = differences * (terms if differences.ndim == 1 else terms[:, None])
        if not np.isfinite(sums).all():
            return float(sums.sum() / terms.sum() / (sums.size / len(terms))), np.nan, np.nan
        return ratio_interval(sums, terms) if sums.ndim == 1 else crossed_ratio_interval(sums, terms)

    measured = np.array([[interval(emptied.increases((metric, module))) for module in modules] for metric in names])
    draws = [np.stack([emptied.increases(("random", module, i)) for i in range(n_seeds)], 1) for module in modules]
    random = np.array([interval(each) for each in draws])
    score = np.array([[(scores[metric, module][0], scores[metric, module][1][0]) for module in modules] for metric in names])
    n_changed = [[emptied.n_changed[metric, module] for module in modules] for metric in names]
    chosen = [sum(len(index) for _, index in emptied.sets[names[0], module]) for module in modules]
    unit, words, end = loss_unit(scope), "increase of the loss", "end of the 95 % interval"
    dims = ("metric", "module")
    return {
        "measured": (dims, measured[..., 0], f"measured {words}", unit),
        "ci_low": (dims, measured[..., 1], f"measured {words}, lower {end}", unit),
        "ci_high": (dims, measured[..., 2], f"measured {words}, upper {end}", unit),
        "predicted": (dims, score[..., 1], f"predicted {words}", unit),
        "sensitivity": (dims, score[..., 0], "sum of the metric over the weights", ""),
        "n_changed": (dims, n_changed, "weights whose stored value differs", "weights"),
        "random": (("module",), random[:, 0], f"{words} without as many at random", unit),
        "random_ci_low": (("module",), random[:, 1], f"{words} without as many at random, lower {end}", unit),
        "random_ci_high": (("module",), random[:, 2], f"{words} without as many at random, upper {end}", unit),
        "n_chosen": (("module",), chosen, "weights set to zero", "weights"),
        "baseline_loss": ((), float(emptied.losses @ terms / terms.sum()), "loss of the whole model", unit),
    }


def of_metrics(
    scope: Scope,
    emptied: Emptied,
    names: Sequence[str],
    modules: Sequence[str],
    scores: Scores,
    stability: list[float],
    seed: int,
) -> dict[str, Variable]:
    """How well each metric foretells: over all modules, and over those of one kind, since kinds differ in everything."""
    terms = emptied.objective.weights.numpy()
    found, within = [], []
    of_kind = [np.array([kind_of(scope, module) == kind for module in modules]) for kind in KINDS]
    for metric in names:
        sums = np.array([emptied.increases((metric, module)) * terms for module in modules])
        score = np.array([scores[metric, module][0] for module in modules])
        predicted = np.array([scores[metric, module][1] for module in modules]).T
        agreement = predictive(predicted, sums, terms, seed)
        increase = sums.sum(1)
        found.append((*agreement, rank_correlation(score, np.abs(increase))))
        within.append(
            [
                (rank_correlation(predicted[0][own], increase[own]), rank_correlation(score[own], np.abs(increase[own])))
                for own in of_kind
            ]
        )
    columns, by_kind = np.array(found).T, np.array(within)
    dims, words, end = ("metric",), "rank correlation of predicted with measured", "end of the 95 % interval"
    return {
        "spearman": (dims, columns[0], words, ""),
        "spearman_ci_low": (dims, columns[1], f"{words}, lower {end}", ""),
        "spearman_ci_high": (dims, columns[2], f"{words}, upper {end}", ""),
        "ceiling": (dims, columns[3], f"{words} that a perfect prediction would have", ""),
        "p_value": (dims, columns[4], "p of a correlation as high with modules in any order", ""),
        "spearman_sensitivity": (dims, columns[5], "rank correlation of the metric with the size of what is measured", ""),
        "spearman_within": (("metric", "kind"), by_kind[..., 0], f"{words}, over modules of a kind", ""),
        "spearman_sensitivity_within": (("metric", "kind"), by_kind[..., 1], "the same of the size, over modules of a kind", ""),
        "n_modules": (("kind",), [int(own.sum()) for own in of_kind], "modules", "modules"),
        "stability": (dims, stability, "share of the list that halves of the calibration samples list too", ""),
    }


def of_pairs(names: Sequence[str], listed: dict[str, set], n: int, k: int) -> dict[str, Variable]:
    dims = ("metric_a", "metric_b")
    index = [[jaccard(listed[a], listed[b]) for b in names] for a in names]
    p = [[overlap_p(n, k, len(listed[a] & listed[b])) if a != b else np.nan for b in names] for a in names]
    return {
        "jaccard": (dims, index, f"Jaccard index of the lists of {k} weights", ""),
        "chance": (dims, np.full((len(names),) * 2, chance(n, k)), "Jaccard index of two random lists, expected", ""),
        "overlap_p_value": (dims, p, "p of as many in common, of random lists", ""),
    }
