"""The models of a study, and results along them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorscope_nb.models import Checkpoints
from tensorscope_nb.scope import Scope

FILL: dict[str, Any] = {"f": np.nan, "i": -1, "b": False, "O": ""}  # where a pair was not looked at
TEXTS = ("token", "corrupt_token")  # of the samples, whichever model reads them
OWN = ("model", "weights", "seconds", "n_weights", "by_reference", "undefined")  # what each model says of itself


@dataclass(frozen=True)
class Members:
    """The dimension that a study adds (None: it has one model), its coordinates, and the models, loaded one at a time."""

    dimension: str | None
    coordinates: Sequence[Any]
    scopes: Iterable[Scope]

    @classmethod
    def of(cls, subject: Scope | Checkpoints | Mapping[str, Scope]) -> Members:
        if isinstance(subject, Scope):
            return cls(None, [None], [subject])
        if isinstance(subject, Checkpoints):
            return cls("checkpoint", list(subject.steps), subject)
        return cls("model", list(subject), subject.values())

    def __len__(self) -> int:
        return len(self.coordinates)

    def joined(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """The results of the first members one after the other; what does not match exactly is an error, never dropped."""
        if self.dimension is None:
            return results[0]
        words = {"long_name": "training step" if self.dimension == "checkpoint" else self.dimension}
        done = self.coordinates[: len(results)]
        index = xr.DataArray(np.array(done), dims=self.dimension, name=self.dimension, attrs=words)
        try:
            joined = xr.concat(_of_all_pairs(results), index, join="exact", combine_attrs="override")
        except xr.AlignmentError as error:
            raise ValueError(_apart(results, self.dimension)) from error
        joined = joined.assign({name: results[0][name] for name in TEXTS if _alike(results, name)})
        said = [json.loads(result.attrs["tensorscope"]) for result in results]
        members = [{key: member[key] for key in OWN if key in member} for member in said]
        common = {key: value for key, value in said[0].items() if key not in OWN}
        if len(done) < len(self):
            common |= {"partial": True, "n_done": len(done), "n_members": len(self)}
        joined.attrs = {"tensorscope": json.dumps(common | {"members": dict(zip(map(str, done), members, strict=True))})}
        return joined

    def padded(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """The same for all members, NaN where one is still to come: what a view can show from the first on."""
        joined = self.joined(results)
        if self.dimension is None or len(results) == len(self):
            return joined
        along = [str(name) for name, v in joined.data_vars.items() if self.dimension in v.dims and v.dtype.kind in "biuf"]
        numbers = joined.assign({name: joined[name].astype(float) for name in along})
        return numbers.reindex({self.dimension: np.array(self.coordinates)})


def _alike(results: Sequence[xr.Dataset], name: str) -> bool:
    """Whether a variable is there, and the same for all members."""
    return name in results[0].data_vars and all(name in r and r[name].equals(results[0][name]) for r in results)


def _apart(results: Sequence[xr.Dataset], dimension: str) -> str:
    first = results[0]
    apart = [str(dim) for dim in first.dims if any(dim in r.dims and not first[dim].equals(r[dim]) for r in results)]
    remedy = "pass density_range=" if apart == ["curvature"] else "leave out what differs, or study them one by one"
    return f"the {dimension}s differ along {', '.join(apart)}, so that their results fit no common array: {remedy}"


def _of_all_pairs(results: Sequence[xr.Dataset]) -> Sequence[xr.Dataset]:
    """Each with the pairs of samples of all of them, empty where it has none: which ones are looked at is up to the model."""
    listed = [result for result in results if "pair" in result.dims]
    if not listed:
        return results
    on_pairs = [str(name) for name, v in listed[0].variables.items() if "pair" in v.dims]
    none = listed[0][on_pairs].isel(pair=slice(0))
    names = list(dict.fromkeys(name for result in listed for name in result["pair"].values))
    fill = {name: FILL[listed[0][name].dtype.kind] for name in on_pairs if name != "pair"}
    known = {name: result.coords.to_dataset().sel(pair=name) for result in listed for name in result["pair"].values}
    sides = [name for name in on_pairs if name in listed[0].coords and name != "pair"]
    coords = {side: ("pair", np.array([known[name][side].item() for name in names], dtype=object)) for side in sides}
    whole = [result if "pair" in result.dims else result.merge(none) for result in results]  # in that one no pair is opposed
    return [result.reindex(pair=names, fill_value=fill).assign_coords(coords) for result in whole]
