"""Results on disk: one netCDF file each, and a manifest that is written last."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorscope_nb import __version__
from tensorscope_nb.study.atomic import explained, whole
from tensorscope_nb.study.metadata import metadata, plain
from tensorscope_nb.study.portable import from_bytes, to_bytes
from tensorscope_nb.study.saving import beside_others

MANIFEST = "manifest.json"
FORMAT = 1
RESULT = re.compile(r"[A-Za-z][\w.-]*-[0-9a-f]{8}\.tensorscope\.nc")
TEMPORARY = re.compile(rf"\.({RESULT.pattern}|{re.escape(MANIFEST)})\.[0-9a-f]{{8}}\.tmp")
# What every entry of the manifest says, null where the result does not.
SAID = ("recipe", "options", "model", "weights", "dtype", "seed", "n_used", "n_available", "seconds")

Entries = dict[str, dict[str, Any]]


def save_results(results: Mapping[str, xr.Dataset], folder: Path) -> Path:
    """New files under new names, then the manifest that names them, then the old files go: at every moment one study is whole.

    Of saves at the same time the one that ends last is what the folder holds.
    """
    if not results:
        raise ValueError("the study holds no results: run a recipe before you save")
    with explained(f"the study could not be written to {str(folder)!r}"):
        folder.mkdir(parents=True, exist_ok=True)
        _entries_to_replace(folder)
        with beside_others(folder, lambda: _leftovers(folder)):
            entries = {name: _written(name, result, folder) for name, result in results.items()}
            before = _entries_to_replace(folder)
            with whole(folder / MANIFEST) as path:
                path.write_text(json.dumps({"format": FORMAT, "results": entries}, indent=2), encoding="utf-8")
            for entry in before.values():  # no later manifest names them, whoever writes it
                (folder / entry["file"]).unlink(missing_ok=True)
    return folder


def load_results(folder: Path, without: Collection[str] = ()) -> dict[str, xr.Dataset]:
    """The results in ``folder``, each as it was saved; ``without`` leaves out those that are damaged."""
    entries = _entries(folder)
    if entries is None:
        raise FileNotFoundError(f"{str(folder)!r} holds no study: there is no {MANIFEST} in it")
    if unknown := [name for name in without if name not in entries]:
        raise LookupError(f"without names {unknown[0]!r}: the study in {str(folder)!r} holds {', '.join(entries)}")
    results: dict[str, xr.Dataset] = {}
    damages: dict[str, str] = {}
    for name, entry in entries.items():
        if name in without:
            continue
        try:
            content = (folder / entry["file"]).read_bytes()
        except FileNotFoundError:
            damages[name] = f"{entry['file']} is missing"
            continue
        if hashlib.sha256(content).hexdigest() == entry["sha256"]:
            results[name] = from_bytes(content)
        else:
            damages[name] = f"{entry['file']} is not as it was saved (its checksum differs)"
    if damages and _entries(folder) != entries:
        return load_results(folder, without)  # another process has saved in between
    if damages:
        raise OSError(_damage(folder, damages, [*without, *damages], list(entries)))
    return results


def _damage(folder: Path, damages: Mapping[str, str], without: list[str], names: list[str]) -> str:
    said = "; ".join(f"the result {name!r} in {str(folder)!r} is damaged: {why}" for name, why in damages.items())
    return said + (f"; open the others with Study.open({str(folder)!r}, without={without})" if len(without) < len(names) else "")


def _written(name: str, result: xr.Dataset, folder: Path) -> dict[str, Any]:
    """Writes one result; what the manifest says of it."""
    content, file = to_bytes(result), f"{name}-{uuid.uuid4().hex[:8]}.tensorscope.nc"
    with whole(folder / file) as path:
        path.write_bytes(content)
    said: dict[str, Any] = dict.fromkeys(SAID) | metadata(result)
    writers = {"python": platform.python_version(), "numpy": np.__version__, "xarray": xr.__version__}
    said["versions"] = writers | said.get("versions", {})
    return plain(said) | {"file": file, "sha256": hashlib.sha256(content).hexdigest()}


def _entries(folder: Path) -> Entries | None:
    """What the manifest in ``folder`` names; None where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged, or of another program: it is no JSON ({error})") from None
    known = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(known, int) and known > FORMAT:
        raise ValueError(
            f"the study in {str(folder)!r} has format {known}, and tensorscope_nb {__version__} reads up to {FORMAT}: update it"
        )
    entries = manifest.get("results") if known == FORMAT else None
    if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()):
        raise ValueError(f"{str(path)!r} is damaged, or of another program: it names no results of a study")
    return entries


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and RESULT.fullmatch(str(entry.get("file"))) is not None and "sha256" in entry


def _entries_to_replace(folder: Path) -> Entries:
    try:
        return _entries(folder) or {}
    except ValueError as error:
        raise ValueError(f"{error}; nothing was written: save to another folder") from None


def _leftovers(folder: Path) -> list[Path]:
    """What saves that were killed have left: results that the manifest does not name, and temporary files of ours."""
    named = {entry["file"] for entry in (_entries(folder) or {}).values()}
    ours = [path for path in folder.iterdir() if RESULT.fullmatch(path.name) or TEMPORARY.fullmatch(path.name)]
    return [path for path in ours if path.name not in named]
