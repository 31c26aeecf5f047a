"""The mean loss of some samples as a function of some of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check, chunks, output_of
from tensorscope_nb.scope.loss import check_attached, check_finite
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.sweep.check import Alone
from tensorscope_nb.sweep.gradients import Reduction, check_asked

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

PIECEWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Threshold, nn.MaxPool1d, nn.MaxPool2d)


class Objective:
    """L(θ) = Σᵢ wᵢ ℓᵢ(θ) / Σᵢ wᵢ, with ℓᵢ a sample's mean loss and wᵢ 1 (``"mean"``) or its predicted tokens (``"sum"``)."""

    def __init__(
        self,
        scope: Scope,
        samples: Samples,
        *,
        modules: str | Sequence[str] | None = None,
        reduction: Reduction = "mean",
        differentiable: bool = True,
    ) -> None:
        check_asked(scope.model, reduction)
        if not len(samples):
            raise ValueError("there are no samples: give at least 1")
        self.scope = scope
        # only the losses: of weights that are frozen, or in half precision, as well
        self.chosen = chosen_parameters(scope, modules) if differentiable else {}
        _refuse_half(self.chosen)
        self.samples = scope.rule.prepared(samples)
        check(self.samples, scope.anatomy)
        terms = scope.rule.n_terms(self.samples).double()
        self.weights = terms if reduction == "sum" else torch.ones_like(terms)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.chosen.values())

    @property
    def size(self) -> int:
        return sum(p.nelement() for p in self.parameters)

    @property
    def notes(self) -> list[str]:
        """What a second derivative of this loss does not see."""
        if not any(isinstance(module, PIECEWISE) for module in self.scope.model.modules()):
            return []
        return [
            "the model is piecewise linear in places (ReLU or its like): its curvature is that of the piece on which the weights "
            "stand, and the kinks between pieces add nothing to it"
        ]

    @contextmanager
    def differentiated(self) -> Iterator[None]:
        """Inside, the model can be run and differentiated."""
        with preserved(self.scope.model), torch.enable_grad():
            yield

    def outputs(self, rows: slice) -> Tensor:
        """What the model says of some samples."""
        return output_of(self.scope.model, self.samples[rows], self.scope.anatomy)

    def losses(self, outputs: Tensor, rows: slice) -> Tensor:
        """ℓᵢ of some samples."""
        part = self.samples[rows]
        losses = self.scope.rule.per_sample(outputs, part)
        check_finite(losses.detach(), part, self.scope.model)
        return losses

    def shares(self, rows: slice, like: Tensor) -> Tensor:
        """wᵢ / Σ w of some samples."""
        return (self.weights[rows] / self.weights.sum()).to(like)

    def loss(self, outputs: Tensor, rows: slice) -> Tensor:
        """What some samples add to L."""
        losses = self.losses(outputs, rows)
        if torch.is_grad_enabled():
            check_attached(losses)
        return (losses * self.shares(rows, losses)).sum()

    def check_apart(self, rows: slice) -> None:
        """Raises where a sample's loss is another one among other samples: a sum over chunks would change with the cut."""
        alone = Alone(self.scope, self.samples[rows], self.weights[rows], [])
        with self.differentiated(), torch.no_grad():
            alone.check_loss(self.losses(self.outputs(rows), rows))

    def parts(self, chunk: int | None = None) -> list[slice]:
        """The samples, as many at a time as ``chunk`` says or the memory option allows."""
        ends = accumulate(len(part) for part in chunks(self.samples, self.scope.anatomy, chunk))
        return [slice(start, end) for start, end in pairwise([0, *ends])]

    def by_sample(self, parts: Sequence[slice]) -> Tensor:
        """ℓᵢ of all samples (n,), in double precision; one that is no finite number is left for the caller to judge."""
        with self.differentiated(), torch.no_grad():
            losses = [self.scope.rule.per_sample(self.outputs(rows), self.samples[rows]) for rows in parts]
            return torch.cat([part.double().cpu() for part in losses])

    def gradient(self, parts: Sequence[slice], coefficients: Tensor | None = None) -> list[Tensor]:
        """∇L, in the order of the parameters; with ``coefficients`` (n,) ∇ Σᵢ cᵢ ℓᵢ."""
        total = [torch.zeros_like(p) for p in self.parameters]
        for rows in parts:
            with self.differentiated():
                losses = self.losses(self.outputs(rows), rows)
                check_attached(losses)
                shares = self.shares(rows, losses) if coefficients is None else coefficients[rows].to(losses)
                found = torch.autograd.grad((losses * shares).sum(), self.parameters, materialize_grads=True, allow_unused=True)
            for sum_, gradient in zip(total, found, strict=True):
                sum_ += gradient.to_dense()
        return total


def _refuse_half(chosen: dict[str, nn.Parameter]) -> None:
    for name, parameter in chosen.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise UnsupportedModel(
                f"{name} is {str(parameter.dtype).removeprefix('torch.')}: small changes of such weights, and second "
                "derivatives by them, are lost in rounding; load the model with dtype=torch.float32, or call model.float()"
            )
