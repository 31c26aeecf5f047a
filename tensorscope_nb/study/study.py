"""Study: runs recipes over one model, along its checkpoints, or over several models, under the same conditions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorscope_nb.models import Checkpoints
from tensorscope_nb.recipes.recipe import Recipe, run_together
from tensorscope_nb.scope import Scope
from tensorscope_nb.settings import options
from tensorscope_nb.study.contributions import Contributions
from tensorscope_nb.study.frame import frame
from tensorscope_nb.study.report import write_report
from tensorscope_nb.study.store import load_results, save_results
from tensorscope_nb.sweep import bar

if TYPE_CHECKING:
    import pandas as pd

    from tensorscope_nb.views import View


class Study:
    """Recipes over the same model and samples; a checkpoint history or ``{name: scope}`` adds a leading dimension.

    Recipes that read gradients of the same samples share one sweep.

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
        self._subject: Scope | Checkpoints | Mapping[str, Scope] | None = scope
        self.samples = samples
        self._results: dict[str, xr.Dataset] = {}

    def run(self, *recipes: Recipe) -> Study:
        """Runs the recipes on every model of the study; an earlier result of the same name is replaced."""
        for recipe in recipes:
            if not isinstance(recipe, Recipe):
                raise TypeError(f"a Study runs recipes, such as ts.recipes.induction_heads, not a {type(recipe).__name__}")
        names = [recipe.name for recipe in recipes]
        if len(set(names)) < len(names):
            raise ValueError(f"two recipes are named {max(names, key=names.count)!r}: tell them apart with .using(name=…)")
        dimension, coordinates, scopes = self._members()
        found: list[list[xr.Dataset]] = []
        with bar(len(coordinates), "study") as done:
            for scope in scopes:
                given = () if self.samples is None else (scope.samples(self.samples),)
                with options(progress=False):
                    found.append(run_together(scope, [(recipe, given, {}) for recipe in recipes]))
                done.update()
        for name, results in zip(names, zip(*found, strict=True), strict=True):
            self._results[name] = results[0] if dimension is None else _joined(list(results), dimension, coordinates)
        return self

    def _members(self) -> tuple[str | None, list[Any], Iterable[Scope]]:
        """The dimension that the study adds, its coordinates, and the models along it (loaded one at a time)."""
        subject = self._subject
        if subject is None:
            raise ValueError("this study was opened from a folder and holds results only: make a Study of a model to run more")
        if isinstance(subject, Scope):
            return None, [None], [subject]
        if isinstance(subject, Checkpoints):
            return "checkpoint", list(subject.steps), subject
        return "model", list(subject), subject.values()

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self._results:
            raise LookupError(f"the study holds no {name!r}: it holds {', '.join(self._results) or 'nothing yet, run a recipe'}")
        return self._results[name]

    def __contains__(self, name: object) -> bool:
        return name in self._results

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def frame(self, *dims: str) -> pd.DataFrame:
        """One row per place on ``dims``, one column per variable that lives there, from every result.

        A variable with further dimensions is averaged over them, and one on modules is averaged by their layer; the name of
        the column says so.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> study = ts.Study(scope, ts.datasets.shakespeare(scope, n=8)).run(ts.recipes.gradient_health)
        >>> study.frame("layer")["backward_rms"].shape
        (2,)
        """
        return frame(self._results, dims)

    @property
    def contributions(self) -> Contributions:
        """Squared per-sample gradients, computed on sight: ``[task][id][parameter]``, ``.fisher(task, parameter)``."""
        if not isinstance(self._subject, Scope) or self.samples is None:
            raise ValueError("contributions are of one model and its samples: make ts.Study(scope, samples)")
        return Contributions(self._subject, self._subject.samples(self.samples))

    def report(self, path: str | Path) -> Path:
        """Writes what the study holds: ``.md`` to read (ranges of every variable), ``.json`` with all numbers."""
        return write_report(self._results, Path(path))

    def view(self) -> View:
        """The linked dashboard for what the study holds."""
        from tensorscope_nb.views import view

        return view(self)

    def save(self, folder: str | Path) -> Path:
        """Writes each result as netCDF and a manifest; what was saved before is replaced only by what is complete."""
        return save_results(self._results, Path(folder))

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """The results that :meth:`save` wrote; recipes can be run again only on a Study of a model."""
        study = cls.__new__(cls)
        study._subject, study.samples, study._results = None, None, load_results(Path(folder))
        return study

    def __repr__(self) -> str:
        subject = "results only" if self._subject is None else repr(self._subject)
        return f"Study({subject}; {', '.join(self._results) or 'no results yet'})"


def _joined(results: list[xr.Dataset], dimension: str, coordinates: list[Any]) -> xr.Dataset:
    """The results one after the other; what does not match exactly is an error, never dropped."""
    words = {"long_name": "training step" if dimension == "checkpoint" else dimension}
    index = xr.DataArray(np.array(coordinates), dims=dimension, name=dimension, attrs=words)
    joined = xr.concat(results, index, join="exact", combine_attrs="override")
    said = [json.loads(result.attrs["tensorscope"]) for result in results]
    members = [{key: member.get(key) for key in ("model", "weights", "seconds")} for member in said]
    common = {key: value for key, value in said[0].items() if key not in ("model", "weights", "seconds")}
    joined.attrs = {"tensorscope": json.dumps(common | {"members": dict(zip(map(str, coordinates), members, strict=True))})}
    return joined
