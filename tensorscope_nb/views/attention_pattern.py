"""AttentionPattern: who looks at whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import PATTERN_BUDGET, Cube
from tensorscope_nb.views.fields import by_cell, came, dims_of, opened
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.rules import parts_of

if TYPE_CHECKING:
    import xarray as xr


class AttentionPattern(View):
    """The attention of the focused head(s) on the focused sample, as a matrix and on the sentence itself.

    All patterns of ``ds`` travel to the page, so that it follows while the kernel is busy and in a file without one;
    ``budget`` bounds their bytes. Tokens come from a variable ``token [sample, position]``. ``skip_first`` (a switch in the
    header) leaves out the attention to the first token, where many heads rest, and fits the colours to the rest. Where the
    Dataset says what each cell is made of, such as ``by_key [layer, head, query, key, source]``, a click selects ``query``
    and ``key``.

    >>> import numpy as np, xarray as xr
    >>> patterns = xr.Dataset({"pattern": (("layer", "head", "query", "key"), np.tril(np.ones((1, 2, 3, 3))))})
    >>> AttentionPattern(patterns)
    AttentionPattern(pattern)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        title: str | None = None,
        focus: Focus | None = None,
        budget: int = PATTERN_BUDGET,
        skip_first: bool = False,
    ) -> None:
        data, variable = opened(ds, variable)
        if variable is None:
            patterns = [str(n) for n in data.data_vars if {"query", "key"} <= set(dims_of(data, str(n)))]
            if not patterns:
                raise ValueError(f"AttentionPattern needs a variable with query and key; {came(data)} came")
            whole = [n for n in patterns if not parts_of(dims_of(data, n))]
            variable = "pattern" if "pattern" in whole else (whole or patterns)[0]
        dims = dims_of(data, variable)
        if not {"query", "key"} <= set(dims):
            raise ValueError(f"AttentionPattern needs query and key; {variable} has {', '.join(dims) or 'no dimensions'}")
        names = [variable]
        if "token" in data and set(dims_of(data, "token")) in ({"sample", "position"}, {"position"}):
            names.append("token")
        super().__init__(
            focus=focus,
            cube=Cube.of(ds, names, budget=budget),
            variable=variable,
            title=title,
            skip_first=skip_first,
            cells=bool(by_cell(data)) or None,
        )
