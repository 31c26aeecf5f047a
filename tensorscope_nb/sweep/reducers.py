"""What gradient recipes keep: sums, squared masses by group, diagonals, losses, and the Gram matrix per module.

A reducer of part of the samples, or of some of the parameters, is merged into one of all: that is how work is spread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from tensorscope_nb.sweep.capture import Chunk
from tensorscope_nb.sweep.forms import Gradients
from tensorscope_nb.sweep.measure import ByGroup, Found, Want
from tensorscope_nb.sweep.paired import PAIRED, Part, Place
from tensorscope_nb.sweep.parameters import Parameter


class Reducer(ABC):
    """What a recipe keeps of the gradients; by itself it wants nothing."""

    needs: Sequence[str] = ()  # sites that it reads, or patterns of sites

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, n: int) -> None:
        """So many samples will come; what was held is forgotten."""
        self.n = n

    def wants(self, parameter: Parameter) -> Collection[Want]:
        """What is to be measured of a parameter; of pairs of samples ``gram``, ``parts`` and ``factors``."""
        return ()

    def wants_pairs(self, parameter: Parameter) -> bool:
        return not PAIRED.isdisjoint(self.wants(parameter))

    def update(self, parameter: Parameter, found: Found, start: int) -> None:  # noqa: B027
        """Takes what was found of the samples from number ``start`` on."""

    def hold(self, parameter: Parameter, gradients: Gradients) -> None:  # noqa: B027
        """Where ``each`` is wanted: the gradients of one chunk after another."""

    def pair(self, parameter: Parameter, products: Tensor, i: int, j: int) -> None:  # noqa: B027
        """Where ``gram`` is wanted: the inner products (n, m) of the samples from number ``i`` and from ``j`` on, j ≤ i."""

    def parts(self, parameter: Parameter) -> Sequence[Part]:
        """Where ``parts`` are wanted: which; together they are the whole parameter."""
        return ()

    def take(  # noqa: B027
        self, parameter: Parameter, part: Part, place: Place, one: Tensor, other: Tensor, i: int, j: int
    ) -> None:
        """Where ``parts`` are wanted: a block of a part, of the samples from number ``i`` and from ``j`` on, (n, weights)."""

    def cross(self, parameter: Parameter, one: Gradients, other: Gradients, i: int, j: int) -> None:  # noqa: B027
        """Where ``factors`` are wanted: the gradients of the samples from number ``i`` and from ``j`` on, positions apart."""

    def see(self, chunk: Chunk, start: int) -> None:  # noqa: B027
        """Takes what stands at the sites, and the gradients there."""

    @abstractmethod
    def merge(self, other: Self, start: int) -> None:
        """Takes in what another one has seen, whose first sample is number ``start`` here."""

    def nbytes(self, n: int) -> float:
        """What it would hold of n samples, going by what it holds of some."""
        return 0


class Sums(Reducer):
    """Σᵢ of one thing, weight by weight: ``sum`` of the gradients or ``squares`` (both also by groups), or a function of them."""

    def __init__(self, want: Want = "sum") -> None:
        self.want = want
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.totals: dict[str, Tensor] = {}

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return (self.want,)

    def update(self, parameter: Parameter, found: Found, start: int) -> None:
        groups = [len(self.want.groups)] if isinstance(self.want, ByGroup) else []
        added = found[self.want].reshape((*groups, *parameter.tensor.shape))
        if parameter.name in self.totals:
            self.totals[parameter.name] = self.totals[parameter.name] + added
        else:
            self.totals[parameter.name] = added

    def nbytes(self, n: int) -> float:
        return sum(total.nbytes for total in self.totals.values())

    def merge(self, other: Self, start: int) -> None:
        for name, total in other.totals.items():
            self.totals[name] = self.totals[name] + total if name in self.totals else total


class Groups(Protocol):
    """How the weights of a parameter fall into groups."""

    def wants(self, parameter: Parameter) -> Collection[Want]: ...

    def of(self, parameter: Parameter, found: Found) -> Mapping[Any, Tensor]:
        """What the groups have of this parameter, (n, …) each."""
        ...


class Masses(Reducer):
    """qᵢ = Σ_{k ∈ group} gᵢₖ² of each sample and group."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.values: dict[Any, Tensor] = {}

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return self.groups.wants(parameter)

    def update(self, parameter: Parameter, found: Found, start: int) -> None:
        for group, masses in self.groups.of(parameter, found).items():
            self._add(group, masses, start)

    def nbytes(self, n: int) -> float:
        return sum(masses[0].nbytes * n for masses in self.values.values())

    def merge(self, other: Self, start: int) -> None:
        for group, masses in other.values.items():
            self._add(group, masses, start)

    def _add(self, group: Any, masses: Tensor, start: int) -> None:
        if group not in self.values:
            self.values[group] = torch.zeros(self.n, *masses.shape[1:], dtype=torch.float64)
        self.values[group][start : start + len(masses)] += masses.double().cpu()


class Losses(Reducer):
    """The mean loss of each sample."""

    def begin(self, n: int) -> None:
        super().begin(n)
        self.values = torch.full((n,), torch.nan, dtype=torch.float64)

    def see(self, chunk: Chunk, start: int) -> None:
        assert chunk.losses is not None
        self.values[start : start + len(chunk.losses)] = chunk.losses.double().cpu()

    def merge(self, other: Self, start: int) -> None:
        self.values[start : start + len(other.values)] = other.values


class Gram(Reducer):
    """K[i, j] = ⟨gᵢ, gⱼ⟩ of each module."""

    def begin(self, n: int) -> None:
        super().begin(n)
        self.values: dict[str, Tensor] = {}

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return ("gram",)

    def pair(self, parameter: Parameter, products: Tensor, i: int, j: int) -> None:
        k = self.values.setdefault(parameter.module, torch.zeros(self.n, self.n, dtype=torch.float64))
        n, m = products.shape
        k[i : i + n, j : j + m] += products
        if i != j:
            k[j : j + m, i : i + n] += products.T

    def nbytes(self, n: int) -> float:
        return 8 * n * n * len(self.values)

    def merge(self, other: Self, start: int) -> None:
        for module, k in other.values.items():
            self.values[module] = self.values[module] + k if module in self.values else k
