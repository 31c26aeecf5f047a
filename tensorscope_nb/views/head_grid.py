"""HeadGrid: one number per attention head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, comparison, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr

AXES = ("layer", "head")


class HeadGrid(View):
    """A heat map of layers × heads. Click a head, and the views beside it follow.

    Further dimensions are sliced at the Focus: while nothing is selected, ``checkpoint`` is the last one and ``sample`` is
    reduced; the subtitle says so. A cell whose interval holds the null is hatched; a flag such as ``is_induction`` is a ring.
    ``compare=(600, 3000)`` shows two checkpoints (or models) side by side, and their difference.

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
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        what = shown("HeadGrid", ds, variable, AXES, SLICED)
        super().__init__(
            focus=focus,
            **what.traits(ds),
            marks=what.marks,
            compare=comparison(what.data, compare),
            title=title,
            reduce=reduce,
        )
