"""Landscape: a value over two directions through a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, comparison, increasing, measures, opened, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

# The share of a linear scale in which half of the values would have nearly one colour.
MOST_ALIKE = 0.02


class Landscape(View):
    """A value by ``[x, y]``, such as the loss along two directions: contour lines, and slices through the point that is picked.

    Coordinates are distances from the model, which is at (0, 0); points that are NaN were not computed. A variable with ``x``
    alone is one slice. ``log``, also a switch in the header, shows what is above the smallest value on a logarithmic scale: where
    nothing is said, if the values explode at the rim and most of the picture would have one colour.

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
        log: bool | None = None,
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
        if log or (log is None and explodes(data[what.variable].values)):
            self.settings = {"log": True}


def explodes(values: np.ndarray[Any, Any]) -> bool:
    """Whether half of the values are within a fiftieth of their range, at its lower end.

    >>> a = np.linspace(-1, 1, 25)
    >>> explodes(a**2), explodes(np.exp(9 * a**2)), explodes(np.full(3, np.nan))
    (False, True, False)
    """
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.median(finite) - finite.min() < MOST_ALIKE * np.ptp(finite))
