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
from tensorscope_nb.study.calls import Calls
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
                        so_far = audience if members.dimension is None else None
                        found.append(_one(scope, samples, recipes, executor, so_far))
                    done.update()
                    if members.dimension is not None:
                        audience.show(_along(members.padded, recipes, found))
    except BaseException as ended:
        if isinstance(ended, Unfinished) and members.dimension is None:
            keep({recipe.name: r for recipe, r in zip(recipes, ended.results, strict=True) if r is not None})
        elif found:
            keep(_along(members.joined, recipes, found, fitting=True))
        raise
    keep(_along(members.joined, recipes, found))


def run_along(
    members: Members, recipes: Sequence[Recipe], executor: Executor | None, audience: Audience, keep: Callable[[Results], None]
) -> None:
    """The recipes that follow all checkpoints at once: each result as it is, kept as soon as it is there."""

    def listen(label: str, done: float, total: float) -> None:
        audience.progress(done / total if total else 1.0, f"{label}: {done:g} of {total:g}")

    history: Any = members.scopes
    for recipe in recipes:
        with listened(listen):
            try:
                found = recipe(history, executor=executor)
            except Unfinished as ended:
                if ended.results[0] is not None:
                    keep({recipe.name: ended.results[0]})
                raise
        keep({recipe.name: found})


def run_across(
    members: Members, samples: Any, recipes: Sequence[Recipe], audience: Audience, keep: Callable[[Results], None]
) -> None:
    """The recipes that compare all models at once: each result as it is, kept as soon as it is there."""

    def listen(label: str, done: float, total: float) -> None:
        audience.progress(done / total if total else 1.0, f"{label}: {done:g} of {total:g}")

    models: Any = dict(zip(members.coordinates, members.scopes, strict=True))
    for recipe in recipes:
        with listened(listen):
            keep({recipe.name: recipe(models, samples)})


def check_across(members: Members, samples: Any, recipe: Recipe) -> None:
    """Raises where a recipe that compares models has one only here, or no texts that each can read for itself."""
    if members.dimension != "model":
        raise ValueError(f"{recipe.name} compares models: make the study of {{name: scope, another: scope}}")
    if samples is None:
        raise ValueError(f"{recipe.name} compares models on texts, and the study has none: ts.Study(models, texts)")


def check_along(members: Members, recipe: Recipe) -> None:
    """Raises where a recipe that follows a history has none here, or not all that it takes."""
    if members.dimension != "checkpoint":
        raise ValueError(f"{recipe.name} follows a model through its training: make the study of ts.checkpoints(…)")
    if recipe.missing:
        asked = ", ".join(f"{name}=…" for name in recipe.missing)
        raise ValueError(f"{recipe.name} takes samples of its own: run ts.recipes.{recipe.name}.using({asked})")


def check_given(recipe: Recipe, samples: Any) -> None:
    """Raises where a recipe lacks what a study does not give it, such as the weights of ``perturbation``."""
    own = "samples" if recipe.takes_model else next(iter(recipe.takes), "")  # what the samples are given as
    lacks = [] if recipe.compares else [name for name in recipe.missing if name != own or samples is None]
    if lacks == [own]:
        raise ValueError(f"{recipe.name} needs samples, and the study has none: ts.Study(scope, samples)")
    if lacks:
        asked = ", ".join(f"{name}=…" for name in lacks)
        raise ValueError(f"{recipe.name} takes more than samples: run ts.recipes.{recipe.name}.using({asked})")


def _one(
    scope: Scope, samples: Any, recipes: Sequence[Recipe], executor: Executor | None, audience: Audience | None
) -> list[xr.Dataset]:
    """The results on one model; an interrupt carries those that there are. An ``audience`` hears of results on the way."""
    calls = Calls(None if samples is None else scope.samples(samples), recipes)
    so_far = None if audience is None else _so_far(calls, recipes, audience)
    try:
        found = run_together(scope, calls.made, executor=executor, so_far=so_far)
    except Unfinished as ended:
        raise Unfinished(calls.results(ended.results)) from ended
    return [result for result in calls.results(found) if result is not None]


def _along(
    join: Callable[[Sequence[xr.Dataset]], xr.Dataset],
    recipes: Sequence[Recipe],
    found: Sequence[Sequence[xr.Dataset]],
    *,
    fitting: bool = False,
) -> Results:
    """What the members have found, by recipe, joined along them; ``fitting``: of the recipes for which that is possible."""
    joined: Results = {}
    for recipe, results in zip(recipes, zip(*found, strict=True), strict=True):
        try:
            joined[recipe.name] = join(results)
        except ValueError as error:
            if not fitting:
                raise ValueError(f"{recipe.name}: {error}") from error
    return joined


def _so_far(calls: Calls, recipes: Sequence[Recipe], audience: Audience) -> SoFar:
    """Shows what a recipe has of the samples that are done, as often as that takes little of the time."""
    next_time = 0.0

    def show(made: dict[int, Callable[[], Any]]) -> None:
        nonlocal next_time
        start = time.monotonic()
        if start < next_time:
            return
        results = calls.results([made[i]() if i in made else None for i in range(len(calls.made))])  # None: more is asked for
        audience.show({recipe.name: result for recipe, result in zip(recipes, results, strict=True) if result is not None})
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
