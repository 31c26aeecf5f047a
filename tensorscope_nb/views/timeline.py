"""Timeline: a score over training, or a curve over any other number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.fields import (
    MOST_CURVES,
    came,
    companions,
    dims_of,
    family_of,
    measures,
    opened,
    runs_along,
    travelling,
)
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.rules import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr


class Timeline(View):
    """One line per head (or layer, or whatever else the variable has) over training, and a scrubber for the checkpoint.

    ``x`` is the dimension of time: ``checkpoint`` where the variable has one, else ``step``. It may be any other number, such as
    ``sparsity`` or ``curvature``; then the variables with the dimensions and the unit of the first share one picture, each with
    its interval. ``together`` names the variables to be shown so, and an empty list says none. A few curves that have names, such
    as ``loss [control, sparsity, replicate]``, have a colour each, and a band from the smallest to the largest replicate where
    they have no interval. ``log``, also a switch in the
    header, shows values on a logarithmic scale.

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
        together: Sequence[str] | None = None,
        log: bool = False,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        data, variable = opened(ds, variable)
        if x is None:
            x = _along(data, variable)
        possible = measures(data, [x])
        chosen = variable
        if variable is None:
            if not possible:
                raise ValueError(f"Timeline needs a variable over {x}; {came(data)} came")
            variable = together[0] if together else possible[0]
        joined = _alike(data, variable, x) if together is None and chosen is None else _together(data, together or [], x)
        dims = dims_of(data, variable)
        if x not in dims:
            raise ValueError(f"Timeline needs {x}; {variable} has {', '.join(dims) or 'no dimensions'}")
        family = family_of(data, variable)
        apart = family[1] if family and family[0] == x else None
        alike = lambda n: dims_of(data, n) == dims or (apart is not None and family_of(data, n) == family)
        names = list(dict.fromkeys([*(n for n in possible if alike(n)), variable, *joined]))
        belonging = companions(data, names, [x])
        cube = Cube.of(ds, travelling(names, belonging))
        super().__init__(
            focus=focus,
            cube=cube,
            variable=variable,
            variables=names,
            companions=belonging,
            x=x,
            together=joined or None,
            apart=apart,
            title=title,
            reduce=reduce,
        )
        if log:
            self.settings = {"log": True}


def _along(data: xr.Dataset, variable: str | None) -> str:
    """The dimension of time; where there is none, that of the first curve."""
    there = dims_of(data, variable) if variable else tuple(map(str, data.sizes))
    time = next((t for t in TIME if t in there), None)
    curves = (runs_along(data, n) for n in ([variable] if variable else measures(data, [])))
    return time or next(filter(None, curves), TIME[0])


def _alike(data: xr.Dataset, variable: str, x: str) -> list[str]:
    """The variables that belong in one picture with this one: over the same dimensions, in the same unit that they name.

    Those with an interval come first: what was measured has the solid line.
    """
    about = lambda n: (dims_of(data, n), data[n].attrs.get("units"))
    if x in TIME or not data[variable].attrs.get("units") or family_of(data, variable):
        return []
    found = [n for n in measures(data, [x]) if about(n) == about(variable)]
    measured = companions(data, found, [x])
    found.sort(key=lambda n: n not in measured)
    return found[:MOST_CURVES] if len(found) > 1 else []


def _together(data: xr.Dataset, names: Sequence[str], x: str) -> list[str]:
    """The variables asked for, if one axis can hold them."""
    if isinstance(names, str):
        raise ValueError(f"together= takes a list of variables; {names!r} came")
    for name in names:
        opened(data, name)
    if len(names) > MOST_CURVES:
        raise ValueError(f"together= takes at most {MOST_CURVES} variables, whose lines can be told apart; {len(names)} came")
    if astray := [n for n in names if n not in measures(data, [x])]:
        raise ValueError(
            f"together= takes numbers over {x}; {astray[0]} has {', '.join(dims_of(data, astray[0])) or 'no dimensions'}"
        )
    units = {n: data[n].attrs.get("units", "no unit") for n in names}
    if len(set(units.values())) > 1:
        raise ValueError(f"together= takes variables of one unit; {', '.join(f'{n} is in {u}' for n, u in units.items())}")
    return list(names)
