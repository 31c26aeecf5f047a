"""One point of the model as nnsight serves it to a trace.

Every read gives a copy of its own, on the way of the value: what was saved of it stays as it was when the site is
written later, its gradient is its own, and writing into it is safe in a backward. When the block moves on, the copy that
was written last goes back into the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Interleaver
from torch import Tensor

from tensorscope_nb.scope.point import Point, main_tensor, with_main_tensor


class Reads:
    """The copies that were given out of one value."""

    def __init__(self, seen: Tensor) -> None:
        self.seen = seen
        self.given: list[tuple[Tensor, int]] = []
        self.left: list[int] | None = None  # the version of each copy when the model went on

    def current(self) -> Tensor:
        """The copy that was written last; if none was, the last one given."""
        written = [tensor for tensor, version in self.given if tensor._version > version]
        return written[-1] if written else self.given[-1][0] if self.given else self.seen

    def take(self) -> Tensor:
        copy = self.current().clone()
        self.given.append((copy, copy._version))
        return copy

    def leave(self) -> Tensor:
        """What the model goes on with."""
        self.left = [tensor._version for tensor, _ in self.given]
        return self.current()

    @property
    def written_too_late(self) -> bool:
        return self.left is not None and any(t._version > version for (t, _), version in zip(self.given, self.left, strict=False))


class Place:
    """One side of one module, where the user's block waits until the model comes by."""

    def __init__(self, path: str, interleaver: Interleaver, point: Point) -> None:
        self.path = path
        self.interleaver = interleaver
        self.point = point

    def reads(self, side: Literal["input", "output"]) -> Reads:
        return self.input if side == "input" else self.output

    def write(self, side: Literal["input", "output"], value: Any) -> None:
        def put(tensor: Tensor) -> Tensor:
            new = tensor.clone()
            self.point.seen(new)[...] = value
            return new

        if side == "input":
            self.whole_input = _on_input(self.whole_input, put)
        else:
            raw = self.whole_output
            self.whole_output = with_main_tensor(raw, put(main_tensor(raw)))

    @eproperty(key="output")
    def whole_output(self, value: Any) -> Any:
        return value

    @eproperty(key="input")
    def whole_input(self, value: Any) -> Any:
        return value

    @eproperty(key="output")
    def output(self, value: Any) -> Reads:
        return Reads(self.point.seen(main_tensor(value)))

    @output.transform  # type: ignore[no-redef]
    def output(self, reads: Reads, raw: Any) -> Any:
        return with_main_tensor(raw, self._written(main_tensor(raw), reads))

    @eproperty(key="input")
    def input(self, value: Any) -> Reads:
        return Reads(self.point.seen(_first_tensor(*value)))

    @input.transform  # type: ignore[no-redef]
    def input(self, reads: Reads, raw: Any) -> Any:
        return _on_input(raw, lambda tensor: self._written(tensor, reads))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self.path, self.point) == (other.path, other.point)

    def __hash__(self) -> int:
        return hash((self.path, self.point))

    def _written(self, base: Tensor, reads: Reads) -> Tensor:
        new = base.clone()
        self.point.seen(new).copy_(reads.leave())
        return new


def _on_input(value: tuple[tuple, dict], change: Callable[[Tensor], Tensor]) -> tuple[tuple, dict]:
    """The arguments of a call, with the first tensor among them changed."""
    args, kwargs = value
    if args:
        return (change(args[0]), *args[1:]), kwargs
    name = _name_of_first(kwargs)
    return args, kwargs | {name: change(kwargs[name])}


def _first_tensor(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs[_name_of_first(kwargs)]


def _name_of_first(kwargs: dict) -> str:
    return next(name for name, argument in kwargs.items() if isinstance(argument, Tensor))
