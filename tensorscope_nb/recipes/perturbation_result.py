"""What a perturbation found, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.numerics.crossed import crossed_ratio_interval
from tensorscope_nb.numerics.intervals import ratio_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit, sample_coords
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.recipes.perturbed import Perturbed

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples

Interval = tuple[float, float, float]
UNLIKE = 0.2  # relative difference of sizes, from which on a control is no control
NOTHING: Interval = (np.nan, np.nan, np.nan)


def result_of(perturbed: Perturbed, samples: Samples, ratios: Sequence[float], per_sample: bool) -> xr.Dataset:
    """The Dataset, of all or of what was come to."""
    scope, design = perturbed.scope, perturbed.design
    terms = perturbed.measured.weights.numpy()
    with np.errstate(invalid="ignore"):
        differences = perturbed.changed - perturbed.losses  # inf where broken, NaN where not done
    increase = differences @ terms / terms.sum()
    broken = np.isposinf(increase)
    baseline = float(perturbed.losses @ terms / terms.sum())
    predicted = perturbed.second_order if design.second_order else perturbed.first_order
    means, excesses, notes = _intervals(perturbed, differences, terms)
    unit, words, dims = loss_unit(scope), "increase of the loss", ("selection", "ratio")
    each = (*dims, "replicate")
    n_changed = perturbed.n_changed if np.isnan(perturbed.n_changed).any() else perturbed.n_changed.astype(int)
    variables: dict[str, Variable] = {
        "loss_increase_mean": (dims, means[..., 0], f"{words}, mean over replicates", unit),
        "ci_low": (dims, means[..., 1], f"{words}, lower end of the 95 % interval", unit),
        "ci_high": (dims, means[..., 2], f"{words}, upper end of the 95 % interval", unit),
        "predicted": (dims, _mean(predicted), f"{words} by the derivatives", unit),
        "loss_increase": (each, increase, words, unit),
        "n_changed": (each, n_changed, "weights whose stored value differs", "weights"),
        "first_order": (each, perturbed.first_order, f"{words} by the gradient", unit),
        "broken": (each, broken, "whether a loss was no finite number", ""),
        "weight_rms": (dims, np.sqrt(_mean(perturbed.squares)), "root mean square of the chosen weights", "weight"),
        "n_chosen": (("ratio",), list(design.counts), "weights chosen", "weights"),
        "baseline_loss": ((), baseline, "loss of the whole model", unit),
    }
    if design.second_order:
        variables["second_order"] = (each, perturbed.second_order, f"{words} by gradient and Hessian", unit)
    if scope.anatomy.task in ("causal", "masked") and scope.rule.custom is None:
        with np.errstate(over="ignore"):
            perplexity = np.exp(baseline + increase)
        variables["perplexity"] = (each, perplexity, "perplexity", "")
        variables["baseline_perplexity"] = ((), np.exp(baseline), "perplexity of the whole model", "")
    if design.controls:
        beside, of = ("control", "ratio"), f"{words}, of the top weights over the control"
        variables["excess"] = (beside, excesses[..., 0], of, unit)
        variables["excess_ci_low"] = (beside, excesses[..., 1], f"{of}, lower end of the 95 % interval", unit)
        variables["excess_ci_high"] = (beside, excesses[..., 2], f"{of}, upper end of the 95 % interval", unit)
    modules, counts = _by_module(perturbed)
    variables["n_weights"] = (("selection", "module"), counts, "weights chosen at the largest ratio", "weights")
    coords: dict[str, Any] = {"selection": design.selections, "ratio": ratios} | module_coords(scope, modules)
    coords |= {"control": list(design.controls)} if design.controls else {}
    if per_sample:
        by_sample = np.moveaxis(_mean(differences, axis=2), -1, 0)
        variables["loss_increase_by_sample"] = (("sample", *dims), by_sample, "increase of the sample's loss", unit)
        coords |= sample_coords(samples)
    said: dict[str, Any] = {
        "n_used": len(samples),
        "n_available": len(samples),
        "seed": design.seed,
        "n_tokens": int(terms.sum()),
    }
    said |= {"data": samples.fingerprint, "n_listed": len(design.never)}
    said |= {"metric": design.top.metric} if design.top.metric else {}
    if design.top.data == samples.fingerprint:
        notes.append("these are the samples that the list was ranked on, where the increase of top is flattered: take others")
    result = dataset(variables, coords, **said, notes=[*design.top.notes, *perturbed.notes, *notes])
    result["loss_increase_mean"].attrs["interval"] = (
        f"95 % Student interval over {len(samples)} samples, and where replicates differ over these as well"
    )
    return result


def _intervals(perturbed: Perturbed, differences: np.ndarray, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(selection, ratio, 3) and (control, ratio, 3): means and the ends of their intervals; and what they lack, in words."""
    design, notes = perturbed.design, []
    sums = np.swapaxes(differences * terms, -1, -2)  # (selection, ratio, sample, replicate)
    done = ~np.isnan(perturbed.n_changed)
    n_ratios = len(design.counts)
    means = np.array([[NOTHING] * n_ratios] * len(design.selections))
    excesses = np.array([[NOTHING] * n_ratios] * len(design.controls)).reshape(-1, n_ratios, 3)
    varies = [design.varies(selection) for selection in design.selections]
    for r in range(n_ratios):
        for s in range(len(design.selections)):
            means[s, r] = _interval(sums[s, r][:, done[s, r]], terms, varies[s])
            if s:
                both = done[0, r] & done[s, r]
                with np.errstate(invalid="ignore"):
                    paired = sums[0, r][:, both] - sums[s, r][:, both]
                excesses[s - 1, r] = _interval(paired, terms, varies[0] or varies[s])
    if np.isinf(differences).any():
        notes.append("where a model is broken (its loss no finite number) the increase is inf, and there is no interval")
    if (done.sum(-1)[varies] == 1).any():
        more = ", raise n_seeds=" if design.n_seeds == 1 else ""
        notes.append(f"one replicate does not say how others differ: no interval where they do{more}")
    if len(terms) == 1:
        notes.append("one sample does not say how others differ: no intervals")
    unchanged = np.nansum(np.asarray(design.counts)[:, None] - perturbed.n_changed, axis=(1, 2))
    for selection, n in zip(design.selections, unchanged, strict=True):
        if n:
            notes.append(f"some of the weights of {selection} hold the same value after the change: see n_changed")
    notes += _unlike(perturbed)
    predicted = perturbed.second_order if design.second_order else perturbed.first_order
    if perturbed.predicts and np.isnan(predicted[done]).any():
        notes.append("where a weight became infinite, no number, or too large for the Hessian nothing is predicted")
    return means, excesses, notes


def _unlike(perturbed: Perturbed) -> list[str]:
    """A note where the random weights are of another size than those that they should match."""
    design = perturbed.design
    if "random" not in design.controls:
        return []
    rms = np.sqrt(_mean(perturbed.squares))
    top, random = rms[0], rms[design.selections.index("random")]
    with np.errstate(invalid="ignore", divide="ignore"):
        worst = int(np.nanargmax(np.abs(np.log(random / top)))) if np.isfinite(random / top).any() else 0
    if not abs(random[worst] - top[worst]) > UNLIKE * top[worst]:
        return []
    return [
        f"the random weights are of another size than the list's ({random[worst]:.3g} and {top[worst]:.3g}, root mean square): "
        "it holds weights that have no match"
    ]


def _interval(sums: np.ndarray, terms: np.ndarray, varies: bool) -> Interval:
    """Of sums (sample, replicate)."""
    if not sums.shape[1]:
        return NOTHING
    if not np.isfinite(sums).all():
        with np.errstate(invalid="ignore"):
            return float(sums.sum() / terms.sum() / sums.shape[1]), np.nan, np.nan
    return crossed_ratio_interval(sums, terms) if varies else ratio_interval(sums[:, 0], terms)


def _mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Over the replicates that are done; NaN where none is."""
    done = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.where(done, values, 0).sum(axis) / done.sum(axis)
    return mean


def _by_module(perturbed: Perturbed) -> tuple[list[str], np.ndarray]:
    """The modules, and of each selection how many of the weights chosen at the largest ratio are in each."""
    design = perturbed.design
    of = {key: each.modules[: max(design.counts)] for key, each in perturbed.members.items()}
    modules = [path for path, _ in perturbed.scope.model.named_modules() if any(path in each for each in of.values())]
    counts = np.array(
        [
            [np.mean([of[selection, i].count(path) for i in range(design.n_seeds)]) for path in modules]
            for selection in design.selections
        ]
    )
    return modules, counts
