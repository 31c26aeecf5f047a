"""What a report says of one result, whatever the form of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorscope_nb import recipes
from tensorscope_nb.study.metadata import metadata, partial

EXAMPLES, LONGEST = 3, 40


@dataclass(frozen=True)
class Row:
    """One variable: ``ranges`` are its mean, lowest and highest value, ``holds`` stands in their place where there are none."""

    name: str
    dims: str
    units: str
    ranges: tuple[str, str, str] | None
    holds: str
    undefined: str
    meaning: str


@dataclass(frozen=True)
class Summary:
    question: str
    facts: tuple[str, ...]  # model, samples, options and the like, each a few words
    partial: str
    notes: tuple[str, ...]
    rows: tuple[Row, ...]


def summary(result: xr.Dataset) -> Summary:
    said = metadata(result)
    rows = tuple(_row(str(n), v) for n, v in result.data_vars.items())
    return Summary(_question(said), tuple(_facts(said)), partial(said), tuple(map(str, said.get("notes") or ())), rows)


def models(said: Mapping[str, Any], weights: bool = True) -> str:
    """The model of a result, or the members that it runs along, with what identifies their weights."""
    members = list((said.get("members") or {"": said}).values())
    names = [f"{m.get('model')} (weights {m.get('weights')})" if weights else str(m.get("model")) for m in members]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}, {len(names)} models"


def _question(said: Mapping[str, Any]) -> str:
    if said.get("question"):
        return said["question"]
    return recipes.catalogue().set_index("name")["question"].get(said.get("recipe"), "")


def _facts(said: Mapping[str, Any]) -> list[str]:
    options = ", ".join(f"{k}={v!r}" for k, v in said.get("options", {}).items() if v is not None)
    used, available = said.get("n_used"), said.get("n_available")
    of = "" if available in (None, used) else f" of {available}"
    facts = [
        said.get("source"),
        models(said),
        said.get("model_b") and f"compared with {said['model_b']} (weights {said.get('weights_b')})",
        None if used is None else f"{used}{of} {'sample' if used == 1 and not of else 'samples'}",
        said.get("loss") and f"loss: {said['loss']}",
        None if said.get("seed") is None else f"seed {said['seed']}",
        said.get("dtype"),
        options and f"options: {options}",
    ]
    return [fact for fact in facts if fact]


def _row(name: str, variable: xr.DataArray) -> Row:
    dims = " × ".join(f"{dim} {size}" for dim, size in variable.sizes.items())
    ranges, holds, undefined, values = None, "nothing", "", variable.values
    if values.dtype.kind in "fiu":
        finite = values[np.isfinite(values)]
        undefined = str(values.size - finite.size) if finite.size < values.size else ""
        if finite.size == 1 and variable.ndim == 0:
            holds = _number(finite[0])
        elif finite.size:
            ranges = (f"{finite.mean(dtype=float):.4g}", _number(finite.min()), _number(finite.max()))
    elif values.dtype.kind == "b":
        holds = f"{int(values.sum())} of {values.size} true"
    elif values.size:
        texts = [str(text) for text in values.ravel()[:EXAMPLES]]
        shown = ", ".join(repr(t if len(t) <= LONGEST else f"{t[:LONGEST]}…") for t in texts)
        holds = f"such as {shown}" if values.size > EXAMPLES else shown
    return Row(
        name, dims, str(variable.attrs.get("units", "")), ranges, holds, undefined, str(variable.attrs.get("long_name", ""))
    )


def _number(value: Any) -> str:
    return str(value) if isinstance(value, np.integer) else f"{value:.4g}"
