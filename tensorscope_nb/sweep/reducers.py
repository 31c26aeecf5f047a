"""What gradient recipes keep: sums, squared masses by group, diagonals, and the Gram matrix per module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tensorscope_nb.sweep.factors import Parameter

Groups = Callable[[Parameter, slice, Tensor], Mapping[object, Tensor]]


class Sums:
    """Σᵢ gᵢ of each parameter."""

    pairwise = False

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}

    def tile(self, parameter: Parameter, rows: slice, gradients: Tensor, start: int) -> None:
        if parameter.name not in self.totals:
            self.totals[parameter.name] = torch.zeros_like(parameter.tensor, dtype=torch.float64)
        _rows(self.totals[parameter.name], rows).add_(gradients.sum(0))


class Diagonal:
    """Σᵢ f(gᵢ, w) of each single weight, by default the squares."""

    pairwise = False

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.of = of
        self.totals: dict[str, Tensor] = {}

    def tile(self, parameter: Parameter, rows: slice, gradients: Tensor, start: int) -> None:
        if parameter.name not in self.totals:
            self.totals[parameter.name] = torch.zeros_like(parameter.tensor, dtype=torch.float32)
        if self.of is None:
            added = torch.einsum("n...,n...->...", gradients, gradients)
        else:
            added = self.of(gradients, _rows(parameter.tensor.detach(), rows)).sum(0)
        _rows(self.totals[parameter.name], rows).add_(added)


class Masses:
    """qᵢ = Σ_{k ∈ group} gᵢₖ² of each sample and group; ``groups`` says which masses a tile adds to which group."""

    pairwise = False

    def __init__(self, n: int, groups: Groups) -> None:
        self.n = n
        self.groups = groups
        self.values: dict[object, Tensor] = {}

    def tile(self, parameter: Parameter, rows: slice, gradients: Tensor, start: int) -> None:
        for group, masses in self.groups(parameter, rows, gradients).items():
            if group not in self.values:
                self.values[group] = torch.zeros(self.n, *masses.shape[1:], dtype=torch.float64)
            self.values[group][start : start + len(masses)] += masses.cpu()


class Gram:
    """K[i, j] = ⟨gᵢ, gⱼ⟩ of each module."""

    pairwise = True

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def tile(self, parameter: Parameter, rows: slice, gradients: Tensor, start: int) -> None:
        flat = gradients.reshape(len(gradients), -1)
        product = (flat @ flat.T).double().cpu()
        self.values[parameter.module] = self.values[parameter.module] + product if parameter.module in self.values else product


def _rows(tensor: Tensor, rows: slice) -> Tensor:
    """A view of some rows; a single number is one row."""
    return tensor[rows] if tensor.ndim else tensor


def squares(gradients: Tensor) -> Tensor:
    """‖gᵢ‖² of each sample."""
    flat = gradients.reshape(len(gradients), -1)
    return torch.einsum("nk,nk->n", flat, flat)
