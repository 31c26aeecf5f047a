"""Parameters that stand elsewhere for a while, and are bit by bit what they were afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tensorscope_nb.scope.interrupts import held_interrupts
from tensorscope_nb.scope.state import turn

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def moved(model: nn.Module, parameters: Sequence[nn.Parameter], steps: Iterable[Tensor]) -> Iterator[None]:
    """Inside, each parameter θ stands at θ + ε, with ε the step that is its own; the model's lock is held.

    However it ends, the values come back from a copy, and never by subtracting: (θ + ε) − ε is not θ in floating point. They
    are written past autograd, so that ``requires_grad`` and graphs that the user holds stay as they are. An interrupt waits
    until the model runs, or the end. Another thread that runs the bare model meanwhile runs it moved.
    """
    with held_interrupts() as held, turn(model, held):
        kept = [p.detach().clone() for p in parameters]
        try:
            for p, step in zip(parameters, steps, strict=True):
                p.data.add_(step)
            yield
        finally:
            for p, value in zip(parameters, kept, strict=True):
                p.data.copy_(value)
