"""The losses of a model some of whose weights are changed: of a list's first ones, and of others beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.controls import Design, members_of
from tensorscope_nb.recipes.training import generator
from tensorscope_nb.recipes.weight_list import WeightList
from tensorscope_nb.scope import Scope
from tensorscope_nb.scope.changed import Change, changed
from tensorscope_nb.scope.flat import shaped
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.objective import Objective

WIDE = (torch.float32, torch.float64)


class Perturbed:
    """Selection after selection, a share of it after the other, replicate after replicate: predicted, then measured.

    All is NaN where it was not come to; a selection that does not vary is measured once and stands in every replicate.
    """

    def __init__(self, scope: Scope, samples: Objective, design: Design, chunk: int | None) -> None:
        self.scope, self.measured, self.design, self._chunk = scope, samples, design, chunk
        shape = (len(design.selections), len(design.counts), design.n_seeds)
        self.n_changed, self.first_order, self.second_order, self.squares = (np.full(shape, np.nan) for _ in range(4))
        self.losses = np.full(len(samples.samples), np.nan)
        self.changed = np.full((*shape, len(samples.samples)), np.nan)
        self.members: dict[tuple[str, int], WeightList] = {}  # of each selection and replicate, in the order of the top list
        self.notes: list[str] = []

    @property
    def total(self) -> float:
        varying = sum(self.design.varies(selection) for selection in self.design.selections)
        return 1 + len(self.design.counts) * (len(self.design.selections) + varying * (self.design.n_seeds - 1))

    @property
    def nbytes(self) -> float:
        return 4.0 * sum(p.nbytes for p in self.scope.model.parameters())  # gradient, a step, its product, and sizes

    def steps(self) -> Iterator[None]:
        design, parts = self.design, self.measured.parts(self._chunk)
        losses = self.measured.by_sample(parts)
        check_finite(losses, self.measured.samples, self.scope.model)
        self.members = members_of(self.scope, design)
        names = {str(name) for each in self.members.values() for name in each.parameters}
        for name in sorted(names):
            design.disturbance.check_stored(name, self.scope.model.get_parameter(name))
        prediction = self._prediction(names, parts)
        self.losses = losses.numpy()
        yield
        for replicate in range(design.n_seeds):
            for s, selection in enumerate(design.selections):
                if replicate and not design.varies(selection):
                    continue
                to = slice(replicate, replicate + 1) if design.varies(selection) else slice(None)
                changes = self._changes(selection, replicate)
                for r, count in enumerate(design.counts):
                    self._measure(prediction, changes, count, (s, r, to), parts)
                    yield

    def _changes(self, selection: str, replicate: int) -> list[tuple[str, Tensor, Tensor, Tensor]]:
        """Of each parameter its name, the rows of its weights in the list, their places and what they become."""
        design, members = self.design, self.members[selection, replicate]
        noise = design.disturbance.noise(len(members), generator(design.seed, selection, replicate, "noise"))
        found = []
        for name, rows in members.by_parameter().items():
            p = self.scope.model.get_parameter(name)
            index = torch.as_tensor(members.index[rows], dtype=torch.long)
            values = p.detach().take(index.to(p.device)).cpu()
            new = design.disturbance.of(values, noise[rows], design.disturbance.scale_of(p))
            found.append((name, torch.as_tensor(rows), index, torch.stack([values, new])))
        return found

    def _measure(self, prediction: Prediction | None, changes: list, count: int, at: tuple, parts: Sequence[slice]) -> None:
        model = self.scope.model
        first = [(name, index[rows < count], values[:, rows < count]) for name, rows, index, values in changes]
        first = [each for each in first if len(each[1])]
        steps = {name: (index, values[1].double() - values[0].double()) for name, index, values in first}
        self.squares[at] = sum(float((values[0].double() ** 2).sum()) for _, _, values in first) / count
        orders = prediction.of(steps) if prediction else (np.nan, np.nan)
        on = [model.get_parameter(name) for name, _, _ in first]
        changes = [Change(p, where.to(p.device), new.to(p.device)) for p, (_, where, (_, new)) in zip(on, first, strict=True)]
        with changed(model, changes) as n_changed:
            if not n_changed and not at[0]:
                raise ValueError(_why_nothing([values[0] for _, _, values in first], self.design))
            losses = self.measured.by_sample(parts).numpy()
        self.n_changed[at], self.first_order[at], self.second_order[at] = n_changed, *orders
        self.changed[at] = np.where(np.isfinite(losses), losses, np.inf)

    def _prediction(self, names: set[str], parts: Sequence[slice]) -> Prediction | None:
        """None where the weights are too coarse for a derivative."""
        half = [name for name in sorted(names) if self.scope.model.get_parameter(name).dtype not in WIDE]
        if half:
            kind = str(self.scope.model.get_parameter(half[0]).dtype).removeprefix("torch.")
            self.notes.append(f"nothing is predicted: {half[0]} is {kind}, in which derivatives are lost in rounding")
            return None
        modules = sorted({name.rpartition(".")[0].replace("[", "[[]") for name in names})
        objective = Objective(self.scope, self.measured.samples, modules=modules, reduction="sum")
        curvature = Curvature(objective, "hessian", chunk=self._chunk) if self.design.second_order else None
        return Prediction(objective, parts, curvature)


class Prediction:
    """ḡᵀδ and ḡᵀδ + ½ δᵀHδ, of the model as it is."""

    def __init__(self, objective: Objective, parts: Sequence[slice], curvature: Curvature | None) -> None:
        self._curvature = curvature
        self._parameters = objective.parameters
        self._at = {name: i for i, name in enumerate(objective.chosen)}
        self._gradient = objective.gradient(parts)

    def of(self, steps: dict[str, tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """NaN where a step is no finite number, or the second order is not asked for."""
        longest = max(float(step.abs().max()) for _, step in steps.values())
        if not np.isfinite(longest):
            return np.nan, np.nan
        first = self._along(self._gradient, steps)
        if self._curvature is None:
            return first, np.nan
        if not longest:
            return first, first
        vector = torch.zeros(self._curvature.size, dtype=self._curvature.dtype, device=self._curvature.device)
        pieces = shaped(vector, self._parameters)
        for name, (index, step) in steps.items():  # of length about 1: a square of 1e30 would not fit single precision
            pieces[self._at[name]].put_(index.to(vector.device), (step / longest).to(vector))
        product = shaped(self._curvature(vector), self._parameters)
        second = first + 0.5 * longest * self._along(product, steps)
        return first, second if np.isfinite(second) else np.nan

    def _along(self, vectors: Sequence[Tensor], steps: dict[str, tuple[Tensor, Tensor]]) -> float:
        return sum(
            float(vectors[self._at[name]].take(index.to(vectors[0].device)).double().cpu() @ step)
            for name, (index, step) in steps.items()
        )


def _why_nothing(values: Sequence[Tensor], design: Design) -> str:
    n, zero = sum(map(len, values)), not any(bool(each.any()) for each in values)
    share = "the chosen weight" if n == 1 else f"all {n} chosen weights"
    how = design.disturbance
    if zero and (how.name != "gaussian" or how.relative_to == "weight"):
        return f"the value of {share} is 0 already, and method={how.name!r} leaves it so: nothing would change, choose others"
    return f"the step is below the rounding of {share}: nothing would change, give a larger one"
