"""A report of what a study holds, for people (.md) and for programs (.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr


def write_report(results: Mapping[str, xr.Dataset], path: Path) -> Path:
    writers = {".md": _markdown, ".json": _json}
    if path.suffix not in writers:
        raise ValueError(f"the report's name is {path.name!r}: let it end in {' or '.join(writers)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r}: make it first")
    path.write_text(writers[path.suffix](results), encoding="utf-8")
    return path


def _metadata(result: xr.Dataset) -> dict[str, Any]:
    return json.loads(result.attrs.get("tensorscope", "{}"))


def _markdown(results: Mapping[str, xr.Dataset]) -> str:
    lines = ["# Study", ""]
    for name, result in results.items():
        said = _metadata(result)
        options = ", ".join(f"{k}={v!r}" for k, v in said.get("options", {}).items() if v is not None)
        lines += [f"## {name}", "", f"{said.get('source', '')}. Model {said.get('model')} (weights {said.get('weights')}), "]
        lines[-1] += f"{said.get('n_used')} samples, seed {said.get('seed', '–')}{f', {options}' if options else ''}."
        lines += ["", "| variable | dimensions | unit | mean | lowest | highest |", "|---|---|---|---|---|---|"]
        for variable_name, variable in result.data_vars.items():
            lines.append(_row(str(variable_name), variable))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, variable: xr.DataArray) -> str:
    cells = [f"`{name}`", ", ".join(map(str, variable.dims)) or "–", str(variable.attrs.get("units", ""))]
    if variable.dtype.kind in "fiu" and np.isfinite(variable.values).any():
        finite = variable.values[np.isfinite(variable.values)]
        cells += [f"{value:.4g}" for value in (finite.mean(), finite.min(), finite.max())]
    elif variable.dtype.kind == "b":
        cells += [f"{int(variable.sum())} of {variable.size} true", "", ""]
    else:
        cells += ["–", "", ""]
    return "| " + " | ".join(cells) + " |"


def _json(results: Mapping[str, xr.Dataset]) -> str:
    """Numbers that are not finite are null: JSON has no others."""
    return json.dumps({name: {"metadata": _metadata(r), "data": _plain(r.to_dict())} for name, r in results.items()}, indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
