"""Which tokens make the inner product of two samples' gradients."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from tensorscope_nb.recipes.dataset import Variable
from tensorscope_nb.sweep.forms import Gradients
from tensorscope_nb.sweep.paired import positions
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.sweep.measure import Want
    from tensorscope_nb.sweep.parameters import Parameter

HELD = 2**25  # numbers made at once


class PairTokens(Reducer):
    """Of some pairs of samples what each position of one, and of the other, adds to ⟨gᵢ, gⱼ⟩: the rows and columns of

    Σ over weights (L_i,s · L_j,t)(R_i,s · R_j,t), summed over the positions of the other sample.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], length: int) -> None:
        self.one, self.other = (torch.tensor(side) for side in zip(*pairs, strict=True))
        self.length = length
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.rows, self.columns = (torch.zeros(len(self.one), self.length, dtype=torch.float64) for _ in "ab")
        self.unknown: set[str] = set()  # parameters whose positions are not known apart

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return ("factors",)

    def cross(self, parameter: Parameter, one: Gradients, other: Gradients, i: int, j: int) -> None:
        self._add(parameter, one, other, self.one - i, self.other - j, turned=False)
        if i != j:
            self._add(parameter, one, other, self.other - i, self.one - j, turned=True)

    def _add(
        self, parameter: Parameter, one: Gradients, other: Gradients, p: torch.Tensor, q: torch.Tensor, *, turned: bool
    ) -> None:
        here = ((p >= 0) & (p < one.n) & (q >= 0) & (q < other.n)).nonzero()[:, 0]
        step = max(1, HELD // max(1, self.length * (one.rows + one.columns)))
        for some in here.split(step):
            found = positions(one.of(p[some]), other.of(q[some]))
            if found is None or found.shape[1:] != (self.length, self.length):
                if found is not None or one.forms or other.forms:
                    self.unknown.add(parameter.name)
                return
            rows, columns = found.sum(2).cpu(), found.sum(1).cpu()
            self.rows[some] += columns if turned else rows
            self.columns[some] += rows if turned else columns

    def keep(self, pairs: Sequence[int]) -> None:
        """Forgets the other pairs."""
        self.one, self.other, self.rows, self.columns = (
            each[list(pairs)] for each in (self.one, self.other, self.rows, self.columns)
        )

    def merge(self, other: Self, start: int) -> None:
        self.rows, self.columns = self.rows + other.rows, self.columns + other.columns
        self.unknown |= other.unknown


def token_variables(
    samples: Samples, tokens: PairTokens, unit: str, skip_first: bool
) -> tuple[dict[str, Variable], np.ndarray, np.ndarray]:
    """The pairs' tokens with what each adds, and the token of each side that lowers the product most.

    ``skip_first`` tells what the first token adds apart, and leaves it out of the tokens.
    """
    variables: dict[str, Variable] = {}
    lowest: list[np.ndarray] = []
    for side, numbers, values in (("a", tokens.one, tokens.rows), ("b", tokens.other, tokens.columns)):
        seen = samples.attention_mask[numbers].bool()
        ids = samples.input_ids[numbers]
        first = seen.long().argmax(1, keepdim=True)
        words = f"of sample {side} adds to the inner product"
        variables[f"first_token_{side}"] = (
            ("pair",),
            values.gather(1, first)[:, 0].numpy(),
            f"what the first token {words}",
            unit,
        )
        told = seen.scatter(1, first, False) if skip_first else seen
        added = values.masked_fill(~told, torch.nan)
        strings = np.array([samples.token_strings(int(i)) for i in numbers], dtype=object)
        dims = ("pair", f"position_{side}")
        variables[f"contribution_{side}"] = (dims, added.numpy(), "what the token adds to the inner product", unit)
        variables[f"token_text_{side}"] = (dims, strings, f"token of sample {side}", "")
        variables[f"token_id_{side}"] = (dims, ids.masked_fill(~seen, -1).numpy(), f"token of sample {side}, −1 beyond it", "")
        at = added.nan_to_num(torch.inf).argmin(1, keepdim=True)
        found = ids.gather(1, at)[:, 0]
        lowest.append(torch.where(told.any(1), found, -1).numpy())
    return variables, lowest[0], lowest[1]


def share_first(samples: Samples) -> bool:
    """Whether all begin with the same token, such as one that marks the beginning of a text."""
    first = samples.attention_mask.argmax(1, keepdim=True)
    return len(samples) > 1 and len(samples.input_ids.gather(1, first).unique()) == 1


def pair_coords(two: Any, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The coordinates of ``pair``: both ids, and a name made of them."""
    one, other = ([two.samples.ids[i] for i in rows] for rows in zip(*pairs, strict=True))
    names = np.array([f"{x} × {y}" for x, y in zip(one, other, strict=True)], dtype=object)
    return {
        "pair": ("pair", names, {"order": "most conflicting first"}),
        "pair_sample_a": ("pair", np.array(one, dtype=object)),
        "pair_sample_b": ("pair", np.array(other, dtype=object)),
    }
