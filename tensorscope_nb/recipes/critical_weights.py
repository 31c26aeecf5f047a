"""Critical weights: which single weights of a model its loss depends on most, and how sure that ranking is."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.numerics.halves import halves_interval
from tensorscope_nb.recipes.critical_lists import Lists, largest_of, smallest_beside
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit, sample_coords
from tensorscope_nb.recipes.groups import ByModule
from tensorscope_nb.recipes.modules import block_of, layer_of, module_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.sensitivity import METRICS, SCORES, Metric, Sensitivity, sensitivity
from tensorscope_nb.scope.flat import starts_of
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.measure import Elementwise
from tensorscope_nb.sweep.reducers import Masses

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

WORDS = {
    "grad_x_weight": "|gradient × weight|",
    "grad_squared": "diagonal of the empirical Fisher",
    "hessian_diag": "diagonal of the Hessian",
    "magnitude": "|weight|",
}


@recipe(
    question="Which single weights does the loss depend on most?",
    source="Molchanov et al. 2019, arXiv:1906.10771; LeCun et al. 1990",
    needs=("gradients", "weights"),
)
def critical_weights(
    scope: Scope,
    samples: Any,
    *,
    metric: Metric = "grad_x_weight",
    top: int = 100,
    per_layer: bool = False,
    intervals: bool | None = None,
    n_probes: int = 32,
    per_sample: bool = False,
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The ``top`` weights of the whole model, or of each layer, by a measure of how much the loss depends on each.

    What it answers: where the weights sit whose removal the measure says would change the loss most. It is a claim;
    ``perturbation`` tests it.
    Equation: L = Σ_i ℓ_i^sum / Σ_i n_i, the loss per predicted token (of a classifier the mean over samples), g = ∇L.
    ``metric="grad_x_weight"``: |g_k w_k|, to first order what setting w_k to zero changes. ``"grad_squared"``: F_kk =
    Σ_i (∂ℓ_i^sum/∂w_k)² / Σ_i n_i, the diagonal of the empirical Fisher, and never the square of g. ``"hessian_diag"``: H_kk of
    L, the mean of z ∘ Hz over ``n_probes`` vectors of random signs (Hutchinson), in which H_kk stands with the error √(Σ_{j≠k}
    H_kj² / n_probes); it has a sign, and the largest come first. ``"magnitude"``: |w_k|, which takes no notice of the
    samples. Source: Molchanov et al. 2019 (grad × weight); LeCun et al. 1990 (second order); Hutchinson 1990.

    Result: ``[weight] sensitivity, sensitivity_ci_low, sensitivity_ci_high, stability`` (in which share of the halves below it
    is listed too), ``value, parameter_name, index`` (in the parameter, row by row), ``rank`` (from 1; in each layer anew),
    ``predicted_increase`` (what the metric says that the loss increases by when this weight alone is set to zero: −g_k w_k,
    ½ F_kk w_k², ½ H_kk w_k²; magnitude says nothing); coordinates ``module_path, module_layer`` (−1 outside the layers),
    ``module_block, parameter`` (see ``ts.unflatten``). ``[bottom_weight] bottom_parameter_name,
    bottom_module_path, bottom_index, bottom_value, bottom_sensitivity``: the least sensitive weights, as many in each layer
    as are listed of it. ``[module] n_critical, total`` (sensitivity, summed over its weights), ``n_parameters, enrichment``
    (n_critical over what as many weights at random would give), each of the first two and the last with ``_ci_low`` and
    ``_ci_high``. With ``per_layer`` the weights outside the layers do not take part. With ``per_sample`` also ``[sample,
    module] total_by_sample``, what each sample alone would give (of grad_x_weight and grad_squared).
    How sure: the samples (of hessian_diag: the probes) are dealt into 8 groups at random (4 or 2 where there are fewer), and
    ranked anew on each half of 7 balanced splits; intervals are 95 % Student intervals over the splits, of what as many samples
    find on average (of hessian_diag: as many probes of these samples). They take a gradient's memory for each group: where these
    are more than the memory option they are left out (NaN, and the notes say so); ``intervals=True`` makes that an error, and
    ``intervals=False`` leaves them out. In simulations they held their value in .91 to .99 of cases; in fewer where samples
    differ by orders of magnitude (lognormal, σ 1.5: a sum of squares in .77 of cases with 16 samples, .85 with 64), and of
    counts below about 3 (.7 to .9; 0 with an interval of 0 says only that no half had one in its list).
    Errors: ValueError for more weights than there are, or an unknown metric; UnsupportedModel where the loss is missing.
    Cost: one forward and one backward, and a pass through the weights (of hessian_diag: two forwards and backwards for each
    probe); the ranking holds no array of the size of the model.
    How to read it: look at ``stability`` before at single weights; it flatters, since a half is part of the samples (at .56 and
    .85 the lists of two sets of samples shared .34 and .80). When not to trust it: each measure is of one weight alone and of a
    small change, and removing is a large one; a highest of many noisy numbers is too high, and more so with few samples;
    ``total`` of grad_x_weight adds up noise: of weights whose gradients are as large as their errors it is 1.4 times too high
    whatever its interval says, of smaller ones more; embeddings of the tokens that the samples repeat come first because the
    samples repeat them.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> critical = ts.recipes.critical_weights(scope, ts.datasets.shakespeare(scope, n=16), top=50)
    >>> critical.sizes["weight"], int(critical["n_critical"].sum())
    (50, 50)
    >>> str(critical["n_critical"].idxmax().item())
    'transformer.wte'
    """
    samples = scope.samples(samples)
    _check(metric, top, n_probes, per_sample, intervals)
    seed = current().seed if seed is None else seed
    alone = None
    if per_sample:
        alone = Masses(ByModule(scope, "total" if metric == "grad_squared" else Elementwise(SCORES[metric], "sample")))
    found = yield from sensitivity(
        scope, samples, metric, intervals=intervals, n_probes=n_probes, seed=seed, modules=modules, chunk=chunk,
        progress=progress, alone=alone,
    )  # fmt: skip
    layers = {name: layer_of(scope, name.rpartition(".")[0]) for name in found.sizes}

    def list_of(name: str) -> Hashable | None:
        if per_layer:
            return layers[name] if layers[name] >= 0 else None
        return 0

    _check_enough(found, top, list_of)
    lists = largest_of(found, top, list_of)
    variables, coords = _of_weights(scope, found, lists, layers, metric)
    of_modules, more = _of_modules(scope, found, lists, list_of, metric)
    variables |= of_modules
    coords |= more
    if alone is not None:
        by_sample, of_samples = _by_sample(scope, samples[: found.n_used], more["module"], alone, metric)
        variables |= by_sample
        coords |= of_samples
    said = {**found.said, "n_used": found.n_used, "n_available": len(samples), "n_splits": found.n_splits}
    said |= {"seed": seed, "metric": metric, "n_weights": sum(found.sizes[name] for name in lists.names)}
    said["parameters"] = [[name, list(found.parameters[name].shape)] for name in lists.names]
    if metric != "magnitude":
        done = samples[: found.n_used]
        said |= {"n_tokens": int(scope.rule.n_terms(scope.rule.prepared(done)).sum()), "data": done.fingerprint}
    if not found.n_splits and intervals is not False:
        said["notes"] = [*said.get("notes", []), f"there are no intervals: {found.why_whole}"]
    result = dataset(variables, coords, **said)
    for name in ("sensitivity", "total", "n_critical", "enrichment"):
        result[name].attrs["interval"] = f"95 % Student interval over {found.n_splits} balanced splits into halves"
    return result


def _check(metric: str, top: Any, n_probes: Any, per_sample: bool, intervals: Any) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: choose among {', '.join(METRICS)}")
    for name, value in (("top", top), ("n_probes", n_probes)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1 on")
    if intervals not in (None, True, False):
        raise ValueError(f"intervals is {intervals!r}: give True, False, or None, which makes them where the memory allows")
    if per_sample and metric in ("hessian_diag", "magnitude"):
        raise ValueError(f"per_sample=True and metric is {metric!r}: it is for grad_x_weight and grad_squared")


def _check_enough(found: Sensitivity, top: int, list_of: Any) -> None:
    sizes: dict[Hashable, int] = {}
    for name, size in found.sizes.items():
        if (key := list_of(name)) is not None:
            sizes[key] = sizes.get(key, 0) + size
    if not sizes:
        raise LookupError("per_layer=True and no chosen weight stands in a layer: choose other modules=, or rank all together")
    key, least = min(sizes.items(), key=lambda item: item[1])
    if top > least:
        where = f"layer {key} has" if len(sizes) > 1 else "there are"
        raise ValueError(f"top is {top} and {where} {least:,} weights: ask for fewer")


def _of_weights(
    scope: Scope, found: Sensitivity, lists: Lists, layers: dict[str, int], metric: Metric
) -> tuple[dict[str, Variable], dict[str, Any]]:
    owners, places = (np.concatenate(parts) for parts in zip(*lists.best.values(), strict=True))
    low_owners, low_places = smallest_beside(found, lists, lambda name: layers[name])
    top, bottom = _Chosen(found, lists.names, owners, places), _Chosen(found, lists.names, low_owners, low_places)
    _, low, high = _interval(top.scores, metric)
    stable = np.concatenate(list(lists.stability.values()))
    rank = np.concatenate([np.arange(1, len(places) + 1) for places, _ in lists.best.values()])
    dims, words, unit = ("weight",), WORDS[metric], loss_unit(scope)
    variables: dict[str, Variable] = {
        "sensitivity": (dims, top.scores[0], words, ""),
        "sensitivity_ci_low": (dims, low, f"{words}, lower end of the 95 % interval", ""),
        "sensitivity_ci_high": (dims, high, f"{words}, upper end of the 95 % interval", ""),
        "stability": (dims, stable, "share of the halves of the data that list the weight too", ""),
        "value": (dims, top.values, "weight", ""),
        "parameter_name": (dims, top.parameters, "parameter", ""),
        "index": (dims, places, "index", ""),
        "rank": (dims, rank, "rank", ""),
    }
    if top.increases is not None:
        variables["predicted_increase"] = (dims, top.increases, "predicted increase of the loss without the weight", unit)
    dims = ("bottom_weight",)
    variables |= {
        "bottom_sensitivity": (dims, bottom.scores[0], f"{words} of the least sensitive weights", ""),
        "bottom_value": (dims, bottom.values, "weight", ""),
        "bottom_parameter_name": (dims, bottom.parameters, "parameter", ""),
        "bottom_module_path": (dims, bottom.modules, "module", ""),
        "bottom_index": (dims, low_places, "index", ""),
    }
    sizes = {name: p.nelement() for name, p in scope.model.named_parameters()}
    starts = dict(zip(sizes, starts_of(sizes.values()), strict=True))
    coords = {
        "weight": np.arange(len(places)),
        "bottom_weight": np.arange(len(low_places)),
        "parameter": ("weight", np.array([starts[name] for name in top.parameters]) + places),
        "module_path": ("weight", top.modules),
        "module_layer": ("weight", np.array([layers[name] for name in top.parameters])),
        "module_block": ("weight", np.array([block_of(scope, module) for module in top.modules], dtype=object)),
    }
    return variables, coords


def _interval(scores: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Only curvature can be negative."""
    value, low, high = halves_interval(scores)
    return value, low if metric == "hessian_diag" else np.maximum(low, 0), high


class _Chosen:
    """What is known of some weights."""

    def __init__(self, found: Sensitivity, names: list[str], owners: np.ndarray, places: np.ndarray) -> None:
        self.parameters = np.array([names[i] for i in owners], dtype=object)
        self.modules = np.array([name.rpartition(".")[0] for name in self.parameters], dtype=object)
        self.values = np.zeros(len(places))
        self.scores = np.zeros((len(found.mixing), len(places)))
        self.increases: np.ndarray | None = None
        for i in np.unique(owners):
            rows = np.flatnonzero(owners == i)
            at = torch.as_tensor(places[rows], device=found.parameters[names[i]].device)
            self.values[rows] = found.parameters[names[i]].reshape(-1)[at].double().cpu().numpy()
            self.scores[:, rows] = found.scores(names[i], at).double().cpu().numpy()
            if (increases := found.increases(names[i], at)) is not None:
                self.increases = np.zeros(len(places)) if self.increases is None else self.increases
                self.increases[rows] = increases[0].double().cpu().numpy()


def _of_modules(
    scope: Scope, found: Sensitivity, lists: Lists, list_of: Any, metric: Metric
) -> tuple[dict[str, Variable], dict[str, Any]]:
    owners = [name.rpartition(".")[0] for name in lists.names]
    modules = list(dict.fromkeys(owners))
    belongs = np.array([[owner == module for owner in owners] for module in modules]).T.astype(float)  # (parameters, modules)
    sizes = np.array([found.sizes[name] for name in lists.names])
    keys = [list_of(name) for name in lists.names]
    listed = {key: len(places) for key, (places, _) in lists.best.items()}
    chance = np.array([size * listed[key] for size, key in zip(sizes, keys, strict=True)], dtype=float)
    chance /= [sum(size for size, other in zip(sizes, keys, strict=True) if other == key) for key in keys]
    expected = chance @ belongs
    most = np.minimum(sizes, [listed[key] for key in keys]) @ belongs
    counts, totals = lists.counts @ belongs, lists.totals @ belongs
    count, count_low, count_high = (np.clip(x, 0, most) for x in halves_interval(counts))
    total, total_low, total_high = _interval(totals, metric)
    dims, of, end = ("module",), f"{WORDS[metric]}, summed over its weights", "end of the 95 % interval"
    n, more = "critical weights", "critical weights, as a multiple of what chance gives"
    variables: dict[str, Variable] = {
        "enrichment": (dims, count / expected, more, "×"),
        "enrichment_ci_low": (dims, count_low / expected, f"{more}, lower {end}", "×"),
        "enrichment_ci_high": (dims, count_high / expected, f"{more}, upper {end}", "×"),
        "n_critical": (dims, count.astype(int), n, "weights"),
        "n_critical_ci_low": (dims, count_low, f"{n}, lower {end}", "weights"),
        "n_critical_ci_high": (dims, count_high, f"{n}, upper {end}", "weights"),
        "total": (dims, total, of, ""),
        "total_ci_low": (dims, total_low, f"{of}, lower {end}", ""),
        "total_ci_high": (dims, total_high, f"{of}, upper {end}", ""),
        "n_parameters": (dims, sizes @ belongs.astype(int), "weights", "weights"),
    }
    # module_layer stands on ``weight`` here
    names = {"module": "module", "module_layer": "in_layer", "module_block": "in_block"}
    return variables, {names[name]: values for name, values in module_coords(scope, modules).items()}


def _by_sample(
    scope: Scope, done: Samples, modules: np.ndarray, alone: Masses, metric: Metric
) -> tuple[dict[str, Variable], dict[str, Any]]:
    terms = scope.rule.n_terms(scope.rule.prepared(done)).double().numpy()
    each = np.stack([alone.values[name][: len(done)].numpy() for name in modules], 1) / terms[:, None]
    words = f"{WORDS[metric]} of the sample alone, summed over weights"
    return {"total_by_sample": (("sample", "module"), each, words, "")}, sample_coords(done)
