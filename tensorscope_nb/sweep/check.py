"""Whether the factors tell the truth: one sample is run alone, with an ordinary backward, and must get the same gradients.

It finds a use of a weight that no rule sees, an axis that only looks like samples, and a model in which one sample's loss
depends on the others, which has no per-sample gradients at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import output_of
from tensorscope_nb.scope.loss import check_attached, check_finite
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.sweep.forms import Gradients, as_matrix, widened
from tensorscope_nb.sweep.parameters import Parameter

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

AGREES = 1e-3  # relative to the largest entry of the parameter


class Alone:
    """The loss of one sample run by itself, and of each parameter its gradient times a vector of random signs."""

    def __init__(self, scope: Scope, part: Samples, weights: Tensor, parameters: Sequence[Parameter]) -> None:
        self.at = int(part.lengths.argmax()) if part.has_tokens else 0
        sample = part[self.at]
        tensors = [parameter.tensor for parameter in parameters]
        with preserved(scope.model), torch.enable_grad():
            loss = scope.rule.per_sample(output_of(scope.model, sample, scope.anatomy), sample)
            check_finite(loss.detach(), sample, scope.model)
            if tensors:
                check_attached(loss)
            total = (loss * weights[self.at].to(loss)).sum()
            gradients = torch.autograd.grad(total, tensors, allow_unused=True) if tensors else ()
        self.loss = float(loss.detach())
        self.gradients = {
            parameter.name: torch.zeros(len(parameter.matrix)) if g is None else self._signed(as_matrix(g.to_dense()))
            for parameter, g in zip(parameters, gradients, strict=True)
        }
        precision = max((torch.finfo(tensor.dtype).eps for tensor in [loss, *tensors]), default=0.0)
        self.tolerance = max(AGREES, 8 * precision)
        # a gradient that is zero by symmetry (a key's bias) is rounding on the scale of the others
        self.noise = 8 * precision * max((float(g.abs().max()) for g in self.gradients.values()), default=0.0)

    def _signed(self, matrix: Tensor) -> Tensor:
        wide = widened(matrix)
        return wide @ _signs(wide.shape[1]).to(wide)

    def check_loss(self, losses: Tensor) -> None:
        """Raises where the sample's loss is another one among other samples."""
        if abs(float(losses[self.at]) - self.loss) > self.tolerance * abs(self.loss) + 1e-6:
            raise UnsupportedModel("the loss of a sample changes with the samples beside it: it has no gradient of its own")

    def says_nothing_of(self, parameter: Parameter) -> bool:
        """Whether the sample does not reach the parameter: a gradient of zero is what any rule would give."""
        return not bool(self.gradients[parameter.name].any())

    def agrees(self, parameter: Parameter, gradients: Gradients) -> bool:
        """Whether the sample has, among the others, the gradient that it has alone."""
        if parameter.name not in self.gradients:  # it was looked at before
            return True
        expected = self.gradients[parameter.name]
        one = gradients.of(slice(self.at, self.at + 1))
        found = one.times(_signs(one.columns).to(expected))[0]
        allowed = max(self.tolerance * float(expected.abs().max()), self.noise)
        return float((found.to(expected) - expected).abs().max()) <= allowed


@lru_cache
def _signs(n: int) -> Tensor:
    return 2 * torch.randint(2, (n,), generator=torch.Generator().manual_seed(n)) - 1
