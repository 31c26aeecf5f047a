"""What a recipe asks for, so that several recipes can be answered by one sweep.

A recipe that reads gradients *yields* a request and is sent the answer; run alone it gets a sweep of its own, and in a Study
the requests of several recipes for the same samples are answered by one.

    covered = yield GradientRequest(samples, [masses])
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorscope_nb.samples import Samples
from tensorscope_nb.sweep.gradients import Coverage, GradientReducer, Reduction, gradient_sweep

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


@dataclass(frozen=True)
class GradientRequest:
    """Per-sample gradients of ``samples``, for these reducers."""

    samples: Samples
    reducers: Sequence[GradientReducer]
    reduction: Reduction = "mean"
    modules: str | Sequence[str] | None = None
    chunk: int | None = None
    progress: bool | None = None

    @property
    def sweep(self) -> Any:
        """Equal for requests that one sweep can answer."""
        modules = self.modules if self.modules is None or isinstance(self.modules, str) else tuple(self.modules)
        return id(self.samples), self.reduction, modules, self.chunk, self.progress


Asking = Generator[GradientRequest, Coverage, Any]


def answer(scope: Scope, requests: Sequence[GradientRequest]) -> list[Coverage]:
    """The answer to each request, with one sweep for all that can share it."""
    found: dict[Any, Coverage] = {}
    for key in dict.fromkeys(request.sweep for request in requests):
        sharing = [request for request in requests if request.sweep == key]
        first = sharing[0]
        found[key] = gradient_sweep(
            scope,
            first.samples,
            [reducer for request in sharing for reducer in request.reducers],
            reduction=first.reduction,
            modules=first.modules,
            chunk=first.chunk,
            progress=first.progress,
        )
    return [found[request.sweep] for request in requests]


def drive(scope: Scope, running: Sequence[Asking]) -> list[Any]:
    """Runs recipes side by side to their ends, answering together what they ask for at the same time."""
    results: list[Any] = [None] * len(running)
    waiting = {i: _next(generator, None, results, i) for i, generator in enumerate(running)}
    while waiting := {i: request for i, request in waiting.items() if request is not None}:
        covered = answer(scope, list(waiting.values()))
        waiting = {i: _next(running[i], given, results, i) for (i, _), given in zip(waiting.items(), covered, strict=True)}
    return results


def _next(generator: Asking, given: Coverage | None, results: list[Any], i: int) -> GradientRequest | None:
    try:
        return generator.send(given)  # type: ignore[arg-type]
    except StopIteration as end:
        results[i] = end.value
        return None
