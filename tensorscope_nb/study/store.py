"""Results on disk: one netCDF file each, and a manifest that is written last."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

MANIFEST = "manifest.json"


def save_results(results: Mapping[str, xr.Dataset], folder: Path) -> Path:
    """New files under new names, then the manifest that names them, then the old files go: at every moment one study is whole."""
    if not results:
        raise ValueError("the study holds no results: run a recipe before you save")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before, manifest = _manifest(folder), {}
        for name, result in results.items():
            file = f"{name}-{uuid.uuid4().hex[:8]}.nc"
            _write(folder / file, lambda path, result=result: _portable(result).to_netcdf(path, engine="h5netcdf"))
            manifest[name] = {"file": file, **json.loads(result.attrs.get("tensorscope", "{}"))}
        _write(folder / MANIFEST, lambda path: path.write_text(json.dumps(manifest, indent=2), encoding="utf-8"))
        for entry in before.values():
            (folder / entry["file"]).unlink(missing_ok=True)
    except OSError as error:
        reason = f"{error.strerror or error}; earlier files are as they were"
        raise OSError(f"the study could not be written to {str(folder)!r}: {reason}") from error
    return folder


def load_results(folder: Path) -> dict[str, xr.Dataset]:
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no study: there is no {MANIFEST} in it")
    manifest = _manifest(folder)
    return {name: _restored(xr.load_dataset(folder / entry["file"], engine="h5netcdf")) for name, entry in manifest.items()}


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, write: Any) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(temporary))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is its owner's alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _portable(result: xr.Dataset) -> xr.Dataset:
    """netCDF knows neither NUL in strings nor nested, boolean or missing attributes: strings are escaped, attributes are JSON."""

    def escaped(text: Any) -> str:
        return json.dumps(str(text))[1:-1]

    changed = {name: _mapped(variable, escaped) for name, variable in result.variables.items()}
    strings = [str(name) for name, variable in result.variables.items() if variable.dtype.kind in "OU"]
    attributes = {str(name): dict(variable.attrs) for name, variable in result.variables.items()}
    stored = {"attributes": attributes, "dataset": dict(result.attrs), "strings": strings}
    bare = {name: variable.copy(deep=False) for name, variable in changed.items()}
    for variable in bare.values():
        variable.attrs = {}
    coords = {name: bare[name] for name in result.coords}
    data = {name: bare[name] for name in result.data_vars}
    return xr.Dataset(data, coords, {"tensorscope_store": json.dumps(stored)})


def _restored(stored: xr.Dataset) -> xr.Dataset:
    said = json.loads(stored.attrs["tensorscope_store"])
    result = stored.copy()
    for name in said["strings"]:
        restored = _mapped(result[name].variable, lambda s: json.loads(f'"{s}"'))
        result = result.assign_coords({name: restored}) if name in result.coords else result.assign({name: restored})
    for name, attributes in said["attributes"].items():
        result[name].attrs = attributes
        result[name].encoding = {}
    result.attrs, result.encoding = said["dataset"], {}
    return result


def _mapped(variable: xr.Variable, change: Any) -> xr.Variable:
    if variable.dtype != object and variable.dtype.kind != "U":
        return variable
    values = np.array([change(value) for value in variable.values.ravel()], dtype=object).reshape(variable.shape)
    return xr.Variable(variable.dims, values, variable.attrs)
