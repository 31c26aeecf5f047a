"""``ts.view``: the view that fits the dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.attention_pattern import AttentionPattern
from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import dims_of, measures, opened
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.head_grid import HeadGrid
from tensorscope_nb.views.timeline import Timeline

if TYPE_CHECKING:
    import xarray as xr

TIME = ("checkpoint", "step")
FITS = "query and key (AttentionPattern), layer and head (HeadGrid), checkpoint or step (Timeline)"


def view(
    ds: xr.Dataset | xr.DataArray,
    variable: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    reduce: str = "mean",
    title: str | None = None,
    focus: Focus | None = None,
) -> View:
    """The view that fits a variable's dimensions; ``x`` and ``y`` ask for certain axes.

    >>> import numpy as np, xarray as xr
    >>> history = xr.Dataset({"score": (("checkpoint", "layer", "head"), np.zeros((3, 2, 4)))})
    >>> view(history), view(history, x="checkpoint")
    (HeadGrid(score), Timeline(score))
    """
    data, variable = opened(ds, variable)
    dims = set(dims_of(data, variable)) if variable is not None else {str(d) for d in data.sizes}
    for name, axis in (("x", x), ("y", y)):
        if axis is not None and axis not in dims:
            there = ", ".join(sorted(dims)) or "none"
            raise ValueError(f"{name}={axis!r} is no dimension of {variable or 'this Dataset'}; there are {there}")
    axes = {axis for axis in (x, y) if axis is not None}

    def has(*needs: str) -> bool:
        if variable is not None:
            return set(needs) <= dims and axes <= set(needs)
        return axes <= set(needs) and bool(measures(data, needs))

    if has("query", "key"):
        return AttentionPattern(ds, variable, title=title, focus=focus)
    if x in TIME and y is None:
        return Timeline(ds, variable, x=x, title=title, reduce=reduce, focus=focus)
    if has("layer", "head"):
        return HeadGrid(ds, variable, title=title, reduce=reduce, focus=focus)
    for time in TIME:
        if has(time):
            return Timeline(ds, variable, x=time, title=title, reduce=reduce, focus=focus)
    asked = "".join(f", {name}={axis!r}" for name, axis in (("x", x), ("y", y)) if axis is not None)
    raise ValueError(f"no view fits {variable or 'this Dataset'} [{', '.join(sorted(dims))}]{asked}; views fit {FITS}")
