"""The sweep: one forward per chunk, in which just those sites are read that some reducer needs.

sweep(scope, samples, [reducer, another])      # each has seen every chunk; ask it for its result()
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check_output, chunks, output_of
from tensorscope_nb.scope.point import Point
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.scope import Scope


class Chunk:
    """Some samples, and what the model did with them."""

    def __init__(self, samples: Samples, points: dict[str, Point], bases: dict[str, Tensor]) -> None:
        self.samples = samples
        self._points = points
        self._bases = bases

    def site(self, name: str) -> Tensor:
        """The tensor at a site, as a user sees it; first axis sample."""
        return self._points[name].seen(self._bases[name])


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
        with bar(len(parts), label, progress) as done:
            for part in parts:
                check_output(output_of(scope.model, part, scope.anatomy), part, scope.model)
                seen = Chunk(part, points, bases)
                for reducer in reducers:
                    reducer.update(seen)
                done.update()


def bar(total: int, label: str, progress: bool | None = None) -> Any:
    """A progress bar that appears where the work takes longer than a second, and leaves nothing behind."""
    from tqdm import tqdm

    wanted = current().progress if progress is None else progress
    # in a notebook: text, which a saved file forgets (a closed widget would stay in it as an error), and not on red
    stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    return tqdm(total=total, desc=label, delay=1, leave=False, disable=not wanted, file=stream, ncols=80)
