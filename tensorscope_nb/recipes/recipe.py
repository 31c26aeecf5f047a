"""A recipe: a function of a scope and samples that answers one question with a named-dimension Dataset."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tensorscope_nb import __version__
from tensorscope_nb.scope.fingerprint import fingerprint
from tensorscope_nb.sweep.request import Asking, SoFar, drive

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from tensorscope_nb.scope import Scope
    from tensorscope_nb.sweep.request import Request

    Answered = Generator[Request, Any, xr.Dataset]  # what a recipe returns that asks for gradients, or for time

_all: list[Recipe] = []
_known: ContextVar[dict[int, str] | None] = ContextVar("tensorscope_weights", default=None)  # of the models of one run
NAMES = re.compile(r"[A-Za-z][\w.-]{0,59}")


class Recipe:
    """A recipe as it is called; ``.using(**options)`` fixes options for a Study, ``name=`` tells two uses apart."""

    def __init__(
        self,
        function: Callable[..., Any],
        question: str,
        source: str,
        needs: Sequence[str],
        options: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.question = question
        self.source = source
        self.needs = tuple(needs)
        self.options = options or {}
        self.name = name or function.__name__

    @property
    def dims(self) -> list[str]:
        """The dimensions of what it returns, group by group, as its docstring says them."""
        return list(dict.fromkeys(re.findall(r"``\[([a-z_, ]+)\]", self._words)))

    @property
    def cost(self) -> str:
        """What it takes, as its docstring says it."""
        said = re.search(r"\b[Cc]ost: (.+?)\.(?=\s[A-Z`>]|\s*$)", self._words)
        return said[1] if said else ""

    @property
    def _words(self) -> str:
        return " ".join((self.function.__doc__ or "").split())

    @property
    def compares(self) -> bool:
        """Whether it takes two sets of samples, ``a`` and ``b``."""
        return self.takes[:2] == ["a", "b"]

    @property
    def takes_model(self) -> bool:
        """Whether its second argument is another model, ``scope_b``: samples go to it by name."""
        return self.takes[:1] == ["scope_b"]

    @property
    def takes_history(self) -> bool:
        """Whether it follows one model through its training: its first argument is a ``history``."""
        return next(iter(inspect.signature(self.function).parameters)) == "history"

    @property
    def takes_models(self) -> bool:
        """Whether it compares models: its first argument is ``models``, {name: scope}."""
        return next(iter(inspect.signature(self.function).parameters)) == "models"

    @property
    def takes(self) -> list[str]:
        """The names of all that it can be given besides the model (or its history), in order."""
        return list(inspect.signature(self.function).parameters)[1:]

    @property
    def missing(self) -> list[str]:
        """What it must be given besides the model (or its history), and is not yet."""
        known = inspect.signature(self.function).parameters
        return [name for name in self.takes if known[name].default is inspect.Parameter.empty and name not in self.options]

    def __call__(self, scope: Scope, *args: Any, executor: Executor | None = None, **options: Any) -> Any:
        return run_together(scope, [(self, args, options)], executor=executor)[0]

    def started(self, scope: Scope, *args: Any, **options: Any) -> Asking:
        """The recipe at work: yields what it asks for, and returns its Dataset."""
        from tensorscope_nb.scope import Scope

        if self.takes_models:
            _check_models(self.name, scope)
        elif not isinstance(scope, Scope) and not self.takes_history:
            raise TypeError(f"{self.name} takes a Scope and a {type(scope).__name__} came: wrap the model, ts.Scope(model)")
        self._check(options)
        start = time.perf_counter()
        options = self.options | options
        result: Any = self.function(scope, *args, **options)
        complete = True
        if isinstance(result, Generator):
            result, complete = yield from _watched(result)
        said = self._metadata(scope, result, options, time.perf_counter() - start)
        result.attrs["tensorscope"] = json.dumps(said | ({} if complete else {"partial": True}))
        return result

    def using(self, *, name: str | None = None, **options: Any) -> Recipe:
        """The same recipe with some options fixed."""
        self._check(options)
        if name is not None and not NAMES.fullmatch(name):
            raise ValueError(f"name is {name!r}: it names a file, use up to 60 letters, digits, _, - and dots after a letter")
        return Recipe(self.function, self.question, self.source, self.needs, self.options | options, name or self.name)

    def _check(self, options: dict[str, Any]) -> None:
        known = inspect.signature(self.function).parameters
        if unknown := options.keys() - known.keys():
            raise TypeError(f"{self.name} has no option {', '.join(sorted(unknown))}: it has {', '.join(list(known)[1:])}")

    def __reduce__(self) -> Any:
        """A recipe stands where its function would: it is found by that name, in whatever process."""
        return _found, (self.function.__module__, self.function.__qualname__, self.options, self.name)

    def _metadata(self, scope: Scope, result: xr.Dataset, options: dict[str, Any], seconds: float) -> dict[str, Any]:
        signature = inspect.signature(self.function)
        defaults = {n: p.default for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
        plain = {n: v for n, v in (defaults | options).items() if isinstance(v, str | int | float | bool | tuple | list | None)}
        return {
            "recipe": self.name, "question": self.question, "source": self.source, "needs": list(self.needs),
            **self._subject(scope),
            "options": plain, "seconds": round(seconds, 3),
            "versions": _versions(), **json.loads(result.attrs.get("tensorscope", "{}")),
        }  # fmt: skip

    def _subject(self, scope: Any) -> dict[str, Any]:
        """What identifies the model, or each of the models."""
        if self.takes_history:
            return {}
        if self.takes_models:
            return {"members": {name: of_model(each) | {"weights": weights_of(each)} for name, each in scope.items()}}
        return of_model(scope) | {"weights": weights_of(scope)}

    def __repr__(self) -> str:
        fixed = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"<recipe {self.name}{f' with {fixed}' if fixed else ''}: {self.question}>"


def of_model(scope: Scope) -> dict[str, Any]:
    """What a result says of the model."""
    return {"model": scope.name, "loss": scope.rule.name, "dtype": str(next(scope.model.parameters()).dtype)}


def _check_models(name: str, models: Any) -> None:
    from tensorscope_nb.scope import Scope

    if not isinstance(models, Mapping):
        raise TypeError(f"{name} takes models by name and a {type(models).__name__} came: give {{name: scope, another: scope}}")
    if not models:
        raise ValueError(f"{name} has no models to compare: give {{name: scope, another: scope}}")
    for key, each in models.items():
        if not isinstance(key, str) or not isinstance(each, Scope):
            raise TypeError(f"{name} takes models by name, and {key!r} names a {type(each).__name__}: give {{name: scope}}")


def _found(module: str, qualname: str, options: dict[str, Any], name: str) -> Recipe:
    declared = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    if not isinstance(declared, Recipe):
        raise TypeError(f"{module}.{qualname} is no recipe here: declare it with @recipe in a module that workers can import")
    return Recipe(declared.function, declared.question, declared.source, declared.needs, options, name)


def _watched(asking: Asking) -> Generator[Request, Any, tuple[Any, bool]]:
    """What a recipe returns, and whether all that it asked for was answered to the end."""
    complete, given = True, None
    while True:
        try:
            request = asking.send(given)
        except StopIteration as end:
            return end.value, complete
        given = yield request
        complete = complete and given is not None and given.complete


def run_together(
    scope: Scope,
    calls: Sequence[tuple[Recipe, tuple, dict[str, Any]]],
    *,
    executor: Executor | None = None,
    so_far: SoFar | None = None,
) -> list[Any]:
    """Several recipes on one model; those that ask for the same gradients of the same samples share one sweep."""
    starting = [functools.partial(recipe.started, scope, *args, **options) for recipe, args, options in calls]
    token = _known.set({})
    try:
        return drive(scope, starting, executor=executor, so_far=so_far)
    finally:
        _known.reset(token)


@functools.cache
def _versions() -> dict[str, str]:
    return {"tensorscope_nb": __version__} | {name: version(name) for name in ("torch", "transformers")}


def recipe(*, question: str, source: str, needs: Sequence[str]) -> Callable[[Callable[..., Any]], Recipe]:
    """Declares a recipe: its question, the paper that defines it, and what it takes from the model."""

    def declare(function: Callable[..., Any]) -> Recipe:
        declared = Recipe(function, question, source, needs)
        _all.append(declared)
        return declared

    return declare


def catalogue() -> pd.DataFrame:
    """All recipes: name, question, source, what each takes from the model, the dimensions of its result, and its cost.

    >>> import tensorscope_nb as ts
    >>> "induction_heads" in set(ts.recipes.catalogue()["name"])
    True
    """
    import pandas as pd

    columns = ["name", "question", "source", "needs", "dims", "cost"]
    rows = [(r.name, r.question, r.source, ", ".join(r.needs), "; ".join(r.dims), r.cost) for r in _all]
    return pd.DataFrame(rows, columns=columns)


def weights_of(scope: Scope) -> str:
    """The fingerprint, taken once for all recipes that run together: they leave the model as it is."""
    known = _known.get()
    if known is None:
        return fingerprint(scope)
    if id(scope) not in known:
        known[id(scope)] = fingerprint(scope)
    return known[id(scope)]
