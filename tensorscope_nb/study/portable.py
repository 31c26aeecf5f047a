"""A Dataset as netCDF can hold it, and back.

netCDF knows no NUL in strings, no ``/`` in names and no nested, boolean or missing attributes, and it guesses the kind of
what it reads. So strings are escaped, names that it refuses are replaced, and all attributes and kinds stand in one JSON text.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

STORE = "tensorscope_store"
KEPT = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
MISSING = "\\N"  # no escaped text is this
# A lone surrogate is no UTF-8, and two of them must not become one character.
REFUSED = re.compile(r"[\\\0\ud800-\udfff]")
ESCAPED = re.compile(r"\\(?:\\|x00|ud[89a-f][0-9a-f]{2})")


def to_bytes(result: xr.Dataset) -> memoryview:
    """The netCDF file in memory: HDF5 that writes to a disk which is full ends the process."""
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        portable(result).dump_to_store(H5NetCDFStore(file))
    return buffer.getbuffer()


def from_bytes(content: bytes) -> xr.Dataset:
    return restored(xr.load_dataset(io.BytesIO(content), engine="h5netcdf"))


def portable(result: xr.Dataset) -> xr.Dataset:
    names = [*result.variables, *(dim for dim in result.dims if dim not in result.variables)]
    if odd := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"a result with the name {odd[0]!r} cannot be saved: names are text")
    stored_as = {name: name if KEPT.fullmatch(str(name)) else f"_{i}" for i, name in enumerate(names)}
    said = {
        "names": {stored: _escaped(str(name)) for name, stored in stored_as.items()},
        "dataset": _attributes(result.attrs, "the result"),
        "variables": {stored_as[n]: [v.values.dtype.str, _attributes(v.attrs, str(n))] for n, v in result.variables.items()},
        "coordinates": [stored_as[name] for name in result.coords],
    }
    stored = {
        stored_as[name]: xr.Variable([stored_as[dim] for dim in variable.dims], _encoded(str(name), variable))
        for name, variable in result.variables.items()
    }
    coords = {name: stored.pop(name) for name in said["coordinates"]}
    return xr.Dataset(stored, coords, {STORE: json.dumps(said)})


def restored(stored: xr.Dataset) -> xr.Dataset:
    said = json.loads(stored.attrs[STORE])
    names = {stored_as: _unescaped(name) for stored_as, name in said["names"].items()}
    variables = {}
    for stored_as, (dtype, attributes) in said["variables"].items():
        variable = stored.variables[stored_as]
        values = variable.values
        if np.dtype(dtype).kind in "OU":
            values = _mapped(values, lambda text: None if text == MISSING else _unescaped(text))
        values = values.astype(dtype, copy=False)
        dims = [names[str(dim)] for dim in variable.dims]
        variables[names[stored_as]] = xr.Variable(dims, values, _changed(attributes, _unescaped))
    coords = {names[name]: variables.pop(names[name]) for name in said["coordinates"]}
    return xr.Dataset(variables, coords, _changed(said["dataset"], _unescaped))


def _encoded(name: str, variable: xr.Variable) -> np.ndarray:
    values = variable.values
    if values.dtype.kind in "OU":
        return _mapped(values, lambda value: _text(value, name))
    if values.dtype.kind not in "biufMm":
        raise TypeError(f"{name!r} cannot be saved: it holds {values.dtype}, not numbers, truth values, times or text")
    return values


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return _escaped(value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return MISSING
    raise TypeError(f"{name!r} cannot be saved: it holds a {type(value).__name__} among its objects, not only text")


def _mapped(values: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    changed = np.empty(values.size, dtype=object)
    changed[:] = [change(value) for value in values.ravel()]
    return changed.reshape(values.shape)


def _escaped(text: str) -> str:
    return REFUSED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: found[0].encode("ascii").decode("unicode_escape"), text)


def _attributes(attributes: Any, of: str) -> Any:
    try:
        return _changed(attributes, _escaped)
    except TypeError as error:
        raise TypeError(f"an attribute of {of} cannot be saved: {error}") from None


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """An attribute as JSON, with its texts changed; what JSON would turn into something else is an error."""
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"its key {odd[0]!r} is no text")
        return {change(key): _changed(v, change) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(v, change) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _changed(value.tolist(), change)
    if isinstance(value, str):
        return change(value)
    if isinstance(value, float | int | None):
        return value
    raise TypeError(f"it is a {type(value).__name__}, neither text nor number, list nor mapping")
