"""Timeline: a score over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.fields import came, companions, dims_of, measures, opened, travelling
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    import xarray as xr


class Timeline(View):
    """One line per head (or layer, or whatever else the variable has) over training, and a scrubber for the checkpoint.

    ``x`` is the dimension of time: ``checkpoint`` where the variable has one, else ``step``.

    >>> import numpy as np, xarray as xr
    >>> history = xr.Dataset({"score": (("checkpoint", "layer", "head"), np.zeros((3, 2, 4)))}, {"checkpoint": [0, 200, 600]})
    >>> Timeline(history, "score")
    Timeline(score)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        x: str | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        data, variable = opened(ds, variable)
        if x is None:
            there = dims_of(data, variable) if variable else tuple(data.sizes)
            x = "step" if "step" in there and "checkpoint" not in there else "checkpoint"
        possible = measures(data, [x])
        if variable is None:
            if not possible:
                raise ValueError(f"Timeline needs a variable over {x}; {came(data)} came")
            variable = possible[0]
        dims = dims_of(data, variable)
        if x not in dims:
            raise ValueError(f"Timeline needs {x}; {variable} has {', '.join(dims) or 'no dimensions'}")
        names = [n for n in possible if dims_of(data, n) == dims] or [variable]
        if variable not in names:
            names.insert(0, variable)
        belonging = companions(data, names, [x])
        cube = Cube.of(ds, travelling(names, belonging))
        super().__init__(
            focus=focus, cube=cube, variable=variable, variables=names, companions=belonging, x=x, title=title, reduce=reduce
        )
