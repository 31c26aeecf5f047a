"""Study: runs recipes over one model, along its checkpoints, or over several models, under the same conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorscope_nb.models import Checkpoints
from tensorscope_nb.recipes.recipe import Recipe
from tensorscope_nb.scope import Scope
from tensorscope_nb.settings import options
from tensorscope_nb.sweep import bar

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples


class Study:
    """Recipes over the same model and samples; a checkpoint history or ``{name: scope}`` adds a leading dimension.

    >>> import tensorscope_nb as ts
    >>> study = ts.Study(ts.checkpoints("tiny")).run(ts.recipes.induction_heads.using(n_sequences=2))
    >>> study["induction_heads"]["prefix_matching"].dims
    ('checkpoint', 'layer', 'head')
    """

    def __init__(self, scope: Scope | Checkpoints | Mapping[str, Scope], samples: Any = None) -> None:
        if not isinstance(scope, Scope | Checkpoints | Mapping):
            raise TypeError(
                f"a Study takes a Scope, ts.checkpoints(...) or a mapping of names to Scopes, not a {type(scope).__name__}"
            )
        if not isinstance(scope, Scope) and not len(scope):
            raise ValueError("a Study of no models: give at least one")
        self._subject = scope
        self.samples = samples
        self._results: dict[str, xr.Dataset] = {}

    def run(self, *recipes: Recipe) -> Study:
        """Runs each recipe on every model of the study; an earlier result of the same name is replaced."""
        for recipe in recipes:
            if not isinstance(recipe, Recipe):
                raise TypeError(f"a Study runs recipes, such as ts.recipes.induction_heads, not a {type(recipe).__name__}")
        names = [recipe.name for recipe in recipes]
        if len(set(names)) < len(names):
            raise ValueError(f"two recipes are named {max(names, key=names.count)!r}: tell them apart with .using(name=…)")
        dimension, coordinates, scopes = self._members()
        found: dict[str, list[xr.Dataset]] = {name: [] for name in names}
        with bar(len(coordinates) * len(recipes), "study") as done:
            for scope in scopes:
                for recipe in recipes:
                    with options(progress=False):
                        found[recipe.name].append(recipe(scope, *self._arguments(scope)))
                    done.update()
        for name, results in found.items():
            self._results[name] = results[0] if dimension is None else _joined(results, dimension, coordinates)
        return self

    def _members(self) -> tuple[str | None, list[Any], Iterable[Scope]]:
        """The dimension that the study adds, its coordinates, and the models along it (loaded one at a time)."""
        subject = self._subject
        if isinstance(subject, Scope):
            return None, [None], [subject]
        if isinstance(subject, Checkpoints):
            return "checkpoint", list(subject.steps), subject
        return "model", list(subject), subject.values()

    def _arguments(self, scope: Scope) -> tuple[Samples, ...]:
        return () if self.samples is None else (scope.samples(self.samples),)

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self._results:
            raise LookupError(f"the study holds no {name!r}: it holds {', '.join(self._results) or 'nothing yet, run a recipe'}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"Study({self._subject!r}; {', '.join(self._results) or 'no results yet'})"


def _joined(results: list[xr.Dataset], dimension: str, coordinates: list[Any]) -> xr.Dataset:
    """The results one after the other; what does not match exactly is an error, never dropped."""
    words = {"long_name": "training step" if dimension == "checkpoint" else dimension}
    index = xr.DataArray(np.array(coordinates), dims=dimension, name=dimension, attrs=words)
    return xr.concat(results, index, join="exact", combine_attrs="override")
