"""Pruning curves: what removing weights is predicted to cost, beside what it does cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.intervals import ratio_interval, t_interval
from tensorscope_nb.numerics.pruned import held_out_sums, least_first, sums_of_first
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit
from tensorscope_nb.recipes.modules import matrices, module_coords, shares_by_module
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.scope.flat import flat, shaped
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.moved import moved
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.reducers import Sums
from tensorscope_nb.sweep.request import GradientRequest
from tensorscope_nb.sweep.work import FORWARD, Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

Order = Literal["saliency", "magnitude", "random"]
DRAWS = 4  # of labels
NUMBERS = 2 * DRAWS + 6  # held per weight: saliencies by draw, twice while they are stacked, an order, and what is summed
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@recipe(
    question="How much of the model can be removed, and does the curvature tell?",
    source="LeCun et al. 1990; Theis et al. 2018, arXiv:1801.05787",
    needs=("gradients", "weights", "losses"),
)
def prune_curve(
    scope: Scope,
    samples: Any,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    measure: bool = False,
    evaluation: Any = None,
    order: Order = "saliency",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The increase of the loss when the least of the weights are set to zero: predicted by the curvature, and measured.

    What it answers: how far the model can be pruned on these samples, and whether the diagonal of the curvature knows.
    Equation: the loss per predicted token L; w_k leaves in order of its saliency s_k = ½ F_kk w_k², F_kk the diagonal of the
    true Fisher, which is the Gauss–Newton part of the Hessian of L, from labels drawn from the model: four draws (by
    ``seed``). Predicted for a set S: Σ_S s_k, what Optimal Brain Damage says: no gradient is left, and weights do not act
    together. With one draw small entries would come first in part by accident and be counted small: each draw is summed in
    the order that the others give. ``order="magnitude"`` removes the smallest weights and ``"random"`` any; their saliency
    is summed alike. Weights of two and more dimensions are pruned, over all modules together; biases and norms stay. Source:
    LeCun et al. 1990; the Fisher for the Hessian: Theis et al. 2018, arXiv:1801.05787.

    Result: ``[sparsity] predicted_increase, predicted_increase_ci_low, predicted_increase_ci_high`` (95 % Student interval
    over the draws), ``first_order`` (−Σ_S g_k w_k, the part of the gradient, which OBD leaves out), ``n_pruned``; with
    ``measure`` also ``measured_increase, measured_increase_ci_low, measured_increase_ci_high`` (95 % Student interval over
    samples of the paired differences) and the scalar ``loss``, on these samples or on those of ``evaluation``; ``[sparsity,
    module] pruned_fraction``. Nats per predicted token (per sample for a classifier).
    Errors: ValueError for a sparsity outside 0 … 1; UnsupportedModel where the loss is no likelihood of labels. Cost: five
    forwards and backwards, five sorts of the weights, and with ``measure`` a forward per sparsity; memory of some 14 numbers
    per weight.
    How to read it: where measured and predicted part, weights act together, or the samples were too few to know which weights
    matter elsewhere: take four times as many and see. No threshold read from the prediction alone is safe. When not to trust
    it: its interval tells of the draws of labels and not of the samples; what is measured on the samples that the order comes
    from is lower than on others, so give ``evaluation``; nothing is trained after pruning.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose = ts.datasets.shakespeare(scope, n=16, length=32)
    >>> curve = ts.recipes.prune_curve(scope, prose, sparsities=(0.2, 0.9), measure=True)
    >>> bool(curve["measured_increase"].sel(sparsity=0.9) > 10 * curve["measured_increase"].sel(sparsity=0.2))
    True
    """
    samples = scope.samples(samples)
    if order not in ("saliency", "magnitude", "random"):
        raise ValueError(f"order is {order!r}: choose 'saliency', 'magnitude' or 'random'")
    at = _checked(sparsities)
    other = samples if evaluation is None else scope.samples(evaluation)
    if evaluation is not None and not measure:
        raise ValueError("evaluation= is what the increase is measured on: pass measure=True too")
    seed = current().seed if seed is None else seed
    objective = Objective(scope, samples, modules=modules, reduction="sum")
    names = list(matrices(objective.chosen, modules))
    size = 4 * NUMBERS * sum(objective.chosen[name].nelement() for name in names)
    if size > current().memory:
        raise too_much("the saliencies of the weights by draw, and their order", size)
    options: dict[str, Any] = {"reduction": "sum", "kind": "mc", "modules": modules, "chunk": chunk, "progress": progress}
    weights = flat([objective.chosen[name].detach() for name in names]).cpu()
    drawn: list[Tensor] = []
    for i in range(DRAWS):
        squares = Sums("squares")
        more = DRAWS - i + (len(at) * FORWARD if measure else 0)  # the gradient after the draws
        asked = GradientRequest(samples, [squares], seed=seed * DRAWS + i, enough=_all_of(samples), more=more, **options)
        covered = yield asked
        drawn.append(0.5 * weights**2 * flat([squares.totals[name] for name in names]).cpu() / covered.divisor)
    by_draw = torch.stack(drawn)
    ranking = _ranking(order, by_draw, weights, seed)
    counts = [round(share * len(weights)) for share in at.tolist()]
    if order == "saliency":
        sums = held_out_sums(by_draw, counts)
    else:
        sums = torch.stack([sums_of_first(draw, ranking, counts) for draw in by_draw])
    predicted, low, high = t_interval(sums.numpy())
    gradients = dict(zip(objective.chosen, objective.gradient(objective.parts(chunk)), strict=True))
    slope = -flat([gradients[name] for name in names]).cpu() * weights
    dims, unit = ("sparsity",), loss_unit(scope)
    words = "increase of the loss predicted by the diagonal curvature"
    variables: dict[str, Variable] = {
        "predicted_increase": (dims, predicted, words, unit),
        "predicted_increase_ci_low": (dims, low, f"{words}, lower end of the 95 % interval", unit),
        "predicted_increase_ci_high": (dims, high, f"{words}, upper end of the 95 % interval", unit),
        "first_order": (dims, sums_of_first(slope, ranking, counts).numpy(), "increase of the loss to first order", unit),
    }
    if measure:
        removal = Removal(Objective(scope, other, modules=modules, reduction="sum"), names, ranking, counts, chunk)
        yield Work(removal, "pruned models", progress)
        measured, low, high = removal.increases()
        variables["measured_increase"] = (dims, measured, "increase of the loss measured", unit)
        variables["measured_increase_ci_low"] = (dims, low, "measured increase, lower end of the 95 % interval", unit)
        variables["measured_increase_ci_high"] = (dims, high, "measured increase, upper end of the 95 % interval", unit)
        variables["loss"] = ((), removal.loss, "loss of the whole model", unit)
    by_module = _by_module({name: objective.chosen[name].nelement() for name in names}, ranking, counts)
    shares = np.stack(list(by_module.values()), 1)
    variables["pruned_fraction"] = (("sparsity", "module"), shares, "share of the module's weights that is removed", "")
    variables["n_pruned"] = (dims, counts, "weights removed", "weights")
    coords = {"sparsity": at} | module_coords(scope, list(by_module))
    said = {"n_used": len(samples), "n_available": len(samples), "n_weights": len(weights), "seed": seed, "n_draws": DRAWS}
    return dataset(variables, coords, **said, n_evaluated=len(other) if measure else 0, by_reference=covered.by_reference)


class Removal:
    """The losses of the samples with the first weights of a ranking set to zero: of nothing first, then of each count."""

    def __init__(
        self, objective: Objective, names: Sequence[str], ranking: Tensor, counts: Sequence[int], chunk: int | None
    ) -> None:
        self.objective, self.names, self.ranking, self.counts, self._chunk = objective, names, ranking, counts, chunk
        self.losses = np.full((1 + len(counts), len(objective.samples)), np.nan)

    @property
    def total(self) -> float:
        return len(self.losses)

    @property
    def nbytes(self) -> float:
        return 2.0 * sum(self.objective.chosen[name].nbytes for name in self.names)

    def steps(self) -> Iterator[None]:
        objective, parts = self.objective, self.objective.parts(self._chunk)
        parameters = [objective.chosen[name] for name in self.names]
        for row, count in enumerate([0, *self.counts]):
            removed = torch.zeros(len(self.ranking))
            removed[self.ranking[:count]] = 1
            pieces = shaped(removed, parameters)
            steps = (-p.detach() * piece.to(p) for p, piece in zip(parameters, pieces, strict=True))  # w − w is 0 exactly
            with moved(objective.scope.model, parameters, steps):
                losses = objective.by_sample(parts)
                check_finite(losses, objective.samples, objective.scope.model)
            self.losses[row] = losses.numpy()
            yield

    @property
    def loss(self) -> float:
        terms = self.objective.weights.numpy()
        return float((self.losses[0] * terms).sum() / terms.sum())

    def increases(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean over predicted tokens, and its interval over samples; NaN where it was not measured."""
        terms = self.objective.weights.numpy()
        found = np.array([ratio_interval((row - self.losses[0]) * terms, terms) for row in self.losses[1:]])
        return found[:, 0], found[:, 1], found[:, 2]


def _ranking(order: Order, by_draw: Tensor, weights: Tensor, seed: int) -> Tensor:
    if order == "random":
        return torch.randperm(len(weights), generator=torch.Generator().manual_seed(seed))
    return least_first(by_draw.sum(0) if order == "saliency" else weights.abs())


def _by_module(sizes: Mapping[str, int], ranking: Tensor, counts: Sequence[int]) -> dict[str, np.ndarray]:
    """{module: the share of its weights among the first so many of the ranking}"""
    rank = np.empty(len(ranking), dtype=np.int64)
    rank[ranking.numpy()] = np.arange(len(ranking))
    ranks = zip(sizes, np.split(rank, np.cumsum(list(sizes.values()))[:-1]), strict=True)
    return shares_by_module({name: np.array([(own < count).sum() for count in counts]) for name, own in ranks}, sizes)


def _all_of(samples: Samples) -> Callable[[int], bool]:
    """A prediction from part of the draws or samples would be another one."""
    return lambda n: n == len(samples)


def _checked(sparsities: Sequence[float]) -> np.ndarray:
    at = np.asarray(sparsities, dtype=float)
    if at.ndim != 1 or not len(at) or not ((at >= 0) & (at <= 1)).all() or len(set(at.tolist())) < len(at):
        raise ValueError(f"sparsities is {sparsities!r}: give shares of the weights from 0 to 1, each once")
    return np.sort(at)
