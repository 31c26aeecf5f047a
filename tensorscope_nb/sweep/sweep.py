"""The sweep: one forward per chunk, in which just those sites are read that some reducer needs.

sweep(scope, samples, [reducer, another])      # each has seen every chunk; ask it for its result()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check_output, chunks, output_of
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.sweep.capture import Chunk
from tensorscope_nb.sweep.progress import bar

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


class Reducer(Protocol):
    """What a recipe keeps while a sweep runs."""

    @property
    def needs(self) -> Sequence[str]: ...  # sites, or patterns of sites

    def update(self, chunk: Chunk) -> None: ...

    def result(self) -> Any: ...


def sweep(
    scope: Scope,
    samples: Samples,
    reducers: Sequence[Reducer],
    *,
    chunk: int | None = None,
    progress: bool | None = None,
    label: str = "sweep",
) -> None:
    """Runs the model once over ``samples``, in evaluation mode and without gradients, and feeds every reducer."""
    patterns = [need for reducer in reducers for need in reducer.needs]
    points = expand(patterns, scope.anatomy, scope.model) if patterns else {}
    tapped = any(point.tapped for point in points.values())
    with preserved(scope.model), torch.no_grad(), intercepted(scope.model, scope.anatomy, points, []) as bases:
        parts = list(chunks(samples, scope.anatomy, chunk, patterns=tapped))
        with bar(len(samples), label, progress) as done:
            for part in parts:
                check_output(output_of(scope.model, part, scope.anatomy), part, scope.model)
                seen = Chunk(part, points, bases)
                for reducer in reducers:
                    reducer.update(seen)
                done.update(len(part))
