"""Whitened products of samples' gradients, head by head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.groups import ByHead
from tensorscope_nb.recipes.tasks import TwoTasks
from tensorscope_nb.sweep.paired import Part, Place
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.sweep.capture import Chunk
    from tensorscope_nb.sweep.measure import Found, Want
    from tensorscope_nb.sweep.parameters import Parameter

Mode = Literal["signed", "magnitude", "symmetric"]
Ridge = float | Literal["relative"]
Key = tuple[str, int, int]  # block, layer, head: the first of those that share the weights
RELATIVE = 0.1  # of the median, where the ridge is relative
CROSSED = ((0, 2), (0, 3), (1, 2), (1, 3))  # a half of a with a half of b


def parts_of(heads: ByHead, bias: bool) -> dict[str, list[Part]]:
    """The slices of each head by parameter; K and V that heads share stand there once, under the first of them."""
    found: dict[str, list[Part]] = {}
    for name, places in heads.places.items():
        if bias or name.endswith("weight"):
            parts: dict[tuple[int, ...], Part] = {}
            for (layer, head, block), *where in places:
                parts.setdefault(tuple(where), Part((block, layer, head), *where))
            found[name] = list(parts.values())
    return found


class HeadPairs(Reducer):
    """Of each head's weights and each two samples i of a, j of b, with Î the mean of squared gradients,

    signed −Σ g_i g_j / (Î + λ) and symmetric Σ |g_i g_j| / (Î + λ), Î over both tasks; magnitude
    Σ g_i² |g_j| / (max(Î, ε) + λ), Î over a alone. Beside the signed ones stand those for a test, ``fitted``, in which Î is over
    the halves of the tasks that i and j are not in: an Î that holds the pair itself goes up and down with its product, and p
    comes out too small where gradients are rare or skewed.
    """

    def __init__(self, two: TwoTasks, parts: dict[str, list[Part]], mode: Mode, epsilon: float, ridge: Ridge) -> None:
        self.a, self.b, self.squares = torch.as_tensor(two.a), torch.as_tensor(two.b), two.squares
        self.halves = [torch.as_tensor(rows) for rows in two.halves]
        self.by_name, self.mode, self.epsilon, self.ridge = parts, mode, epsilon, ridge
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.totals: dict[str, Tensor] = {}
        self.seen = 0
        self.values: dict[Key, Tensor] = {}
        self.fitted: dict[Key, Tensor] = {}
        self._made: tuple[str, list[Tensor]] = ("", [])
        self.swamped: dict[Key, bool] = {}  # whether the ridge is above the median

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return (self.squares, "parts") if parameter.name in self.by_name else ()

    def parts(self, parameter: Parameter) -> Sequence[Part]:
        return self.by_name[parameter.name]

    def update(self, parameter: Parameter, found: Found, start: int) -> None:
        if parameter.name in self.by_name:
            self.totals[parameter.name] = self.totals.get(parameter.name, 0) + found[self.squares]

    def see(self, chunk: Chunk, start: int) -> None:
        self.seen = start + len(chunk.samples)

    def take(self, parameter: Parameter, part: Part, place: Place, one: Tensor, other: Tensor, i: int, j: int) -> None:
        fishers = self._fishers(parameter.name)
        if self.ridge != "relative":
            self.swamped[part.key] = self.swamped.get(part.key, False) or float(self.ridge) > _median(fishers[0], part)
        scales = [self._scale(fisher, part, place) for fisher in fishers]
        for first, second, p, q in ((one, other, i, j), (other, one, j, i))[: 1 if i == j else 2]:
            self._add(part.key, first, second, p, q, scales)

    def _fishers(self, name: str) -> list[Tensor]:
        """Î of the scores, and for the test that of the halves beside each two; those of the parameter at hand are kept."""
        if self._made[0] != name:
            of_all = [0, 1] if self.mode == "magnitude" else [0, 1, 2, 3]
            others = [[1 - h, 5 - k] for h, k in CROSSED] if self.mode == "signed" else []
            counts = [int((rows < self.seen).sum()) for rows in self.halves]
            total = self.totals[name]
            self._made = name, [total[some].sum(0) / sum(counts[half] for half in some) for some in (of_all, *others)]
        return self._made[1]

    def _scale(self, fisher: Tensor, part: Part, place: Place) -> Tensor:
        """1 / (Î + λ), flat."""
        ridge = RELATIVE * _median(fisher, part) if self.ridge == "relative" else self.ridge
        here = fisher[place.rows, place.columns].flatten()
        below = (here.clamp(min=self.epsilon) if self.mode == "magnitude" else here) + ridge
        return torch.where(below > 0, 1 / below, 0.0)

    def _add(self, key: Key, one: Tensor, other: Tensor, i: int, j: int, scales: Sequence[Tensor]) -> None:
        """The products of the samples of a in ``one`` and of b in ``other``."""
        in_a, in_b = ((rows >= n) & (rows < n + len(block)) for rows, n, block in ((self.a, i, one), (self.b, j, other)))
        left, right = one[self.a[in_a] - i], other[self.b[in_b] - j]
        if self.mode == "magnitude":
            left, right = left**2, right.abs()
        elif self.mode == "symmetric":
            left, right = left.abs(), right.abs()
        sign = -1 if self.mode == "signed" else 1
        at = in_a.nonzero(), in_b.nonzero()[:, 0]
        values, fitted = (t.setdefault(key, torch.zeros(len(self.a), len(self.b)).double()) for t in (self.values, self.fitted))
        values[at] += sign * ((left * scales[0].to(left)) @ right.T).double().cpu()
        half_a, half_b = (torch.isin(r, h) for r, h in ((self.a[in_a], self.halves[1]), (self.b[in_b], self.halves[3])))
        for (h, k), scale in zip(CROSSED, scales[1:], strict=False):
            rows, columns = (half_a == bool(h)).nonzero()[:, 0], (half_b == (k == 3)).nonzero()[:, 0]
            found = (left[rows] * scale.to(left)) @ right[columns].T
            fitted[at[0][rows], at[1][columns]] -= found.double().cpu()

    def merge(self, other: Self, start: int) -> None:
        for mine, theirs in ((self.values, other.values), (self.fitted, other.fitted)):
            for key, values in theirs.items():
                mine[key] = mine[key] + values if key in mine else values
        for key, swamped in other.swamped.items():
            self.swamped[key] = self.swamped.get(key, False) or swamped

    def nbytes(self, n: int) -> float:
        tables = len(self.values) + len(self.fitted)
        return sum(total.nbytes for total in self.totals.values()) + 8 * len(self.a) * len(self.b) * tables


def _median(fisher: Tensor, part: Part) -> float:
    return float((fisher[part.start : part.stop] if part.axis == 0 else fisher[:, part.start : part.stop]).median())


def spread_over_heads(heads: ByHead, values: dict[Key, np.ndarray]) -> np.ndarray:
    """(block, layer, head, …) from what the slices have; heads that share one show the same. NaN where there is none."""
    shape = next(iter(values.values())).shape
    table = np.full((len(heads.blocks), heads.anatomy.n_layers, heads.anatomy.n_heads, *shape), np.nan)
    for (block, layer, head), value in values.items():
        at = heads.blocks.index(block)
        table[at, layer, head : head + heads.sharing()[at]] = value
    return table
