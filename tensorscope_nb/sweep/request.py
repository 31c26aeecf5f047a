"""What a recipe asks for, so that several recipes can be answered by one sweep.

A recipe that reads gradients *yields* a request and is sent what the sweep covered; run alone it gets a sweep of its own,
and in a Study the requests of several recipes for the same samples are answered by one.

    covered = yield GradientRequest(samples, [masses])
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tensorscope_nb.samples import Samples
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.gradients import Coverage, Reduction, gradient_sweep
from tensorscope_nb.sweep.reducers import Reducer
from tensorscope_nb.sweep.units import Kind, Unit, units
from tensorscope_nb.sweep.work import Done, Work

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


@dataclass(frozen=True)
class GradientRequest:
    """Per-sample gradients of ``samples``, for these reducers.

    ``unit`` says of what there is one gradient each, ``kind`` whose labels the losses have: the data's (empirical), or some
    drawn from the model with ``seed``. ``enough`` says of how many samples, where not all are done, something can be made
    (of none: it is then answered with None).
    """

    samples: Samples
    reducers: Sequence[Reducer]
    reduction: Reduction = "mean"
    unit: Unit = "sequence"
    kind: Kind = "empirical"
    seed: int | None = None
    modules: str | Sequence[str] | None = None
    chunk: int | None = None
    progress: bool | None = None
    enough: Callable[[int], bool] = bool  # whether something can be made of the first so many samples
    more: float = 0  # passes that are asked for after this, for who plans

    @property
    def held(self) -> Sequence[Any]:
        """What holds all that is done."""
        return self.reducers

    @property
    def sweep(self) -> Any:
        """Equal for requests that one sweep can answer."""
        modules = tuple(self.modules) if isinstance(self.modules, list) else self.modules
        return id(self.samples), self.reduction, self.unit, self.kind, self.seed, modules, self.chunk, self.progress


Request = GradientRequest | Work
Answer = Coverage | Done
Asking = Generator[Request, Any, Any]
Started = Callable[[], Asking]
SoFar = Callable[[dict[int, Callable[[], Any]]], None]  # by number of the recipe, what makes its result of the samples done


def drive(
    scope: Scope, starting: Sequence[Started], *, executor: Executor | None = None, so_far: SoFar | None = None
) -> list[Any]:
    """Runs recipes side by side to their ends, answering together what they ask for at the same time.

    ``so_far`` hears of results while their sweep runs. An interrupt is raised when all have made what they can of the
    samples that were done; what each has is then its ``results``.
    """
    results: list[Any] = [None] * len(starting)
    running = [start() for start in starting]
    waiting: dict[int, Request] = {}
    try:
        for i, asking in enumerate(running):
            if (request := _next(asking, None, results, i)) is not None:
                waiting[i] = request
        first = True
        while waiting:
            for group in sharing(waiting):
                listen = _telling(starting, group, so_far) if so_far and first else None
                answer = _answer(scope, list(group.values()), executor, listen)
                for i, request in group.items():
                    del waiting[i]
                    given = _given(request, answer)
                    following = _next(running[i], given, results, i) if given else request if answer.interrupted else None
                    if following is not None:
                        waiting[i] = following
                if answer.interrupted:
                    raise KeyboardInterrupt
            first = False
    except KeyboardInterrupt as interrupt:
        for i, request in waiting.items():
            if request.enough(0):
                _next(running[i], None, results, i)
        raise Unfinished(results) from interrupt
    return results


def sharing(waiting: dict[int, Request]) -> list[dict[int, Request]]:
    """The requests by the sweep that can answer them."""
    found: dict[Any, dict[int, Request]] = {}
    for i, request in waiting.items():
        found.setdefault(request.sweep, {})[i] = request
    return list(found.values())


class Unfinished(KeyboardInterrupt):
    """An interrupt, with what every recipe has made of what was done (None where that is nothing)."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__("interrupted: what was done is in the results of this error, and in the study where one ran")
        self.results = results


def _answer(scope: Scope, group: Sequence[Request], executor: Executor | None, so_far: Callable[[Any], None] | None) -> Answer:
    first = group[0]
    if isinstance(first, Work):
        return first.run(so_far, executor)
    reducers: list[Reducer] = [reducer for request in group for reducer in request.held]
    options: dict[str, Any] = {"reduction": first.reduction, "modules": first.modules, "chunk": first.chunk}
    options["progress"] = first.progress
    seed = current().seed if first.seed is None else first.seed
    samples, source = units(scope, first.samples, first.unit, first.kind, seed)

    def placed(covered: Coverage) -> Coverage:
        return replace(covered, source=source[: len(covered.samples)] if first.unit == "token" else None)

    if executor is not None:
        from tensorscope_nb.sweep.spread import spread

        return placed(spread(executor, scope, samples, reducers, **options))
    tell = None if so_far is None else lambda covered: so_far(placed(covered))
    return placed(gradient_sweep(scope, samples, reducers, so_far=tell, **options))


def _telling(starting: Sequence[Started], group: dict[int, Request], so_far: SoFar) -> Callable[[Any], None]:
    """Each recipe is started once more, and given what the running one holds."""

    def made(i: int, request: Request, answer: Answer) -> Any:
        again = starting[i]()
        for fresh, held in zip(next(again).held, request.held, strict=True):
            vars(fresh).update(vars(held))
        results: list[Any] = [None] * len(starting)
        _next(again, answer, results, i)
        return results[i]

    def tell(answer: Answer) -> None:
        given = {i: _given(request, answer) for i, request in group.items()}
        so_far({i: partial(made, i, group[i], each) for i, each in given.items() if each})

    return tell


def _given(request: Request, answer: Answer) -> Answer | None:
    """What a request was answered with: inner products of pairs are ready later than what adds up over samples."""
    if isinstance(request, Work) or isinstance(answer, Done):
        assert isinstance(answer, Done)
        return answer if answer.complete or request.enough(answer.n_steps) else None
    covered = answer
    if any(reducer.wants_pairs(p) for p in covered.parameters for reducer in request.reducers):
        if not covered.n_paired:
            return None
        covered = covered.first(covered.n_paired)
    return covered if request.enough(len(covered.samples)) else None


def _next(generator: Asking, given: Answer | None, results: list[Any], i: int) -> Request | None:
    try:
        return generator.send(given)
    except StopIteration as end:
        results[i] = end.value
        return None
