"""TokenStrip: a value for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import SLICED, comparison, dims_of, shown
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr


class TokenStrip(View):
    """The tokens of the focused sample, coloured by a ``[sample, position]`` or ``[position]`` variable.

    Tokens come from a variable ``token``. Further dimensions, such as ``layer``, are sliced at the Focus.

    >>> import numpy as np, xarray as xr
    >>> TokenStrip(xr.Dataset({"loss": (("sample", "position"), np.ones((2, 3)))}))
    TokenStrip(loss)
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
        what = shown("TokenStrip", ds, variable, ["position"], [*SLICED, "layer", "head", "block"])
        tokens = ["token"] if "token" in what.data and set(dims_of(what.data, "token")) <= {"sample", "position"} else []
        super().__init__(
            focus=focus,
            **what.traits(ds, *tokens),
            compare=comparison(what.data, compare),
            title=title,
            reduce=reduce,
        )
