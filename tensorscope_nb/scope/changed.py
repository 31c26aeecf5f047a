"""Single entries of parameters that hold other values for a while, and are bit by bit what they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tensorscope_nb.numerics.bits import n_differing
from tensorscope_nb.scope.interrupts import held_interrupts
from tensorscope_nb.scope.state import turn

if TYPE_CHECKING:
    from torch import Tensor, nn


class Change(NamedTuple):
    """Entries of one parameter, and what they shall hold."""

    parameter: nn.Parameter
    places: Tensor  # (k,) row-major, each once, on the parameter's device
    values: Tensor  # (k,) of the parameter's dtype


@contextmanager
def changed(model: nn.Module, changes: Sequence[Change]) -> Iterator[int]:
    """Inside, the entries hold the values that are given, and the model's lock is held; yields how many of them differ now.

    That number is counted on what the parameters store (0 and −0 are one value): where it is 0 the model is what it was.
    However it ends, these entries and no others come back, from a copy of them. They are written past autograd, so that
    ``requires_grad`` and graphs that the user holds stay as they are. An interrupt waits until the model runs, or the end.
    Another thread that runs the bare model meanwhile runs it changed.
    """
    with held_interrupts() as held, turn(model, held):
        kept = [change.parameter.data.take(change.places) for change in changes]
        try:
            for parameter, places, values in changes:
                parameter.data.put_(places, values)  # as if it were one row, also where its memory is not
            stored = (change.parameter.data.take(change.places) for change in changes)
            yield sum(n_differing(before, now) for before, now in zip(kept, stored, strict=True))
        finally:
            for change, before in zip(changes, kept, strict=True):
                change.parameter.data.put_(change.places, before)
