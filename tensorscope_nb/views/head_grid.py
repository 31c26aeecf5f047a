"""HeadGrid: one number per attention head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.fields import came, companions, dims_of, flags, measures, opened, travelling
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    import xarray as xr

AXES = ("layer", "head")
# Dimensions that the drop-down's other variables may have besides: slicing them at the Focus makes sense.
SLICED = ("checkpoint", "step", "model", "task", "sample", "replicate")


class HeadGrid(View):
    """A heat map of layers × heads. Click a head, and the views beside it follow.

    Further dimensions are sliced at the Focus: while nothing is selected, ``checkpoint`` is the last one and ``sample`` is
    reduced; the subtitle says so. A cell whose interval holds the null is hatched; a flag such as ``is_induction`` is a ring.

    >>> import numpy as np, xarray as xr
    >>> heads = xr.Dataset({"score": (("layer", "head"), np.eye(2, 4))})
    >>> HeadGrid(heads)
    HeadGrid(score)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        title: str | None = None,
        reduce: str = "mean",
        focus: Focus | None = None,
    ) -> None:
        data, variable = opened(ds, variable)
        possible = measures(data, AXES)
        if variable is None:
            if not possible:
                raise ValueError(f"HeadGrid needs a variable with layer and head; {came(data)} came")
            variable = possible[0]
        dims = dims_of(data, variable)
        if not set(AXES) <= set(dims):
            raise ValueError(f"HeadGrid needs layer and head; {variable} has {', '.join(dims) or 'no dimensions'}")
        names = [n for n in possible if set(dims_of(data, n)) <= {*AXES, *SLICED}]
        if variable not in names:
            names.insert(0, variable)
        belonging = companions(data, names, AXES)
        marks = flags(data, AXES, {*AXES, *SLICED})
        cube = Cube.of(ds, travelling(names, belonging, marks))
        super().__init__(
            focus=focus,
            cube=cube,
            variable=variable,
            variables=names,
            companions=belonging,
            marks=marks,
            title=title,
            reduce=reduce,
        )
