"""LayerBars: one number per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, comparison, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr

# What a layer is made of.
WITHIN = ("head", "block", "neuron", "channel", "component", "position")


class LayerBars(View):
    """A bar per layer, layer 0 at the bottom as in a HeadGrid, with its interval.

    A variable that has heads (or blocks, neurons) besides is reduced over them, says so, and shows each as a dot; select a
    head, and the bars are that head's. ``by`` takes another dimension in the place of ``layer``.

    >>> import numpy as np, xarray as xr
    >>> LayerBars(xr.Dataset({"overlap": ("layer", np.array([0.2, 0.7]))}))
    LayerBars(overlap)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        by: str = "layer",
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        what = shown("LayerBars", ds, variable, [by], [*SLICED, *WITHIN])
        super().__init__(
            focus=focus,
            **what.traits(ds),
            by=by,
            compare=comparison(what.data, compare),
            title=title,
            reduce=reduce,
        )
