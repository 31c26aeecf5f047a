"""Landscape: a value over two directions through a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, comparison, increasing, measures, opened, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr


class Landscape(View):
    """A value by ``[x, y]``, such as the loss along two directions: contour lines, and slices through the point that is picked.

    Coordinates are distances from the model, which is at (0, 0); points that are NaN were not computed. A variable with ``x``
    alone is one slice. ``log``, also a switch in the header, shows what is above the smallest value on a logarithmic scale.

    >>> import numpy as np, xarray as xr
    >>> a = np.linspace(-1, 1, 5)
    >>> Landscape(xr.Dataset({"loss": (("y", "x"), a**2 + a[:, None] ** 2)}, {"x": a, "y": a}))
    Landscape(loss)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        x: str = "x",
        y: str = "y",
        log: bool = False,
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        if x == y:
            raise ValueError(f"Landscape needs two different directions; x={x!r} and y={y!r} came")
        data, variable = opened(ds, variable)
        surfaces = [variable] if variable is not None else measures(data, [x, y])
        axes = [y, x] if any({x, y} <= set(data[n].dims) for n in surfaces) else [x]
        what = shown("Landscape", ds, variable, axes, [*SLICED, "layer"])
        for axis in axes:
            if axis in data.coords and not increasing(data, axis):
                raise ValueError(f"Landscape needs numbers along {axis} that increase: ds.sortby({axis!r}) puts them in order")
        super().__init__(
            focus=focus,
            **what.traits(ds),
            x=x,
            y=y if len(axes) == 2 else None,
            compare=comparison(what.data, compare),
            title=title,
            reduce=reduce,
        )
        if log:
            self.settings = {"log": True}
