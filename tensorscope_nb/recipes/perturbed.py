"""The losses of a model some of whose weights are changed: of a list's first ones, and of others beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tensorscope_nb.recipes.controls import Design, members_of
from tensorscope_nb.recipes.disturbance import Disturbance
from tensorscope_nb.recipes.training import generator
from tensorscope_nb.recipes.weight_list import WeightList
from tensorscope_nb.scope import Scope
from tensorscope_nb.scope.changed import Change, changed
from tensorscope_nb.scope.flat import shaped
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.objective import Objective

WIDE = (torch.float32, torch.float64)


class Step(NamedTuple):
    """What is done to the weights of one parameter."""

    name: str
    parameter: nn.Parameter
    rows: Tensor  # of the list, in order
    places: Tensor  # in the parameter
    old: Tensor
    new: Tensor

    @property
    def delta(self) -> Tensor:
        return self.new.double() - self.old.double()

    def first(self, count: int) -> Step:
        """Of the first weights of the list only."""
        keep = self.rows < count
        return self._replace(rows=self.rows[keep], places=self.places[keep], old=self.old[keep], new=self.new[keep])


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
        self.predicts = True
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
        self.measured.check_apart(parts[0])
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
                steps = self._steps(selection, replicate)
                for r, count in enumerate(design.counts):
                    self._measure(prediction, [step.first(count) for step in steps if step.rows[0] < count], (s, r, to), parts)
                    yield

    def _steps(self, selection: str, replicate: int) -> list[Step]:
        design, members = self.design, self.members[selection, replicate]
        noise = design.disturbance.noise(len(members), generator(design.seed, selection, replicate, "noise"))
        found = []
        for name, rows in members.by_parameter().items():
            p = self.scope.model.get_parameter(name)
            places = torch.as_tensor(members.index[rows], dtype=torch.long)
            old = p.detach().take(places.to(p.device)).cpu()
            new = design.disturbance.of(old, noise[rows], design.disturbance.scale_of(p))
            found.append(Step(name, p, torch.as_tensor(rows), places, old, new))
        return found

    def _measure(self, prediction: Prediction | None, steps: Sequence[Step], at: tuple, parts: Sequence[slice]) -> None:
        self.squares[at] = sum(float((step.old.double() ** 2).sum()) for step in steps) / sum(len(step.old) for step in steps)
        if prediction:
            self.first_order[at], self.second_order[at] = prediction.of(steps)
        changes = [Change(step.parameter, *(x.to(step.parameter.device) for x in (step.places, step.new))) for step in steps]
        with changed(self.scope.model, changes) as n_changed:
            if not n_changed and not at[0]:  # of the top weights
                raise ValueError(_why_nothing(steps, self.design.disturbance))
            losses = self.measured.by_sample(parts).numpy()
        self.n_changed[at] = n_changed
        self.changed[at] = np.where(np.isfinite(losses), losses, np.inf)

    def _prediction(self, names: set[str], parts: Sequence[slice]) -> Prediction | None:
        """None where the weights are too coarse for a derivative."""
        half = [name for name in sorted(names) if self.scope.model.get_parameter(name).dtype not in WIDE]
        if half:
            kind = str(self.scope.model.get_parameter(half[0]).dtype).removeprefix("torch.")
            self.predicts = False
            self.notes.append(f"nothing is predicted: {half[0]} is {kind}, in which derivatives are lost in rounding")
            return None
        modules = sorted({name.rpartition(".")[0].replace("[", "[[]") for name in names})
        objective = Objective(self.scope, self.measured.samples, modules=modules, reduction="sum")
        if not self.design.second_order:
            return Prediction(objective, parts, None)
        self.notes += objective.notes
        return Prediction(objective, parts, Curvature(objective, "hessian", chunk=self._chunk))


class Prediction:
    """ḡᵀδ and ḡᵀδ + ½ δᵀHδ, of the model as it is."""

    def __init__(self, objective: Objective, parts: Sequence[slice], curvature: Curvature | None) -> None:
        self._curvature = curvature
        self._parameters = objective.parameters
        self._at = {name: i for i, name in enumerate(objective.chosen)}
        self._gradient = objective.gradient(parts)

    def of(self, steps: Sequence[Step]) -> tuple[float, float]:
        """NaN where a step is no finite number, or the second order is not asked for."""
        longest = max(float(step.delta.abs().max()) for step in steps)
        if not np.isfinite(longest):
            return np.nan, np.nan
        first = self._along(self._gradient, steps)
        if self._curvature is None:
            return first, np.nan
        if not longest:
            return first, first
        vector = torch.zeros(self._curvature.size, dtype=self._curvature.dtype, device=self._curvature.device)
        pieces = shaped(vector, self._parameters)
        for step in steps:  # of length about 1: the square of 1e30 would not fit single precision
            pieces[self._at[step.name]].put_(step.places.to(vector.device), (step.delta / longest).to(vector))
        second = first + 0.5 * longest * self._along(shaped(self._curvature(vector), self._parameters), steps)
        return first, second if np.isfinite(second) else np.nan

    def _along(self, vectors: Sequence[Tensor], steps: Sequence[Step]) -> float:
        own = ((vectors[self._at[step.name]], step) for step in steps)
        return sum(float(vector.take(step.places.to(vector.device)).double().cpu() @ step.delta) for vector, step in own)


def _why_nothing(steps: Sequence[Step], how: Disturbance) -> str:
    n, zero = sum(len(step.old) for step in steps), not any(bool(step.old.any()) for step in steps)
    share = "the chosen weight" if n == 1 else f"all {n} chosen weights"
    if zero and (how.name != "gaussian" or how.relative_to == "weight"):
        return f"the value of {share} is 0 already, and method={how.name!r} leaves it so: nothing would change, choose others"
    return f"the step is below the rounding of {share}: nothing would change, give a larger one"
