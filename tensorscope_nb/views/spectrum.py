"""Spectrum: eigenvalues in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    import xarray as xr


class Spectrum(View):
    """Values by ``[component]``, each with its residual (or interval); those that are not ``converged`` are hollow.

    A residual says that some eigenvalue is that near, not which one: only of a converged value is it that of this place.
    A switch in the header shows their size on a logarithmic scale, negative ones as triangles.

    >>> import numpy as np, xarray as xr
    >>> Spectrum(xr.Dataset({"eigenvalue": ("component", np.array([9.0, 1.0, -0.2]))}))
    Spectrum(eigenvalue)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        by: str = "component",
        log: bool = False,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        what = shown("Spectrum", ds, variable, [by], [*SLICED, "layer", "kind"])
        super().__init__(
            focus=focus,
            **what.traits(ds),
            by=by,
            title=title,
            reduce=reduce,
        )
        if log:
            self.settings = {"log": True}
