"""What a run of a study will take, before it starts."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from tensorscope_nb.recipes.recipe import Recipe
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import bytes_per_sample, chunks, usual_chunk
from tensorscope_nb.settings import options
from tensorscope_nb.study.calls import Calls, arguments, by_subject
from tensorscope_nb.study.members import Members
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.pairs import passes
from tensorscope_nb.sweep.request import GradientRequest, Request, sharing
from tensorscope_nb.sweep.units import tokens_apart

if TYPE_CHECKING:
    import pandas as pd

    from tensorscope_nb.scope import Scope

FEW, MORE = 4, 16  # samples of the two trial runs


def plan(members: Members, samples: Any, recipes: Sequence[Recipe]) -> pd.DataFrame:
    """See :meth:`tensorscope_nb.Study.plan`."""
    import pandas as pd

    scope = next(iter(members.scopes))
    given = None if samples is None else scope.samples(samples)
    each, along, across = by_subject(recipes)
    with options(progress=False):
        rows = [*_asking(scope, given, each), *_others(scope, given, each)]
        rows += [_along(members.scopes, recipe) for recipe in along]
        rows += [_across(members, scope, given, recipe) for recipe in across]
    table = pd.DataFrame(rows, columns=["recipes", "kind", "samples", "passes", "chunk", "bytes", "seconds"])
    return table.assign(models=len(members), seconds=(table["seconds"] * len(members)).round(2))


def _along(history: Any, recipe: Recipe) -> tuple:
    """One checkpoint of a recipe that follows all of them."""
    with closing(recipe.started(history)) as asking:
        work: Any = next(asking)
        start = time.perf_counter()
        next(work.state.steps())
        return recipe.name, work.label, work.state.n, 1.0, work.state.n, int(work.state.nbytes), time.perf_counter() - start


def _across(members: Members, scope: Scope, samples: Any, recipe: Recipe) -> tuple:
    """One model of a recipe that compares all of them."""
    models: Any = dict(zip(members.coordinates, members.scopes, strict=True))
    few = samples[: min(MORE, len(samples))]
    rows, seconds = _trial(scope, partial(recipe, models, few))
    chunk = min(len(samples), recipe.options.get("chunk") or usual_chunk(samples, scope.anatomy))
    passes, whole = rows / len(few), seconds / len(members) * len(samples) / len(few)
    memory = bytes_per_sample(samples, scope.anatomy) * chunk
    return recipe.name, "forward and backward", len(samples), round(passes, 2), chunk, int(memory), whole


def _asking(scope: Scope, samples: Samples | None, recipes: Sequence[Recipe]) -> Iterable[tuple]:
    """The sweeps, and the steps of their own, that recipes ask for first."""
    asked: dict[int, Request] = {}
    calls = Calls(samples, recipes).made
    for i, (recipe, given, named) in enumerate(calls):
        if inspect.isgeneratorfunction(recipe.function):
            with closing(recipe.started(scope, *given, **named)) as asking:
                try:
                    request = next(asking, None)
                except (ValueError, LookupError) as error:
                    raise type(error)(f"{recipe.name}: {error}") from error
                if request is not None:
                    asked[i] = request
    for group in sharing(asked):
        names = ", ".join(dict.fromkeys(calls[i][0].name for i in group))
        requests = list(group.values())
        sweeps = [request for request in requests if isinstance(request, GradientRequest)]
        found = _sweep(scope, sweeps) if sweeps else _steps(requests[0], 0 if samples is None else len(samples))
        yield names, *found


def _sweep(scope: Scope, requests: Sequence[GradientRequest]) -> tuple:
    first, reducers = requests[0], [r for request in requests for r in request.reducers]
    whole = first.samples
    if first.unit == "token":
        whole, _ = tokens_apart(scope, scope.rule.prepared(whole))
    chunk = len(next(chunks(whole, scope.anatomy, first.chunk)))
    each = 0.0

    def run(few: Samples) -> None:
        nonlocal each
        size = max(1, min(chunk, len(few) // 2))  # two chunks, so that it is seen what pairs hold
        covered = gradient_sweep(scope, few, reducers, reduction=first.reduction, modules=first.modules, chunk=size)
        each = covered.each

    _, seconds = _trials(scope, run, whole)
    several = len(whole) > chunk
    times = (passes(each, len(whole)) if several else 1.0) + max(request.more for request in requests)
    held = each * len(whole) if several and passes(each, len(whole)) == 1 else 0
    memory = bytes_per_sample(whole, scope.anatomy) * chunk + held + sum(r.nbytes(len(whole)) for r in reducers)
    return "forward and backward", len(whole), times, chunk, int(memory), times * seconds


def _steps(work: Any, n: int) -> tuple:
    """Two of its steps are run: the first may have something to prepare."""
    seconds, steps = [], work.state.steps()
    for _ in range(2):
        start = time.perf_counter()
        next(steps, None)
        seconds.append(time.perf_counter() - start)
    total = work.state.total + work.more
    return work.label, n, total, n, int(work.state.nbytes), seconds[0] + max(0, total - 1) * seconds[1]


def _others(scope: Scope, samples: Samples | None, recipes: Sequence[Recipe]) -> Iterable[tuple]:
    for recipe in recipes:
        if inspect.isgeneratorfunction(recipe.function):
            continue
        if samples is None:
            _, seconds = _trial(scope, partial(recipe, scope))
            yield recipe.name, "forward", 0, float("nan"), 0, 0, seconds
            continue
        rows, seconds = _trials(scope, partial(_on, scope, recipe, len(samples)), samples)
        chunk = len(next(chunks(samples, scope.anatomy, recipe.options.get("chunk"))))
        memory = bytes_per_sample(samples, scope.anatomy) * chunk
        yield recipe.name, "forward", len(samples), round(rows / len(samples), 2), chunk, int(memory), seconds


def _on(scope: Scope, recipe: Recipe, n: int, few: Samples) -> None:
    """The recipe on the first samples; an option that goes along with all ``n``, sample by sample, is cut as they are."""
    given, named = arguments(recipe, few)
    along = {k: v for k, v in recipe.options.items() if isinstance(v, Samples) or (hasattr(v, "shape") and v.shape)}
    recipe(scope, *given, **named, **{k: v[: len(few)] for k, v in along.items() if len(v) == n})


def _trials(scope: Scope, run: Callable[[Samples], Any], samples: Samples) -> tuple[float, float]:
    """The rows that go through the model and the seconds that pass, for all samples, going by two trials.

    Rows are counted, and lie on a line; the seconds of the longer trial are multiplied as the rows are.
    """
    few, more = (min(size, len(samples)) for size in (FEW, MORE))
    (few_rows, _), (more_rows, seconds) = (_trial(scope, partial(run, samples[:size])) for size in (few, more))
    slope = (more_rows - few_rows) / (more - few) if more > few else more_rows / more
    rows = more_rows + slope * (len(samples) - more)
    return rows, seconds * rows / max(1, more_rows)


def _trial(scope: Scope, run: Callable[[], Any]) -> tuple[int, float]:
    rows = 0

    def count(module: Any, args: tuple, kwargs: dict) -> None:
        nonlocal rows
        rows += len(next(value for value in (*args, *kwargs.values()) if hasattr(value, "shape")))

    hook = scope.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        start = time.perf_counter()
        run()
        return rows, time.perf_counter() - start
    finally:
        hook.remove()
