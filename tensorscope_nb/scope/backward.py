"""``loss.backward()`` inside a trace: a plain backward, and nnsight's block ``with loss.backward(): gradient = z.grad``.

The copies that a trace gives out retain their gradients, so that the block finds them in any order and
``torch.Tensor.grad`` stays what it is for everyone else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nnsight.intervention import backward as nnsight_backward
from torch import Tensor

_here = threading.local()


@contextmanager
def retained(copies: list[Tensor]) -> Iterator[None]:
    """While a trace is open in this thread: ``copies`` are what it has given out."""
    before = getattr(_here, "given", [])
    _here.given = [*before, copies]
    try:
        yield
    finally:
        _here.given = before


class Backward:
    """The gradients are there when the block begins; what is written into them in the block would reach nothing."""

    def __init__(self, loss: Tensor, backward: Callable, args: tuple, kwargs: dict) -> None:
        self.call = lambda: backward(loss, *args, **kwargs)
        self.loss = loss
        self.found: list[tuple[Tensor, Tensor, int]] = []

    def capture(self) -> None:
        """Where nnsight would read the block's source, the backward is run."""
        if not self.loss.requires_grad:
            raise ValueError(
                "the loss of this backward carries no gradient: the trace stands inside torch.no_grad(), is a generation, "
                "or all parameters of the model are frozen"
            )
        self.call()
        copies = [copy for given in _here.given for copy in given]
        self.found = [(copy, copy.grad, copy.grad._version) for copy in copies if copy.grad is not None]

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        written = any(copy.grad is not grad or grad._version > version for copy, grad, version in self.found)
        if written and error[0] is None:
            raise ValueError(
                "a gradient was written inside `with loss.backward():`, where the backward has run already: to change a "
                "gradient on its way, register_hook(function) on the tensor before the backward"
            )


def _install() -> None:
    """nnsight, once imported, asks this name at every ``Tensor.backward()``."""
    theirs = getattr(nnsight_backward.BackwardTracer, "theirs", nnsight_backward.BackwardTracer)

    def backward_tracer(loss: Tensor, backward: Callable, *args: Any, **kwargs: Any) -> Any:
        if getattr(_here, "given", None):
            return Backward(loss, backward, args, kwargs)
        return theirs(loss, backward, *args, **kwargs)

    backward_tracer.theirs = theirs  # type: ignore[attr-defined]
    nnsight_backward.BackwardTracer = backward_tracer


_install()
