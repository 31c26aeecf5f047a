"""Directions in the space of the weights: random ones, made as long as the weights, and the plane that two of them span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from tensorscope_nb.recipes.modules import output_axis

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Normalize = Literal["filter", "layer", "none"]


@dataclass(frozen=True)
class Plane:
    """θ + x δ + y η for some parameters, with δ and η as tensors of their shapes."""

    parameters: Sequence[nn.Parameter]
    delta: Sequence[Tensor]
    eta: Sequence[Tensor]

    @property
    def size(self) -> int:
        return sum(p.nelement() for p in self.parameters)

    @property
    def norms(self) -> tuple[float, float]:
        return _dot(self.delta, self.delta) ** 0.5, _dot(self.eta, self.eta) ** 0.5

    @property
    def cosine(self) -> float:
        """Of the angle between δ and η; NaN where one of them is zero."""
        x, y = self.norms
        return _dot(self.delta, self.eta) / (x * y) if x * y else float("nan")

    def at(self, x: float, y: float) -> Iterator[Tensor]:
        """x δ + y η, one parameter after the other."""
        for delta, eta in zip(self.delta, self.eta, strict=True):
            yield x * delta + y * eta


def random_plane(scope: Scope, chosen: Mapping[str, nn.Parameter], normalize: Normalize, seed: int) -> Plane:
    """Two Gaussian directions, normalised as in Li et al. 2018 (arXiv:1712.09913), the same on every device."""
    moving = {name: p for name, p in chosen.items() if normalize == "none" or p.ndim > 1}
    if not moving:
        raise LookupError(
            f"normalize is {normalize!r}, which leaves biases and norms where they are, and modules= leaves nothing else: choose "
            "modules with weight matrices, or normalize='none'"
        )
    generator = torch.Generator().manual_seed(seed)

    def direction() -> list[Tensor]:
        return [_drawn(scope, name, p, normalize, generator) for name, p in moving.items()]

    return Plane(list(moving.values()), direction(), direction())


def _drawn(scope: Scope, name: str, parameter: nn.Parameter, normalize: Normalize, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    if normalize == "none":
        return drawn
    norm = vector_norm if normalize == "layer" else lambda tensor: filter_norms(scope, name, tensor)
    return drawn * (norm(parameter.detach()) / norm(drawn))


def filter_norms(scope: Scope, name: str, tensor: Tensor) -> Tensor:
    """The norm of the weights into one output each, shaped to be multiplied with all of them.

    These are the rows of a Linear and of an embedding, the columns of a Conv1D, and a convolution's kernels by output
    channel. A parameter of another kind of module is cut along its first axis, a tied one as the module that holds it first.
    """
    path = name.rpartition(".")[0]
    module = scope.model.get_submodule(path)
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # (in, out / groups, …), each group with inputs of its own
        grouped = tensor.unflatten(0, (module.groups, -1))
        norms = vector_norm(grouped, dim=[1, *range(3, grouped.ndim)], keepdim=True)
        return norms.expand(-1, grouped.shape[1], *norms.shape[2:]).flatten(0, 1)
    axis = output_axis(scope, path, tensor)
    return vector_norm(tensor, dim=[i for i in range(tensor.ndim) if i != axis], keepdim=True)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((u.double() * v.double()).sum()) for u, v in zip(a, b, strict=True))
