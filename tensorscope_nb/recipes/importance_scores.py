"""Four ways to say how much each single weight matters: Fisher, Taylor, magnitude, and a mixture of ranks."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.covered import said, sequences
from tensorscope_nb.recipes.groups import ByModule
from tensorscope_nb.recipes.importance import Importance
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.sensitivity import grad_x_weight
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.sweep.gradients import Coverage, Reduction
from tensorscope_nb.sweep.measure import Elementwise, Want
from tensorscope_nb.sweep.reducers import Masses, Reducer, Sums
from tensorscope_nb.sweep.request import GradientRequest
from tensorscope_nb.sweep.units import Kind, Unit

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

    Made = Generator[GradientRequest, Coverage, Importance]

Variant = Literal["first_order", "absolute", "squared"]


def _saliency(g: Tensor, w: Tensor) -> Tensor:
    return 0.5 * (g * w) ** 2


def _product(g: Tensor, w: Tensor) -> Tensor:
    return g * w


def _squared(g: Tensor, w: Tensor) -> Tensor:
    return (g * w) ** 2


@recipe(
    question="Which weights does the loss feel, by their Fisher information?",
    source="Theis et al. 2018, arXiv:1801.05787",
    needs=("gradients",),
)
def fisher_importance(
    scope: Scope,
    samples: Any,
    *,
    saliency: bool = False,
    kind: Kind = "empirical",
    per_sample: bool = False,
    sample_unit: Unit = "sequence",
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Made:
    """The diagonal of the empirical Fisher, E_i[g_ik²] over samples; with ``saliency`` ½ F_kk w_k² (LeCun et al. 1990).

    What it answers: how strongly the loss on these samples depends on each single weight.
    Squares are taken per sample and then averaged: the square of a batch's gradient is another thing, and depends on how the
    data is cut. ``kind``, ``sample_unit`` and ``reduction`` as in ``grouped_fisher``.

    Result: an ``Importance``, {parameter: tensor}; its ``summary()`` is on ``[module]``, with ``per_sample`` also the totals of
    each sample.
    Errors: UnsupportedModel where the loss is missing. Cost: one forward and one backward, and a number per weight.
    When not to trust it: it knows nothing of how weights act together, and its scale follows the parametrisation.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> importance = ts.recipes.fisher_importance(scope, ts.datasets.shakespeare(scope, n=4))
    >>> sum(int(m.sum()) for m in importance.mask(0.1).values())
    21120
    """
    samples = scope.samples(samples)
    want: Want = Elementwise(_saliency, "sample") if saliency else "total"
    squares, masses = Sums("squares"), Masses(ByModule(scope, want))
    reducers: list[Reducer] = [squares, masses] if per_sample else [squares]
    options: dict[str, Any] = {"reduction": reduction, "modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(samples, reducers, unit=sample_unit, kind=kind, seed=seed, **options)
    values = {p.name: (squares.totals[p.name] / covered.divisor).cpu() for p in covered.parameters}
    if saliency:
        values = {p.name: 0.5 * values[p.name] * p.tensor.detach().cpu() ** 2 for p in covered.parameters}
    name = ("Fisher" if kind == "empirical" else "Fisher (drawn labels)") + (" saliency" if saliency else "")
    return _importance(scope, samples, covered, values, name, masses if per_sample else None)


@recipe(
    question="What would removing each weight change, to first order?",
    source="Molchanov et al. 2019, arXiv:1906.10771",
    needs=("gradients", "weights"),
)
def taylor_importance(
    scope: Scope,
    samples: Any,
    *,
    variant: Variant = "first_order",
    per_sample: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Made:
    """First-order estimates of what removing a weight changes; three different things, by ``variant``.

    ``"first_order"``: |ḡ_k w_k|, the change of the mean loss (Molchanov et al. 2019; grad × weight); ``"absolute"``:
    E_i|g_ik w_k|; ``"squared"``: E_i[(g_ik w_k)²]. The first cancels over samples and the others do not.

    Result: an ``Importance``, {parameter: tensor}; its ``summary()`` is on ``[module]``, with ``per_sample`` also what each
    sample would give alone.
    Errors: UnsupportedModel where the loss is missing. Cost: one forward and one backward, and a number per weight.
    When not to trust it: to first order only; at a minimum of the loss the gradient says nothing of what removal costs.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> ts.recipes.taylor_importance(scope, ts.datasets.shakespeare(scope, n=4))
    Importance(taylor first_order: 211,200 weights in 28 parameters)
    """
    samples = scope.samples(samples)
    kinds = {
        "first_order": (_product, grad_x_weight),
        "absolute": (grad_x_weight, grad_x_weight),
        "squared": (_squared, _squared),
    }
    if variant not in kinds:
        raise ValueError(f"variant is {variant!r}: choose 'first_order', 'absolute' or 'squared'")
    of, alone = kinds[variant]
    totals = Sums("sum" if variant == "first_order" else Elementwise(of, "weight"))
    masses = Masses(ByModule(scope, Elementwise(alone, "sample")))
    reducers: list[Reducer] = [totals, masses] if per_sample else [totals]
    covered = yield GradientRequest(samples, reducers, modules=modules, chunk=chunk, progress=progress)
    values = {p.name: (totals.totals[p.name] / len(covered.samples)).float().cpu() for p in covered.parameters}
    if variant == "first_order":
        values = {p.name: (values[p.name] * p.tensor.detach().cpu()).abs() for p in covered.parameters}
    return _importance(scope, samples, covered, values, f"taylor {variant}", masses if per_sample else None)


def _importance(
    scope: Scope, samples: Samples, covered: Coverage, values: dict[str, Tensor], kind: str, masses: Masses | None
) -> Importance:
    done, by_sample = covered.samples, None
    if masses is not None:
        names = list(masses.values)
        each = np.stack([masses.values[name][: len(covered.samples)].numpy() for name in names], 1)
        each = each * len(covered.samples) / covered.divisor
        done, totals, _ = sequences(samples, covered, each)
        by_sample = (done, {name: totals[:, i] for i, name in enumerate(names)})
    elif covered.source is not None:
        done = samples[: int(covered.source.max()) + 1]
    return Importance(scope, values, kind, said(samples, done, covered), by_sample)


@recipe(question="How large is each weight?", source="Han et al. 2015, arXiv:1506.02626", needs=("weights",))
def magnitude_importance(
    scope: Scope, samples: Any = None, *, per_sample: bool = False, modules: str | list[str] | None = None
) -> Importance:
    """|w_k|. It takes no notice of the samples, which stand there so that the four are called alike: all have the same totals.

    Result: an ``Importance``, whose ``summary()`` is on ``[module]``. Cost: none beyond a copy of the weights.

    >>> import tensorscope_nb as ts
    >>> ts.recipes.magnitude_importance(ts.load("tiny"))
    Importance(magnitude: 211,200 weights in 28 parameters)
    """
    values = {n: p.detach().abs().cpu() for n, p in chosen_parameters(scope, modules).items()}
    plain = Importance(scope, values, "magnitude")
    if not per_sample:
        return plain
    if samples is None:
        raise ValueError("per_sample=True and no samples: give the samples that the totals are to stand beside")
    samples, summary = scope.samples(samples), plain.summary()["total"]
    totals = {str(name): np.full(len(samples), float(summary.sel(module=name))) for name in summary["module"].values}
    return Importance(scope, values, "magnitude", by_sample=(samples, totals))


@recipe(
    question="Which weights rank high by several measures at once?",
    source="a mean of ranks, of no paper",
    needs=("gradients", "weights"),
)
def hybrid_importance(
    scope: Scope,
    samples: Any,
    *,
    weights: Mapping[str, float] | None = None,
    per_sample: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Made:
    """A weighted mean of importances after each is replaced by its rank over all weights (0 to 1), so that scales cannot rule.

    ``weights`` are of ``magnitude``, ``fisher`` and ``taylor`` (default .3 magnitude, .7 Fisher). Result (``summary()`` is on
    ``[module]``) and errors as for those. Cost: one forward and one backward, and a sort of the weights. With ``per_sample``
    the weights are ranked once for every sample alone: a sweep and a sort per sample.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> hybrid = ts.recipes.hybrid_importance(scope, ts.datasets.shakespeare(scope, n=4))
    >>> bool(max(float(v.max()) for v in hybrid.values()) <= 1)
    True
    """
    samples = scope.samples(samples)
    given = {"magnitude": 0.3, "fisher": 0.7} if weights is None else dict(weights)
    if unknown := given.keys() - {"magnitude", "fisher", "taylor"}:
        raise ValueError(f"weights names {', '.join(sorted(unknown))}: choose among magnitude, fisher, taylor")
    if not given or not all(0 <= value < math.inf for value in given.values()) or not sum(given.values()):
        raise ValueError(f"weights is {given}: give non-negative numbers, at least one above 0")
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    mixed = yield from _mixed(scope, samples, given, options)
    if not per_sample:
        return mixed
    alone = []
    for i in range(len(samples)):
        one = yield from _mixed(scope, samples[i], given, options)
        alone.append(one.summary()["total"])
    totals = {str(name): np.array([float(total.sel(module=name)) for total in alone]) for name in alone[0]["module"].values}
    return Importance(scope, dict(mixed), "hybrid", mixed.metadata, (samples, totals))


def _mixed(scope: Scope, samples: Samples, given: Mapping[str, float], options: dict[str, Any]) -> Made:
    ranks: dict[str, dict[str, Tensor]] = {}
    said_of: dict[str, Any] = {}
    if "magnitude" in given:
        ranks["magnitude"] = _ranks(magnitude_importance.function(scope, modules=options["modules"]))
    for name, measure in (("fisher", fisher_importance), ("taylor", taylor_importance)):
        if name in given:
            found = yield from measure.function(scope, samples, **options)
            ranks[name], said_of = _ranks(found), found.metadata
    total = sum(given.values())
    mixed = {
        p: sum((given[name] / total * ranks[name][p] for name in ranks), start=torch.zeros(()))
        for p in next(iter(ranks.values()))
    }
    return Importance(scope, mixed, "hybrid", {**said_of, "kind": "hybrid", "weights": dict(given)})


def _ranks(importance: Importance) -> dict[str, Tensor]:
    """Ranks over all weights together, scaled to 0 … 1; equal values share their mean rank."""
    from scipy.stats import rankdata

    flat = torch.cat([value.flatten().float() for value in importance.values()]).numpy()
    ranks = (rankdata(flat) - 1) / max(1, len(flat) - 1)
    pieces = np.split(ranks, np.cumsum([value.nelement() for value in importance.values()])[:-1])
    return {
        name: torch.as_tensor(piece, dtype=torch.float32).reshape(value.shape)
        for (name, value), piece in zip(importance.items(), pieces, strict=True)
    }
