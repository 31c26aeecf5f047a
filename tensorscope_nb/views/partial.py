"""What a Dataset says of itself: that it was computed from less than there is, and what else is to be known of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def partial_words(ds: xr.Dataset) -> str:
    """What a view of a partial result has in its header; empty for a complete one.

    >>> import json, xarray as xr
    >>> ds = xr.Dataset(attrs={"tensorscope": json.dumps({"partial": True, "n_used": 12, "n_available": 40})})
    >>> partial_words(ds)
    'partial: 12 of 40 samples'
    >>> partial_words(xr.Dataset())
    ''
    """
    said = _said(ds)
    if not said.get("partial"):
        return ""
    members = "n_members" in said
    used, there = (said.get(key) for key in (("n_done", "n_members") if members else ("n_used", "n_available")))
    if used is None or there is None or used == there:  # of all samples, but less than was asked for of them
        return "partial"
    noun = "samples" if not members else "checkpoints" if "checkpoint" in ds.dims else "models"
    return f"partial: {used} of {there} {noun}"


def notes_of(ds: xr.Dataset) -> list[str]:
    """What its recipe has noted, such as why an interval is missing.

    >>> import json, xarray as xr
    >>> notes_of(xr.Dataset(attrs={"tensorscope": json.dumps({"notes": ["one sample cannot be split"]})}))
    ['one sample cannot be split']
    """
    notes = _said(ds).get("notes")
    return list(map(str, notes)) if isinstance(notes, list) else []


def least_complete(results: list[xr.Dataset]) -> dict[str, Any]:
    """The attributes that say what several results together are: those of the one that was computed from the least."""
    partial = [ds for ds in results if partial_words(ds)]
    return {"tensorscope": min(partial, key=_share).attrs["tensorscope"]} if partial else {}


def _share(ds: xr.Dataset) -> float:
    said = _said(ds)
    used, there = said.get("n_done", said.get("n_used")), said.get("n_members", said.get("n_available"))
    return used / there if used is not None and there else 0.0


def _said(ds: xr.Dataset) -> dict[str, Any]:
    try:
        said = json.loads(ds.attrs.get("tensorscope", "{}"))
    except (TypeError, ValueError):  # an attribute of someone else's
        return {}
    return said if isinstance(said, dict) else {}
