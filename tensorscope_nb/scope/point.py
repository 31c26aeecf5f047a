"""A point: one side of one module, where a tensor can be read and written."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

TAP = "tap"  # the name under which an attention module carries its site modules while it is tapped
TAPPED = ("q", "k", "v", "scores", "pattern")


@dataclass(frozen=True)
class Point:
    """One side of one module, and how a user sees the tensor there."""

    path: str  # "" is the model itself
    side: Literal["input", "output"] = "output"
    view: Literal["plain", "heads", "transposed"] = "plain"
    n_heads: int = 0
    part: tuple[int, int] = (0, 1)  # (i, n): the i-th of n equal parts of the last axis, for fused projections

    def seen(self, tensor: Tensor) -> Tensor:
        """The tensor as a user sees it: a view, so that what is written into it is written into ``tensor``."""
        if self.part[1] > 1:
            width = tensor.shape[-1] // self.part[1]
            tensor = tensor.narrow(-1, self.part[0] * width, width)
        if self.view == "heads":
            return tensor.unflatten(-1, (self.n_heads, -1))  # (batch, position, head, d_head)
        if self.view == "transposed":
            return tensor.transpose(1, 2)  # (batch, head, position, d_head) -> (batch, position, head, d_head)
        return tensor

    def under(self, module: str, n_heads: int) -> Point:
        """The same point, its path inside ``module``."""
        return replace(self, path=f"{module}.{self.path}".rstrip("."), n_heads=n_heads if self.view == "heads" else 0)

    @property
    def tapped(self) -> bool:
        return f".{TAP}." in self.path


def main_tensor(value: Any) -> Tensor:
    """The tensor that a module passes on: itself, the first of a tuple, or the logits (else the states) of a model's output."""
    place = _place(value)
    return value if place is None else value[place]


def with_main_tensor(value: Any, tensor: Tensor) -> Any:
    place = _place(value)
    if place is None:
        return tensor
    if isinstance(value, tuple):
        return (tensor, *value[1:])
    changed = copy(value)
    changed[place] = tensor
    return changed


def _place(value: Any) -> Any:
    if isinstance(value, tuple):
        return 0
    if isinstance(value, Mapping):
        return next(name for name in ("logits", "last_hidden_state", *value) if name in value)
    return None
