"""Ranking: what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import comparison, dims_of, shown
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.rules import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr

# Texts and numbers that say which entry it is.
ASIDES = ("parameter_name", "module_path", "index", "token", "text")


class Ranking(View):
    """The largest entries of a variable as rows in order, with their coordinates, sign and interval.

    ``over`` names the dimensions that are ranked: all but time and those that are reduced (``sample``, ``position``) where none
    is given. Texts on the same dimension, such as ``parameter_name`` of ``[weight]``, stand beside. What has a query and a key,
    such as ``by_key [query, key, source]``, is ranked over what else it has, for the cell of the pattern that was clicked.

    >>> import numpy as np, xarray as xr
    >>> Ranking(xr.Dataset({"importance": ("module", np.array([3.0, -5.0]))}), n=10)
    Ranking(importance)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        over: str | Sequence[str] | None = None,
        n: int = 20,
        order: str | None = None,
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        if n < 1:
            raise ValueError(f"n= takes how many rows to show, at least 1; {n} came")
        ranked = [over] if isinstance(over, str) else list(over or [])
        what = shown("Ranking", ds, variable, ranked)
        own = dims_of(what.data, what.variable)
        ranked = ranked or parts_of(own)
        what = shown("Ranking", ds, what.variable, ranked, own)
        asides = [a for a in ASIDES if a in what.data.variables and what.data[a].ndim == 1 and dims_of(what.data, a)[0] in own]
        if "parameter_name" in asides:  # which begins with the path
            asides = [a for a in asides if a != "module_path"]
        tokens = ["token"] if {"query", "key"} <= set(own) and "token" in what.data.data_vars else []
        super().__init__(
            focus=focus,
            **(what.traits(ds, *asides, *tokens) | {"variables": [v for v in what.variables if v not in asides]}),
            asides=asides,
            over=ranked or None,
            n=n,
            order=order,
            compare=comparison(what.data, compare),
            title=title,
            reduce=reduce,
        )
