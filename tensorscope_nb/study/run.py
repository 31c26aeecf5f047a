"""Runs recipes over the models of a study, and tells how far it is and what there is so far."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Protocol

import xarray as xr

from tensorscope_nb.recipes.recipe import Recipe, run_together
from tensorscope_nb.settings import options
from tensorscope_nb.study.members import Members
from tensorscope_nb.sweep import bar
from tensorscope_nb.sweep.progress import listened
from tensorscope_nb.sweep.request import SoFar, Unfinished
from tensorscope_nb.sweep.spread import Call, pack, run_all, shipped, unpack, workers_of

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Results = dict[str, xr.Dataset]
AT_MOST = 0.1  # share of the time that goes into results which are still to change


class Audience(Protocol):
    """Who hears of a run."""

    def progress(self, done: float, text: str) -> None: ...

    def show(self, results: Results) -> None: ...


def run_recipes(
    members: Members,
    samples: Any,
    recipes: Sequence[Recipe],
    executor: Executor | None,
    audience: Audience,
    keep: Callable[[Results], None],
) -> None:
    """Gives ``keep`` the results: all at the end, or those that there are where an interrupt or an error ends it."""
    found: list[list[xr.Dataset]] = []
    try:
        with bar(len(members), "study", None if len(members) > 1 else False) as done:
            if members.dimension is not None and executor is not None:
                for results in _elsewhere(members, samples, recipes, executor, done, audience):
                    found.append(results)
                    audience.show(_along(members.padded, recipes, found))
            else:
                for scope in members.scopes:
                    with (
                        listened(_Listener(members, len(found), audience)),
                        options(progress=False if len(members) > 1 else None),
                    ):
                        so_far = _so_far(recipes, audience) if members.dimension is None else None
                        found.append(_one(scope, samples, recipes, executor, so_far))
                    done.update()
                    if members.dimension is not None:
                        audience.show(_along(members.padded, recipes, found))
    except BaseException as ended:
        if isinstance(ended, Unfinished) and members.dimension is None:
            keep({recipe.name: as_dataset(r) for recipe, r in zip(recipes, ended.results, strict=True) if r is not None})
        elif found:
            keep(_along(members.joined, recipes, found))
        raise
    keep(_along(members.joined, recipes, found))


def as_dataset(result: Any) -> xr.Dataset:
    """What a study holds of a result: an ``Importance`` by its summary."""
    return result if isinstance(result, xr.Dataset) else result.summary()


def _one(
    scope: Scope, samples: Any, recipes: Sequence[Recipe], executor: Executor | None, so_far: SoFar | None
) -> list[xr.Dataset]:
    given = () if samples is None else (scope.samples(samples),)
    calls: list[tuple[Recipe, tuple, dict[str, Any]]] = [(recipe, given, {}) for recipe in recipes]
    return [as_dataset(result) for result in run_together(scope, calls, executor=executor, so_far=so_far)]


def _along(
    join: Callable[[Sequence[xr.Dataset]], xr.Dataset], recipes: Sequence[Recipe], found: Sequence[Sequence[xr.Dataset]]
) -> Results:
    """What the members have found, by recipe, joined along them."""
    return {recipe.name: join(results) for recipe, results in zip(recipes, zip(*found, strict=True), strict=True)}


def _so_far(recipes: Sequence[Recipe], audience: Audience) -> SoFar:
    """Shows what a recipe has of the samples that are done, as often as that takes little of the time."""
    next_time = 0.0

    def show(made: dict[int, Callable[[], Any]]) -> None:
        nonlocal next_time
        start = time.monotonic()
        if start < next_time:
            return
        results = {i: make() for i, make in made.items()}  # None: the recipe will ask for more
        audience.show({recipes[i].name: as_dataset(result) for i, result in results.items() if result is not None})
        end = time.monotonic()
        next_time = end + max(0.1, (end - start) / AT_MOST)

    return show


class _Listener:
    """Turns the progress of sweeps into a share of the whole and one line of words."""

    def __init__(self, members: Members, done: int, audience: Audience) -> None:
        self.members, self.done, self.audience = members, done, audience
        self.start, self.step = time.monotonic(), ("", 0.0)

    def __call__(self, label: str, done: float, total: float) -> None:
        now, n = time.monotonic(), len(self.members)
        if self.step != (label, total):
            self.step, self.start = (label, total), now
        share = done / total if total else 1.0
        words = f"{label}: {done:g} of {total:g}"
        if n > 1:
            words = f"{self.members.dimension} {self.members.coordinates[self.done]} ({self.done + 1} of {n}), {words}"
        if 0 < share < 1 and now > self.start:
            words += f", about {max(1, round((now - self.start) * (1 - share) / share))} s left"
        self.audience.progress((self.done + share) / n if n > 1 else share, words)


def _elsewhere(
    members: Members, samples: Any, recipes: Sequence[Recipe], executor: Executor, done: bar, audience: Audience
) -> Any:
    """The members in the workers of an executor, one each."""
    workers_of(executor)
    scopes = list(members.scopes)
    with shipped(scopes) as files:
        calls: list[Call] = []
        for i, (scope, file) in enumerate(zip(scopes, files, strict=True)):
            given = None if samples is None else scope.samples(samples)
            name = f"{members.dimension} {members.coordinates[i]} ({i + 1} of {len(scopes)})"
            calls.append(Call(name, file, _in_worker, (pack(scope, (given, list(recipes))),)))
        for i, packed in enumerate(run_all(executor, calls, done)):
            audience.progress((i + 1) / len(calls), f"{i + 1} of {len(calls)} {members.dimension}s")
            yield pickle.loads(packed)


def _in_worker(scope: Scope, packed: bytes) -> bytes:
    samples, recipes = unpack(scope, packed)
    return pickle.dumps(_one(scope, samples, recipes, None, None))
