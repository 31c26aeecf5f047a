"""Whether two tasks lean on the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.overlap import (
    NAN,
    bhattacharyya,
    bhattacharyya_by_chance,
    jaccard,
    largest,
    shared,
    shared_by_chance,
)
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.modules import layer_of
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.tasks import TwoTasks
from tensorscope_nb.sweep.reducers import Sums
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

Method = Literal["bhattacharyya", "mask"]
Weights = Mapping[str, Tensor]
LEAST = 4  # samples of each task: two halves of two
WORDS = {"bhattacharyya": "overlap of the Fishers", "mask": "overlap of the top {:g}% of weights"}
# what is found: its name by layer, its name over all weights, and what it says beyond "overlap"
NAMES = {
    "overlap": ("overlap", "total", ""),
    "halves": ("overlap_of_halves", "total_of_halves", ", a half of one task with a half of the other"),
    "halves_low": ("overlap_of_halves_low", "total_of_halves_low", ", lowest of four pairs of halves"),
    "halves_high": ("overlap_of_halves_high", "total_of_halves_high", ", highest of four pairs of halves"),
    "ceiling": ("ceiling", "total_ceiling", ", two halves of one task"),
    "ceiling_low": ("ceiling_low", "total_ceiling_low", ", two halves of one task, lower of the two tasks"),
    "ceiling_high": ("ceiling_high", "total_ceiling_high", ", two halves of one task, higher of the two tasks"),
    "chance": ("layer_chance", "chance", ", by chance"),
}


@recipe(
    question="Do two tasks lean on the same weights?", source="Kirkpatrick et al. 2017, arXiv:1612.00796", needs=("gradients",)
)
def fisher_overlap(
    scope: Scope,
    a: Any,
    b: Any = None,
    *,
    method: Method = "bhattacharyya",
    top_fraction: float = 0.1,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The overlap of the diagonal empirical Fishers of two tasks, between what one task has with itself and chance.

    What it answers: whether two tasks depend on the same weights, layer by layer.
    Equation: ``"bhattacharyya"``: Σ_k √(F̂_a,k F̂_b,k) with each F̂ scaled to sum 1 (over the layer; ``total`` over all weights):
    1 − ½ tr(F̂_a + F̂_b − 2 (F̂_a F̂_b)^½) of Kirkpatrick et al. for diagonal Fishers, 1 for proportional ones, 0 for disjoint
    ones. ``"mask"``: of the ``top_fraction`` of weights of each, |A ∩ B| / |A|. F = mean of squared per-sample gradients. Source:
    Kirkpatrick et al. 2017, appendix (in the trace form).

    Result: ``[layer] overlap, overlap_of_halves, ceiling, layer_chance``; scalars ``total, total_of_halves, total_ceiling,
    chance``, and with masks ``jaccard``. ``ceiling`` is the overlap of two halves of one task (the mean of both tasks), and
    ``overlap_of_halves`` the mean of the four overlaps of a half of a with a half of b: compare these two, they have the same
    number of samples and so the same noise; their range stands beside them (``…_low, …_high``). Chance: one Fisher with its
    weights shuffled inside each parameter; of masks, random ones. ``a`` and ``b`` may be importances or masks ({parameter:
    tensor}, of any kind) instead of samples; there are no halves then, and they are NaN.
    Errors: UnsupportedModel where the loss is missing; ValueError for fewer than 4 samples of a task. Cost: one forward and one
    backward; 16 bytes per weight.
    How to read it: overlap near its ceiling says that the tasks share weights as much as a task does with itself. Below .2 to
    keep tasks apart and above .8 to share a backbone are rules of thumb, no findings. When not to trust it: a few weights with
    huge gradients make both ends of the scale; shared weights may still be pulled in opposite directions (gradient_conflict).

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> overlap = ts.recipes.fisher_overlap(scope, ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8))
    >>> bool(overlap["chance"] < overlap["total"] < 1)
    True
    """
    if method not in ("bhattacharyya", "mask"):
        raise ValueError(f"method is {method!r}: choose 'bhattacharyya' or 'mask'")
    if not 0 < top_fraction < 1:
        raise ValueError(f"top_fraction is {top_fraction}: give a share of the weights between 0 and 1")
    if _is_weights(a) or _is_weights(b):
        return _table(scope, [_checked(scope, x, side) for x, side in ((a, "a"), (b, "b"))], method, top_fraction, {})
    whole = TwoTasks.of(scope, a, b)
    whole.require(LEAST)
    squares = Sums(whole.squares)
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(whole.samples, [squares], enough=lambda n: whole.enough(n, LEAST), **options)
    two = whole.within(len(covered.samples))
    counts = [sum(rows < len(covered.samples)) for rows in whole.halves]
    halves: list[Weights] = [{name: total[i].double() / counts[i] for name, total in squares.totals.items()} for i in range(4)]
    return _table(scope, halves, method, top_fraction, two.said(covered, whole), counts)


def _is_weights(x: Any) -> bool:
    return isinstance(x, Mapping) and not {"input_ids", "x", "labels"} & set(x)  # those are batches


def _checked(scope: Scope, x: Any, side: str) -> Weights:
    if not _is_weights(x):
        raise TypeError(f"{side} is a {type(x).__name__}, the other holds weights: give samples twice, or weights twice")
    x = {name: torch.as_tensor(value) for name, value in x.items()}
    shapes = {name: p.shape for name, p in scope.model.named_parameters()}
    for name, value in x.items():
        if name not in shapes:
            raise LookupError(
                f"{side} names {name!r}, which is no parameter of the model: names are such as {next(iter(shapes))}"
            )
        if value.shape != shapes[name]:
            raise ValueError(f"{side}[{name!r}] has shape {tuple(value.shape)}, the parameter {tuple(shapes[name])}")
        if bool((value < 0).any()) or not bool(value.isfinite().all()):
            raise ValueError(f"{side}[{name!r}] has values that are negative or not finite: give importances or masks")
    return {name: value if value.dtype == torch.bool else value.double() for name, value in x.items()}


def _table(
    scope: Scope, given: list[Weights], method: Method, top: float, said: dict[str, Any], counts: list[int] | None = None
) -> Any:
    """The overlaps of two (a, b) or of four (the halves of a, those of b) sets of weights, by layer and over all."""
    if not given[0]:
        raise ValueError("a holds no parameter: give importances or masks of some")
    if differing := sorted(set(given[0]) ^ set(given[-1])):
        raise ValueError(f"a and b have different parameters ({', '.join(differing[:3])}): compare the same ones")
    kinds = {value.dtype == torch.bool for weights in given for value in weights.values()}
    if len(kinds) > 1:
        raise ValueError("some of a and b are masks and some importances: give both as masks, or both as importances")
    method, words = ("mask", "overlap of the masks") if True in kinds else (method, WORDS[method].format(100 * top))
    layers = sorted({layer for name in given[0] if (layer := layer_of(scope, name.rpartition(".")[0])) >= 0})
    groups = [[name for name in given[0] if layer_of(scope, name.rpartition(".")[0]) == layer] for layer in layers]
    sets = given if counts is None else [_mean(given[:2], counts[:2]), _mean(given[2:], counts[2:]), *given]
    flat = [{name: value.flatten().cpu() for name, value in weights.items()} for weights in sets]
    if method == "bhattacharyya":  # of the roots, which are taken once
        flat = [{name: value.sqrt() for name, value in weights.items()} for weights in flat]
    *rows, over_all = [
        _overlaps([[weights[name] for name in names] for weights in flat], method, top) for names in [*groups, list(given[0])]
    ]
    variables: dict[str, Variable] = {}
    for key, (by_layer, total, more) in NAMES.items():
        variables[by_layer] = (("layer",), [row[key] for row in rows], f"{words}{more}", "")
        variables[total] = ((), over_all[key], f"{words}{more}, over all weights", "")
    if "jaccard" in over_all:
        variables["jaccard"] = ((), over_all["jaccard"], f"{words}, of those in either", "")
    return dataset(variables, {"layer": layers}, **said, method=method)


def _overlaps(sets: list[list[Tensor]], method: str, top: float) -> dict[str, float]:
    """All overlaps over one group of weights: of a and b, and of the halves of both where there are any."""
    found: dict[str, float] = {}
    of, chance = bhattacharyya, bhattacharyya_by_chance
    if method == "mask":
        sets, of, chance = [_mask(values, top) for values in sets], shared, shared_by_chance
        found["jaccard"] = jaccard(sets[0], sets[1])
    halves = sets[2:]
    own = [of(halves[0], halves[1]), of(halves[2], halves[3])] if halves else [NAN]
    across = [of(one, other) for one in halves[:2] for other in halves[2:]] or [NAN]
    found |= {"overlap": of(sets[0], sets[1]), "chance": chance(sets[0], sets[1])}
    for name, values in (("ceiling", own), ("halves", across)):
        found |= {name: float(np.mean(values)), f"{name}_low": min(values), f"{name}_high": max(values)}
    return found


def _mean(halves: list[Weights], counts: list[int]) -> Weights:
    one, other = counts
    return {name: (halves[0][name] * one + halves[1][name] * other) / (one + other) for name in halves[0]}


def _mask(values: list[Tensor], top: float) -> list[Tensor]:
    """A mask as it is, and of importances the largest; none where all are zero."""
    if values and values[0].dtype == torch.bool:
        return values
    return largest(values, top) if any(bool(value.any()) for value in values) else [torch.zeros_like(v).bool() for v in values]
