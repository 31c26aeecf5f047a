"""The calls that a study makes of its recipes: one each, and of a recipe that compares tasks one for every two tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorscope_nb.recipes.recipe import Recipe
from tensorscope_nb.recipes.tasks import pairs_of_tasks

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples


class Calls:
    """What is to be called, and what becomes of what is returned."""

    def __init__(self, samples: Samples | None, recipes: Sequence[Recipe]) -> None:
        self.made: list[tuple[Recipe, tuple, dict[str, Any]]] = []
        self._of: list[list[int]] = []  # by recipe, the numbers of its calls
        comparing = [recipe for recipe in recipes if recipe.compares]
        self.pairs = _pairs(samples, comparing[0]) if comparing else []
        for recipe in recipes:
            given = [((pair,), {}) for pair in self.pairs] if recipe.compares else [arguments(recipe, samples)]
            self._of.append(list(range(len(self.made), len(self.made) + len(given))))
            self.made += [(recipe, args, named) for args, named in given]

    def results(self, found: Sequence[Any]) -> list[xr.Dataset | None]:
        """By recipe; None where one of its calls has returned nothing."""
        return [self._joined([found[i] for i in numbers]) for numbers in self._of]

    def _joined(self, found: list[Any]) -> xr.Dataset | None:
        if any(result is None for result in found):
            return None
        results = [result if isinstance(result, xr.Dataset) else result.summary() for result in found]
        return results[0] if len(results) == 1 else _along_tasks(results, [" × ".join(pair.names) for pair in self.pairs])


def by_subject(recipes: Sequence[Recipe]) -> tuple[list[Recipe], list[Recipe], list[Recipe]]:
    """Those that take one model, those that follow a history, and those that compare models."""
    along, across = ([recipe for recipe in recipes if getattr(recipe, what)] for what in ("takes_history", "takes_models"))
    return [recipe for recipe in recipes if recipe not in along and recipe not in across], along, across


def arguments(recipe: Recipe, samples: Samples | None) -> tuple[tuple, dict[str, Any]]:
    """The samples as the recipe takes them: second, or by name where another model may come second."""
    if samples is None:
        return (), {}
    return ((), {"samples": samples}) if recipe.takes_model else ((samples,), {})


def _pairs(samples: Samples | None, recipe: Recipe) -> Sequence[Any]:
    tasks = [] if samples is None else list(dict.fromkeys(samples.tasks))
    if samples is None or len(tasks) < 2:
        there = f"have one ({tasks[0]})" if tasks else "are missing"
        raise ValueError(f"{recipe.name} compares tasks, and the study's samples {there}: give it two, such as prose + code")
    return pairs_of_tasks(samples)


def _along_tasks(results: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Side by side on a dimension ``tasks``; NaN where a sample is in neither of two tasks.

    A pair of samples is of two tasks already: what stands on ``pair`` is listed one after the other, the most opposed first.
    """
    listed = [[str(name) for name, v in result.variables.items() if "pair" in v.dims] for result in results]
    index = xr.DataArray(np.array(names, dtype=object), dims="tasks", name="tasks", attrs={"long_name": "tasks"})
    tables = [result.drop_vars(mine) for result, mine in zip(results, listed, strict=True)]
    numbers = [table.map(lambda v: v.astype(float) if v.dtype.kind == "b" else v) for table in tables]
    joined = xr.concat(numbers, index, join="outer", combine_attrs="override", coords="minimal", compat="no_conflicts")
    for dim in joined.xindexes.keys() - {"tasks"}:  # what is joined is sorted: back to the order in which it came
        came = [value for table in tables if dim in table.coords for value in table[dim].values]
        joined = joined.sel({dim: list(dict.fromkeys(came))})
    whole = {name for name, c in joined.coords.items() if c.dtype.kind == "f" and name in tables[0].coords}
    joined = joined.assign_coords({name: joined[name].astype(tables[0][name].dtype) for name in whole})  # NaN was in between
    if any(listed):
        pairs = [
            result[mine]
            .drop_dims([d for d in ("sample_a", "sample_b") if d in result[mine].dims])
            .assign_coords(pair_tasks=("pair", np.full(result.sizes["pair"], name, dtype=object)))
            for result, mine, name in zip(results, listed, names, strict=True)
            if mine
        ]
        joined = joined.merge(xr.concat(pairs, "pair", combine_attrs="override").sortby("pair_p_value"))
    said = [json.loads(result.attrs["tensorscope"]) for result in results]
    own = ("task_a", "task_b")
    common = {key: value for key, value in said[0].items() if all(each.get(key) == value for each in said) and key not in own}
    common |= {"partial": True} if any(each.get("partial") for each in said) else {}
    joined.attrs = {"tensorscope": json.dumps(common | {"tasks": dict(zip(names, said, strict=True))})}
    return joined
