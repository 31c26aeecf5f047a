"""Whether measures of sensitivity predict what happens: ranked on some samples, tried on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.numerics.predictive import LEAST
from tensorscope_nb.recipes.critical_lists import Lists, largest_of
from tensorscope_nb.recipes.dataset import dataset, loss_unit, sample_coords
from tensorscope_nb.recipes.emptied import Emptied, Weights
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.sensitivity import METRICS, Metric, Sensitivity, sensitivity
from tensorscope_nb.recipes.training import generator
from tensorscope_nb.recipes.validation_result import KINDS, of_metrics, of_modules, of_pairs
from tensorscope_nb.scope.flat import placed, starts_of
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


@recipe(
    question="Do measures of sensitivity predict what removing weights does?",
    source="Molchanov et al. 2019, arXiv:1906.10771; the protocol is of no paper",
    needs=("gradients", "weights", "losses"),
)
def validate_sensitivity(
    scope: Scope,
    calibration: Any,
    evaluation: Any,
    *,
    metrics: Sequence[Metric] = METRICS,
    per_module: int = 20,
    top: int = 100,
    n_seeds: int = 3,
    n_probes: int = 32,
    per_sample: bool = False,
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """In each module the weights that a metric ranks highest are set to zero together, and the loss is measured.

    What it answers: whether a metric says where removing hurts, and whether two metrics name the same weights.
    Equation: ranked on ``calibration`` as in ``critical_weights``; S the first ``per_module`` weights of a module (all where it
    has fewer). measured = L(w_S = 0) − L(w) on ``evaluation``, the loss per predicted token. predicted, from the calibration
    alone: of grad_x_weight −Σ_S g_k w_k, of grad_squared ½ Σ_S F_kk w_k², of hessian_diag ½ Σ_S H_kk w_k²; magnitude predicts
    nothing in nats, and Σ_S |w_k| stands there. ``spearman`` is the rank correlation of predicted with measured over modules,
    ``spearman_sensitivity`` that of Σ_S of the metric itself with |measured|: the first asks for the sign too.
    The lists of the ``top`` weights of the whole model are compared by ``jaccard`` = |A ∩ B| / |A ∪ B|; ``chance`` is what two
    random lists of that length have on average. Source: the metrics as in ``critical_weights``; the protocol is of no paper.

    Result: ``[metric, module] predicted, measured, ci_low, ci_high`` (95 % Student interval over samples), ``sensitivity``
    (Σ_S of the metric), ``n_changed``; ``[module] n_chosen, random, random_ci_low, random_ci_high``: as many weights of the
    module at random, ``n_seeds`` draws, with an interval over draws and samples. ``[metric] spearman, spearman_ci_low,
    spearman_ci_high`` (95 %, of what as many samples show of these modules: by resampling the evaluation samples, with the
    predictions of halves of the calibration), ``ceiling`` (the correlation that a perfect prediction would have, as halves of
    the evaluation samples order the modules: below it, noise in what is measured hides the answer), ``p_value`` (of modules in
    any order, one-sided), ``spearman_sensitivity, stability`` (of the list, as in ``critical_weights``).
    ``[metric, kind] spearman_within, spearman_sensitivity_within``: the same over matrices alone and over norms alone,
    ``[kind] n_modules`` of them. ``[metric_a,
    metric_b] jaccard, chance, overlap_p_value`` (that random lists share as much). Scalar ``baseline_loss``. With
    ``per_sample`` also ``[sample, metric, module] measured_by_sample``.
    Errors: ValueError where calibration and evaluation share a sample, or a metric is unknown. Cost: of each metric what
    ``critical_weights`` costs, and a forward of the evaluation samples for each metric and module, and for each draw and module.
    How to read it: compare ``measured`` with ``random`` before looking at correlations (in a module that has no more than
    ``per_module`` weights they are the same). When not to trust it: modules differ in
    size and kind, and any measure that knows the kinds correlates over all of them (a norm is small, and much hangs on its
    weights): believe what holds within kinds too; what holds for zeroing 20 weights need not hold for 2 000;
    where ``ceiling`` is low a low correlation says nothing of the metric.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose = ts.datasets.shakespeare(scope, n=24, length=32)
    >>> found = ts.recipes.validate_sensitivity(
    ...     scope, prose[:16], prose[16:], metrics=("grad_squared", "magnitude"), modules="*.h.*", n_seeds=1)
    >>> found["measured"].dims, bool(found["jaccard"].sel(metric_a="magnitude", metric_b="grad_squared") < 0.5)
    (('metric', 'module'), True)
    """
    calibration, evaluation = scope.samples(calibration), scope.samples(evaluation)
    names = _checked(metrics, per_module=per_module, top=top, n_seeds=n_seeds, n_probes=n_probes)
    _check_apart(calibration, evaluation)
    seed = current().seed if seed is None else seed
    objective = Objective(scope, evaluation, reduction="sum", differentiable=False)
    sizes = {name: p.nelement() for name, p in chosen_parameters(scope, modules).items()}
    n_weights = sum(sizes.values())
    if top > n_weights:
        raise ValueError(f"top is {top} and there are {n_weights:,} weights: ask for fewer")
    sets: dict[tuple, Weights] = {}
    scores: dict[tuple, tuple[float, np.ndarray]] = {}
    listed: dict[str, set[tuple[int, int]]] = {}
    stability, notes = [], []
    options: dict[str, Any] = {"n_probes": n_probes, "seed": seed, "modules": modules, "chunk": chunk, "progress": progress}
    for metric in names:
        found = yield from sensitivity(scope, calibration, metric, intervals=None, **options)
        whole = largest_of(found, top, lambda _: 0)
        listed[metric] = set(zip(*(each.tolist() for each in whole.best[0]), strict=True))
        stability.append(float(np.mean(whole.stability[0])))
        if not found.n_splits and metric != "magnitude":
            notes.append(
                f"{metric} has no stability, and its correlation an interval without the noise of the ranking: {found.why_whole}"
            )
        own = largest_of(found.whole, per_module, lambda name: name.rpartition(".")[0])
        for module in own.best:
            sets[metric, module] = _weights(own, module)
            scores[metric, module] = _sums(found, sets[metric, module])
    places = [key[1] for key in sets if key[0] == names[0]]
    sets |= _at_random(sizes, places, per_module, n_seeds, seed)
    emptied = Emptied(objective, sets, chunk)
    yield Work(emptied, "emptied models", progress, least=len(sets) + 1)
    variables = of_modules(scope, emptied, names, places, scores, n_seeds)
    variables |= of_metrics(scope, emptied, names, places, scores, stability, seed) | of_pairs(names, listed, n_weights, top)
    coords: dict[str, Any] = {"metric": names, "metric_a": names, "metric_b": names, "kind": list(KINDS)}
    coords |= module_coords(scope, places)
    if per_sample:
        by_sample = np.array([[emptied.increases((metric, module)) for module in places] for metric in names])
        words = "increase of the sample's loss without the weights"
        variables["measured_by_sample"] = (
            ("sample", "metric", "module"), np.moveaxis(by_sample, -1, 0), words, loss_unit(scope),
        )  # fmt: skip
        coords |= sample_coords(evaluation)
    said = {"n_used": len(evaluation), "n_available": len(evaluation), "n_calibration": len(calibration), "seed": seed}
    said |= {"n_tokens": int(objective.weights.sum()), "data": evaluation.fingerprint, "calibration": calibration.fingerprint}
    return dataset(variables, coords, **said, n_weights=n_weights, notes=notes + _notes(emptied, places, n_seeds))


def _notes(emptied: Emptied, places: Sequence[str], n_seeds: int) -> list[str]:
    """What is missing in the result, and why."""
    notes = []
    if len(emptied.objective.samples) < 2:
        notes.append("one evaluation sample does not say how others differ: there are no intervals")
    if n_seeds < 2:
        notes.append("one draw at random does not say how others differ: random has no interval, raise n_seeds=")
    if len(places) < LEAST:
        notes.append(f"there are {len(places)} modules, and a rank correlation of fewer than {LEAST} says nothing: it is NaN")
    broken = list(dict.fromkeys(key[1] for key, losses in emptied.changed.items() if not np.isfinite(losses).all()))
    if broken:
        notes.append(
            f"without some weights of {', '.join(map(repr, broken))} a loss is no finite number: the increase is inf there, "
            "without an interval, and the correlations are NaN where such a module takes part"
        )
    return notes


def _checked(metrics: Any, **numbers: Any) -> list[Metric]:
    given = [metrics] if isinstance(metrics, str) else metrics
    names = list(given) if isinstance(given, Sequence) else []
    if not names or any(name not in METRICS for name in names) or len(set(names)) < len(names):
        raise ValueError(f"metrics is {metrics!r}: give some of {', '.join(METRICS)}, each once")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1 on")
    return names


def _check_apart(calibration: Samples, evaluation: Samples) -> None:
    known = {calibration[i].fingerprint: name for i, name in enumerate(calibration.ids)}
    for i, name in enumerate(evaluation.ids):
        if (same := known.get(evaluation[i].fingerprint)) is not None:
            raise ValueError(f"evaluation sample {name!r} is calibration sample {same!r}: it cannot test what was ranked on it")


def _weights(lists: Lists, module: Any) -> Weights:
    owners, index = lists.best[module]
    return [(lists.names[i], index[owners == i]) for i in np.unique(owners)]


def _sums(found: Sensitivity, weights: Weights) -> tuple[float, np.ndarray]:
    """Σ of the metric over the weights; and what it predicts for the loss without them (or that sum), by all and each half."""
    score, predicted = 0.0, np.zeros(len(found.mixing))
    for name, index in weights:
        at = torch.as_tensor(index, device=found.parameters[name].device)
        own = found.scores(name, at).double()
        increases = found.increases(name, at)
        score += float(own[0].sum())
        predicted += (own if increases is None else increases.double()).sum(1).cpu().numpy()
    return score, predicted


def _at_random(sizes: Mapping[str, int], modules: Sequence[str], k: int, n_seeds: int, seed: int) -> dict[tuple, Weights]:
    found: dict[tuple, Weights] = {}
    for module in modules:
        own = {name: size for name, size in sizes.items() if name.rpartition(".")[0] == module}
        starts, n = starts_of(own.values()), sum(own.values())
        for i in range(n_seeds):
            drawn = torch.randperm(n, generator=generator(seed, "random", i, module))[:k].numpy()
            owners, index = placed(starts, drawn)
            found["random", module, i] = [
                (name, np.sort(index[owners == j])) for j, name in enumerate(own) if (owners == j).any()
            ]
    return found
