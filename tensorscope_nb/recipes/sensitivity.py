"""A number for every weight that says how much the loss depends on it; made a block at a time, and never held for all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.halves import dealt, groups_of, splits
from tensorscope_nb.scope.flat import shaped
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.forms import widened
from tensorscope_nb.sweep.measure import ByGroup, SquaresBy, SumsBy
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.reducers import Reducer, Sums
from tensorscope_nb.sweep.request import GradientRequest
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

Metric = Literal["grad_x_weight", "grad_squared", "hessian_diag", "magnitude"]
METRICS: tuple[Metric, ...] = get_args(Metric)
BLOCK = 2**16  # weights scored at a time: with all halves they fit into the caches

Score = Callable[[Tensor, Tensor], Tensor]


def grad_x_weight(g: Tensor, w: Tensor) -> Tensor:
    """|g w|."""
    return (g * w).abs()


SCORES: dict[str, Score] = {
    "grad_x_weight": grad_x_weight,
    "grad_squared": lambda f, w: f,
    "hessian_diag": lambda h, w: h,
    "magnitude": lambda _, w: w.abs(),
}
INCREASES: dict[str, Score] = {
    "grad_x_weight": lambda g, w: -g * w,
    "grad_squared": lambda f, w: 0.5 * f * w**2,
    "hessian_diag": lambda h, w: 0.5 * h * w**2,
}


@dataclass(frozen=True)
class Sensitivity:
    """Sums of what a metric is made of, by group of the samples (or probes), and from them the score of any weight.

    A row of ``mixing`` makes a mean over some groups: over all of them first, then over each half, then over the others of it.
    """

    metric: Metric
    parameters: Mapping[str, Tensor]
    sums: Mapping[str, Tensor]  # {name: (groups, *shape)}
    mixing: Tensor  # (1 + 2 splits, groups)
    n_used: int
    said: Mapping[str, Any]

    @property
    def n_splits(self) -> int:
        return len(self.mixing) // 2

    @property
    def n_groups(self) -> int:
        return self.mixing.shape[1]

    @property
    def why_whole(self) -> str:
        """Why there are no halves, where there are none."""
        if self.metric == "magnitude":
            return "the weights are what they are, and nothing was sampled"
        unit, n = ("probe", self.said["n_probes"]) if self.metric == "hessian_diag" else ("sample", self.n_used)
        if self.n_groups > 1:
            return f"not each of the {self.n_groups} groups of {unit}s has one that is done"
        if n < 2:
            return f"one {unit} cannot be split"
        return (
            f"the sums of the groups of {unit}s would take more than the memory option allows (raise ts.options(memory=…), or "
            "choose fewer modules=)"
        )

    @property
    def sizes(self) -> dict[str, int]:
        return {name: parameter.nelement() for name, parameter in self.parameters.items()}

    @property
    def whole(self) -> Sensitivity:
        """The same without the halves."""
        return replace(self, mixing=self.mixing[:1])

    def blocks(self, name: str) -> Iterator[tuple[int, Tensor]]:
        """The scores of the weights of a parameter, (1 + 2 splits, some of them), and the first one's place in it."""
        weights = self.parameters[name].flatten()  # of one that lies in memory otherwise this is a copy: one for all blocks
        for start in range(0, len(weights), BLOCK):
            at = slice(start, start + BLOCK)
            yield start, self._made(SCORES[self.metric], name, weights[at], at)

    def scores(self, name: str, at: Tensor) -> Tensor:
        """(1 + 2 splits, weights)."""
        return self._made(SCORES[self.metric], name, self.parameters[name].flatten()[at], at)

    def increases(self, name: str, at: Tensor) -> Tensor | None:
        """(1 + 2 splits, weights): the predicted increase of the loss when one of these weights alone is set to zero."""
        made = INCREASES.get(self.metric)
        return None if made is None else self._made(made, name, self.parameters[name].flatten()[at], at)

    def _made(self, of: Score, name: str, weights: Tensor, at: slice | Tensor) -> Tensor:
        weights = widened(weights)
        if name not in self.sums:
            return of(weights, weights)[None]
        sums = self.sums[name].reshape(self.n_groups, self.sizes[name])  # wider than the weights where those are halves
        return of(self.mixing.to(sums) @ sums[:, at], weights)


Asked = Generator[Any, Any, Sensitivity]


def sensitivity(
    scope: Scope,
    samples: Samples,
    metric: Metric,
    *,
    intervals: bool | None,
    n_probes: int,
    seed: int,
    modules: Any,
    chunk: int | None,
    progress: bool | None,
    alone: Reducer | None = None,
) -> Asked:
    """Asks for what the metric needs of the samples; ``alone`` is a reducer that reads along, where there are gradients."""
    chosen = chosen_parameters(scope, modules)
    weights = {name: p.detach() for name, p in chosen.items()}
    if metric == "magnitude":
        return Sensitivity(metric, weights, {}, torch.ones(1, 1), 0, {})
    n_groups = _groups(n_probes if metric == "hessian_diag" else len(samples), weights, intervals)
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    if metric == "hessian_diag":
        probes = Probes(scope, samples, n_probes, n_groups, seed, modules, chunk)
        yield Work(probes, "products with the Hessian", progress)
        counts, said = probes.counts, {"n_probes": int(probes.counts.sum()), "notes": probes.objective.notes}
        return Sensitivity(metric, weights, probes.sums, _mixing(counts), len(samples), said)
    group = dealt(len(samples), n_groups, seed)
    ids = [{samples.ids[i] for i in np.flatnonzero(group == g)} for g in range(n_groups)]
    want: ByGroup = (SumsBy if metric == "grad_x_weight" else SquaresBy)(ids)
    totals = Sums(want)
    covered = yield GradientRequest(samples, [totals, *([alone] if alone else [])], reduction="sum", **options)
    counts = torch.zeros(n_groups, dtype=torch.float64)
    done = len(covered.samples)
    counts.index_add_(0, torch.as_tensor(group[:done]), covered.weights.double().cpu())
    return Sensitivity(metric, weights, totals.totals, _mixing(counts), done, {"by_reference": covered.by_reference})


def _groups(n: int, weights: Mapping[str, Tensor], intervals: bool | None) -> int:
    """Into how many groups n samples or probes are dealt: 1 where no intervals are asked for, or there is no room for them."""
    if intervals is False:
        return 1
    n_groups = groups_of(n)
    size = sum(max(4, p.element_size()) * p.nelement() for p in weights.values()) * n_groups
    if n_groups > 1 and size > current().memory:
        if intervals:
            raise too_much(f"the sums of {n_groups} groups of samples", size, "ask for fewer modules=, or intervals=False")
        return 1
    return n_groups


def _mixing(counts: Tensor) -> Tensor:
    """Of the groups' counts; without the halves where a group is empty (it was stopped), or there is one group."""
    rows = [torch.ones(1, len(counts))]
    if len(counts) > 1 and bool((counts > 0).all()):
        first = torch.as_tensor(splits(len(counts)))
        rows += [first, ~first]
    members = torch.cat([row.double() for row in rows])
    return members / (members @ counts.double())[:, None]


class Probes:
    """Σ z ∘ Hz over random signs z, by group of probes: its mean over z is the diagonal of H (Hutchinson)."""

    def __init__(
        self, scope: Scope, samples: Samples, n_probes: int, n_groups: int, seed: int, modules: Any, chunk: int | None
    ) -> None:
        self.objective = Objective(scope, samples, modules=modules, reduction="sum")
        self._curvature = Curvature(self.objective, "hessian", chunk=chunk)
        self._n, self._seed = n_probes, seed
        self.counts = torch.zeros(n_groups, dtype=torch.float64)
        self.sums = {name: torch.zeros(n_groups, *p.shape).to(p) for name, p in self.objective.chosen.items()}

    @property
    def total(self) -> float:
        return self._n

    @property
    def nbytes(self) -> float:
        return sum(s.nbytes for s in self.sums.values()) + self._curvature.nbytes

    def steps(self) -> Iterator[None]:
        generator = torch.Generator().manual_seed(self._seed)
        for i in range(self._n):
            signs = 2.0 * torch.randint(0, 2, (self._curvature.size,), generator=generator) - 1
            z = signs.to(self._curvature.device, self._curvature.dtype)
            group = i % len(self.counts)
            for sums, piece in zip(self.sums.values(), shaped(z * self._curvature(z), self.objective.parameters), strict=True):
                sums[group] += piece
            self.counts[group] += 1
            yield
