"""What stands at one place of the model while the model waits there, as the user sees and changes it.

Every read gives a copy of its own, on the way of the value: what was read stays as it was when the site is written later,
its gradient is its own, and writing into it is safe in a backward. When the model goes on, it goes on with the copy that
was written last.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tensorscope_nb.scope.point import TAP, Point, main_tensor, with_main_tensor

OURS = (f".{TAP}.scores", f".{TAP}.pattern")  # made and used up inside the tap


class Reads:
    """The copies that were given out of one value."""

    def __init__(self, seen: Tensor, *, is_ours: bool = False) -> None:
        self.seen = seen
        self.is_ours = is_ours  # nobody else will read it or write into it: it needs no copy
        self.given: list[tuple[Tensor, int]] = []
        self.left: list[int] | None = None  # the version of each copy when the model went on

    def current(self) -> Tensor:
        """The copy that was written last; if none was, the last one given."""
        written = [tensor for tensor, version in self.given if tensor._version > version]
        return written[-1] if written else self.given[-1][0] if self.given else self.seen

    def take(self) -> Tensor:
        copy = self.seen if self.is_ours and not self.given else self.current().clone()
        if copy.requires_grad:
            copy.retain_grad()
        self.given.append((copy, copy._version))
        return copy

    def put(self, value: Any) -> None:
        new = torch.empty_like(self.seen)
        new[...] = value
        self.given.append((new, -1))

    def leave(self) -> None:
        """From here on a write comes too late."""
        self.left = [tensor._version for tensor, _ in self.given]

    @property
    def written_too_late(self) -> bool:
        return self.left is not None and any(t._version > version for (t, _), version in zip(self.given, self.left, strict=False))


class Place:
    """One side of one module, at one moment."""

    def __init__(self, side: Literal["input", "output"], value: Any) -> None:
        self.side = side
        self.value = value
        self.reads: dict[Point, Reads] = {}

    def at(self, point: Point) -> tuple[Reads, bool]:
        """The reads of a point, and whether they are its first; each part of a tensor sees what was written into the others."""
        new = point not in self.reads
        if new:
            tensor = self._tensor()
            is_ours = point.path.endswith(OURS) and not tensor.requires_grad
            self.reads[point] = Reads(point.seen(tensor), is_ours=is_ours)
        return self.reads[point], new

    def leave(self) -> Any:
        """The value that the model goes on with."""
        for reads in self.reads.values():
            reads.leave()
        unchanged = all(reads.current() is reads.seen for reads in self.reads.values())
        return self.value if unchanged else self._with(self._tensor())

    def _tensor(self) -> Tensor:
        tensor = main_tensor(self.value) if self.side == "output" else _first_tensor(*self.value)
        for point, reads in self.reads.items():
            is_whole = reads.seen.nelement() == tensor.nelement()
            tensor = torch.empty_like(tensor) if is_whole else tensor.clone()
            point.seen(tensor).copy_(reads.current())
        return tensor

    def _with(self, tensor: Tensor) -> Any:
        if self.side == "output":
            return with_main_tensor(self.value, tensor)
        args, kwargs = self.value
        return ((tensor, *args[1:]), kwargs) if args else (args, kwargs | {_name_of_first(kwargs): tensor})


def _first_tensor(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs[_name_of_first(kwargs)]


def _name_of_first(kwargs: dict) -> str:
    return next(name for name, argument in kwargs.items() if isinstance(argument, Tensor))
