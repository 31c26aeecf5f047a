"""How far the loss rises in the worst direction nearby."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.intervals import ratio_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit, sample_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.moved import moved
from tensorscope_nb.sweep.gradients import Reduction
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

RHO, ADAPTIVE_RHO = 0.05, 0.5  # of Foret et al. and of Kwon et al.
ETA = 0.01  # so that a weight of zero can move


@recipe(question="How sharp is the minimum?", source="Foret et al. 2020, arXiv:2010.01412", needs=("gradients", "losses"))
def sam_sharpness(
    scope: Scope,
    samples: Any,
    *,
    rho: float | None = None,
    ascent_steps: int = 1,
    adaptive: bool = False,
    per_sample: bool = False,
    reduction: Reduction = "mean",
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """How far the mean loss rises within a distance ρ of the weights, along the gradient or as far as an ascent finds.

    What it answers: how sensitive the loss is to the worst small change of all weights at once.
    Equation: sharpness = L(θ + ε) − L(θ), L = Σ_i w_i ℓ_i / Σ_i w_i with w_i = 1, or with ``reduction="sum"`` the predicted
    tokens of sample i; ε = ρ g / ‖g‖ with g = ∇L(θ). ``adaptive``: ε = ρ T² g / ‖T g‖, so that ‖T⁻¹ ε‖ = ρ, with T = |w| +
    0.01 for each weight and 1 for each bias: large weights move further, and scaling layers against each other changes
    nothing (but for the 0.01). ``rho`` is .05 if none is given, and with ``adaptive`` .5, each the default of its paper. With
    more ``ascent_steps``, ε ← ρ g(θ + ε) / ‖g(θ + ε)‖ (adaptive: likewise), the generalised power method of Journée et al.
    2010, arXiv:0811.4724: each step maximises over the ball what is linear there, has no step size, and on a convex loss never
    goes down; its first step is SAM's. The largest increase of all steps is kept: a lower bound on the maximum over the ball.
    Source: Foret et al. 2020; Kwon et al. 2021, arXiv:2102.11600 (adaptive).

    Result: scalars ``sharpness``, ``ci_low``, ``ci_high`` (95 % Student interval over samples of the paired differences at
    this ε), ``relative`` (sharpness / loss), ``loss``, ``perturbed_loss``, ``grad_norm`` (‖g‖), ``first_order`` (ρ ‖g‖, or
    ρ ‖T g‖: the increase if the loss were linear) and ``remainder`` (sharpness − first_order: for one step about half the
    curvature along g, times ρ²). With ``per_sample`` also ``[sample] sharpness_by_sample``, ℓ_i(θ + ε) − ℓ_i(θ). Where the
    gradient is exactly zero, or the loss at θ + ε is not finite, the sharpness is NaN and the notes say why.
    Errors: ValueError for a ``rho`` that is not above 0; UnsupportedModel in half precision. Cost: two forwards, one forward and
    backward, and for each further step two forwards and a backward; three more copies of the weights, adaptive five.
    How to read it: compare models at equal ρ and on the same samples, or with ``adaptive`` models whose weights have other
    scales. When not to trust it: ε was chosen on these samples, so that the interval tells how the increase at this ε differs
    between them, and neither what a direction chosen anew would give nor what fresh samples would show (less, on average).
    Without ``adaptive`` it changes where the same function is written with other scales of layers. At a minimum the
    gradient is sampling noise, and so is its direction. Single precision rounds the increase by about 1e-7 of the loss.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> found = ts.recipes.sam_sharpness(scope, ts.datasets.shakespeare(scope, n=4, length=16))
    >>> bool(found["sharpness"] > 0), bool(found["loss"] < found["perturbed_loss"])
    (True, True)
    """
    samples = scope.samples(samples)
    radius = (ADAPTIVE_RHO if adaptive else RHO) if rho is None else rho
    if not (radius > 0 and math.isfinite(radius)):
        raise ValueError(f"rho is {rho!r}: give the distance to go, a number above 0")
    if isinstance(ascent_steps, bool) or not isinstance(ascent_steps, int) or ascent_steps < 1:
        raise ValueError(f"ascent_steps is {ascent_steps!r}: give a whole number from 1 on")
    objective = Objective(scope, samples, modules=modules, reduction=reduction)
    ascent = Ascent(objective, radius, ascent_steps, adaptive, chunk)
    yield Work(ascent, "steps of the ascent", progress, least=2)
    weights = objective.weights.numpy()
    loss, perturbed = (float(each @ weights / weights.sum()) for each in (ascent.losses, ascent.highest))
    differences = ascent.highest - ascent.losses
    sharpness, low, high = ratio_interval(weights * differences, weights)
    first_order, words, unit = radius * ascent.slope, "increase of the loss", loss_unit(scope)
    variables: dict[str, Variable] = {
        "sharpness": ((), sharpness, words, unit),
        "ci_low": ((), low, f"{words}, lower end of the 95 % interval", unit),
        "ci_high": ((), high, f"{words}, upper end of the 95 % interval", unit),
        "relative": ((), sharpness / loss if loss > 0 else np.nan, f"{words}, over the loss", ""),
        "loss": ((), loss, "loss", unit),
        "perturbed_loss": ((), perturbed, "loss at the moved weights", unit),
        "grad_norm": ((), ascent.grad_norm, "norm of the mean gradient", "loss per unit of weight"),
        "first_order": ((), first_order, f"{words}, were it linear", unit),
        "remainder": ((), sharpness - first_order, f"{words} beyond its linear part", unit),
    }
    coords: dict[str, Any] = {}
    if per_sample:
        variables["sharpness_by_sample"] = (("sample",), differences, "increase of the sample's loss", unit)
        coords = sample_coords(samples)
    said = {"rho": float(radius), "n_steps": ascent.n_steps, "best_step": ascent.best_step, "notes": ascent.notes}
    result = dataset(variables, coords, **said, n_used=len(samples), n_available=len(samples), n_weights=objective.size)
    result["sharpness"].attrs["interval"] = f"95 % Student interval over {len(samples)} samples, at the ε chosen on them"
    return result


class Ascent:
    """Each sample's loss at θ, and at the highest θ + ε so far."""

    losses: np.ndarray  # from the first step on, as are the norms
    grad_norm: float
    slope: float  # ‖T g‖ at θ, the increase per ρ

    def __init__(self, objective: Objective, rho: float, n_steps: int, adaptive: bool, chunk: int | None) -> None:
        self.objective, self.rho, self.adaptive = objective, rho, adaptive
        self._asked, self._chunk = n_steps, chunk
        self.highest = np.full(len(objective.samples), np.nan)
        self.n_steps = self.best_step = 0
        self.notes: list[str] = []

    @property
    def total(self) -> float:
        return 1 + self._asked

    @property
    def nbytes(self) -> float:
        return (5 if self.adaptive else 3) * sum(p.nbytes for p in self.objective.parameters)

    def steps(self) -> Iterator[None]:
        objective, model = self.objective, self.objective.scope.model
        parts = objective.parts(self._chunk)
        objective.check_apart(parts[0])
        losses = objective.by_sample(parts)
        check_finite(losses, objective.samples, model)
        self.losses = losses.numpy()
        scales = self._scales()  # of θ, which is what the ball is around
        uphill = objective.gradient(parts)
        self.grad_norm, self.slope = _norm(uphill), _norm(_times(scales, uphill))
        if not math.isfinite(self.slope):
            raise ValueError(
                "the gradient of the mean loss is not a finite number, though the loss is: look at where the model divides or "
                "takes a root"
            )
        yield
        while self.n_steps < self._asked:
            steepest = _times(scales, uphill)
            if not (length := _norm(steepest)):
                self.notes.append(f"the gradient is exactly zero after {self.n_steps} steps: no direction leads uphill")
                return
            steps = (self.rho / length * step for step in _times(scales, steepest))
            with moved(model, objective.parameters, steps):
                losses = objective.by_sample(parts)
                if not bool(losses.isfinite().all()):
                    self.notes.append(f"at step {self.n_steps + 1} the loss is no finite number: give a smaller rho=")
                    return
                if self.n_steps + 1 < self._asked:
                    uphill = objective.gradient(parts)
            self._take(losses.numpy())
            yield

    def _take(self, losses: np.ndarray) -> None:
        self.n_steps += 1
        weights = self.objective.weights.numpy()
        if self.n_steps == 1 or losses @ weights > self.highest @ weights:
            self.highest, self.best_step = losses, self.n_steps

    def _scales(self) -> list[Tensor] | None:
        """T: how far each weight may move."""
        if not self.adaptive:
            return None
        chosen = self.objective.chosen.items()
        biases = ["bias" in name.rpartition(".")[2] for name, _ in chosen]
        return [torch.ones_like(p) if bias else p.detach().abs() + ETA for bias, (_, p) in zip(biases, chosen, strict=True)]


def _times(scales: Sequence[Tensor] | None, vectors: Sequence[Tensor]) -> Sequence[Tensor]:
    return vectors if scales is None else [t * v for t, v in zip(scales, vectors, strict=True)]


def _norm(vectors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float((v.double() ** 2).sum()) for v in vectors))
