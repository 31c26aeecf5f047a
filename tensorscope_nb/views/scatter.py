"""Scatter: one variable against another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.fields import came, companions, dims_of, measures, opened, travelling
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    import xarray as xr

# What a point is called besides its coordinates.
TEXTS = ("token", "text")


class Scatter(View):
    """Variable ``y`` against variable ``x``, on the same dimensions or on some of them. A brush selects several points.

    Both can be changed in the header. A point is selected by its coordinates; a brush selects the rectangle that spans them.

    >>> import numpy as np, xarray as xr
    >>> dims = ("layer", "head")
    >>> Scatter(xr.Dataset({"w": (dims, np.eye(2)), "g2": (dims, np.eye(2))}), x="w", y="g2")
    Scatter(g2)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        x: str | None = None,
        y: str | None = None,
        *,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        data, _ = opened(ds, None)
        for axis in (x, y):
            opened(data, axis)
        possible = [n for n in measures(data, []) if dims_of(data, n)]
        x, y = _pair(data, possible, x, y)
        for name in (x, y):
            if not dims_of(data, name):
                raise ValueError(f"Scatter needs values along a dimension; {name} is a single value")
        if not _fit(data, x, y):
            words = [f"{name} [{', '.join(dims_of(data, name))}]" for name in (x, y)]
            raise ValueError(f"Scatter needs two variables, one with all dimensions of the other; {' and '.join(words)} came")
        names = list(dict.fromkeys([y, x, *(n for n in possible if _fit(data, n, y) or _fit(data, n, x))]))
        belonging = companions(data, names, [])
        points = {d for name in (x, y) for d in dims_of(data, name)}
        texts = [n for n in TEXTS if n in data.variables and set(dims_of(data, n)) == points]
        super().__init__(
            focus=focus,
            cube=Cube.of(ds, travelling(names, belonging, texts)),
            variable=y,
            x=x,
            variables=names,
            companions=belonging,
            asides=texts,
            title=title,
            reduce=reduce,
        )


def _fit(ds: xr.Dataset, a: str, b: str) -> bool:
    mine, other = set(dims_of(ds, a)), set(dims_of(ds, b))
    return mine <= other or other <= mine


def _pair(ds: xr.Dataset, possible: list[str], x: str | None, y: str | None) -> tuple[str, str]:
    """The two variables: those asked for, and otherwise the first that fit together."""
    for first in [x] if x else possible:
        for second in [y] if y else possible:
            if (x and y) or (first != second and _fit(ds, first, second)):
                return first, second
    raise ValueError(f"Scatter needs two variables on the same dimensions; {came(ds)} came")
