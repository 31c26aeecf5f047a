"""Several perturbations side by side, where they are of the same data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

ROUNDING = 1e-5  # relative: how far baselines of the same weights and data may part, by the order of sums in single precision


def compare_perturbations(runs: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Results of ``perturbation`` along a leading dimension ``run``, by their names: other methods, lists, modules or models.

    What some have and others have not (a ratio, a control, a module) is NaN there. Runs on other data are refused, for their
    baselines cannot be compared: all must have the same samples, by their hash, and the same number of predicted tokens; and
    runs of the same weights the same baseline loss, but for rounding. The metadata of each are in ``runs`` of the result's.

    >>> import tensorscope_nb as ts, pandas as pd
    >>> scope = ts.load("tiny")
    >>> listed = pd.DataFrame({"layer": ["transformer.h.0.attn.c_proj"], "indices": ["(3, 17)"]})
    >>> prose = ts.datasets.shakespeare(scope, n=8, length=16)
    >>> found = {m: ts.recipes.perturbation(scope, prose, listed, method=m, controls=()) for m in ("zero", "sign_flip")}
    >>> ts.recipes.compare_perturbations(found)["loss_increase_mean"].dims
    ('run', 'selection', 'ratio')
    """
    import xarray as xr

    if not isinstance(runs, Mapping) or not runs:
        raise ValueError('runs is no mapping with results in it: give {"name": result, …}')
    said = {name: _said(name, run) for name, run in runs.items()}
    (first, of), *others = said.items()
    for name, each in others:
        for key, words in (("data", "other samples"), ("n_tokens", "another number of predicted tokens")):
            if each[key] != of[key]:
                raise ValueError(
                    f"{name!r} is of {words} than {first!r} ({key} {each[key]} and {of[key]}): baselines can be compared on "
                    "equal data only"
                )
    for i, (name, each) in enumerate(said.items()):
        for other, known in list(said.items())[:i]:
            a, b = (float(runs[key]["baseline_loss"]) for key in (name, other))
            if each["weights"] == known["weights"] and not np.isclose(a, b, rtol=ROUNDING, atol=0):
                raise ValueError(
                    f"{name!r} and {other!r} are of the same weights and data, and their baseline losses are {a:.9g} and "
                    f"{b:.9g}: was the model in another mode, precision or version?"
                )
    beside: dict[str, _Beside] = {}
    for run in runs.values():
        for coordinate in set(run.coords) - set(run.dims):
            beside.setdefault(str(coordinate), _Beside(run[coordinate])).add(run[coordinate])
    kept = [run.drop_vars(beside, errors="ignore").drop_attrs(deep=False) for run in runs.values()]
    options: dict[str, Any] = {"data_vars": "all", "coords": "minimal", "compat": "override", "combine_attrs": "override"}
    found = xr.concat(kept, dim="run", join="outer", **options)
    for dim in set(found.dims) & {"selection", "control", "module", "sample"}:  # in the order in which they came, as before
        found = found.sel({dim: list(dict.fromkeys(each for run in runs.values() if dim in run for each in run[dim].values))})
    found = found.assign_coords(run=np.array(list(runs), dtype=object))
    found = found.assign_coords({name: each.along(found) for name, each in beside.items()})
    shared = {key: of[key] for key in ("data", "n_tokens")}
    found.attrs["tensorscope"] = json.dumps({"recipe": "compare_perturbations", **shared, "runs": said})
    return found


class _Beside:
    """What stands beside the places of a dimension, such as the layer of each module."""

    def __init__(self, like: xr.DataArray) -> None:
        self.dim, self._dtype = str(like.dims[0]), like.dtype
        self._known: dict[Any, Any] = {}

    def add(self, more: xr.DataArray) -> None:
        self._known |= dict(zip(more[self.dim].values.tolist(), more.values.tolist(), strict=True))

    def along(self, found: xr.Dataset) -> tuple[str, np.ndarray]:
        return self.dim, np.array([self._known[place] for place in found[self.dim].values.tolist()], dtype=self._dtype)


def _said(name: str, run: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(run.attrs.get("tensorscope", "{}")) if hasattr(run, "data_vars") else {}
    if lacks := [key for key in ("data", "n_tokens", "weights") if key not in said]:
        raise ValueError(f"{name!r} is no result of perturbation: its {lacks[0]} is not known")
    if "baseline_loss" not in run:
        raise ValueError(f"{name!r} is no result of perturbation: its baseline_loss is not known")
    return said
