"""What a result says of itself: its JSON attribute ``tensorscope``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def metadata(result: xr.Dataset) -> dict[str, Any]:
    return json.loads(result.attrs.get("tensorscope", "{}"))


def partial(said: Mapping[str, Any]) -> str:
    """How much of the work an interrupted run has done, such as ``12 of 64 samples``; empty for one that was finished."""
    if not said.get("partial"):
        return ""
    for done, of, things in (("n_done", "n_members", "models"), ("n_used", "n_available", said.get("counted", "samples"))):
        if said.get(done) is not None and said.get(of) is not None:
            return f"{said[done]} of {said[of]} {things}"
    return "interrupted"


def plain(value: Any) -> Any:
    """As JSON has it: a number that is not finite is null, what JSON does not know is text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
