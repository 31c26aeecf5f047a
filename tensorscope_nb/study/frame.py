"""A table of every result at the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd


def frame(results: Mapping[str, xr.Dataset], dims: Sequence[str]) -> pd.DataFrame:
    """See :meth:`tensorscope_nb.Study.frame`."""
    import pandas as pd

    if not dims:
        raise ValueError("frame() of no dimensions: name at least one, such as 'layer'")
    columns: dict[str, pd.Series] = {}
    for result_name, result in results.items():
        for name, variable in result.data_vars.items():
            found = _at(variable, dims)
            if found is None:
                continue
            values, reduced = found
            column = f"{name} ({reduced})" if reduced else str(name)
            if column in columns:
                column = f"{result_name}.{column}"
            columns[column] = values.transpose(*dims).to_series().rename(column)
    if not columns:
        there = sorted({str(dim) for result in results.values() for dim in result.dims})
        raise LookupError(f"no variable lives on {', '.join(dims)}: the results have the dimensions {', '.join(there) or 'none'}")
    return pd.concat(columns.values(), axis=1)


def _at(variable: xr.DataArray, dims: Sequence[str]) -> tuple[xr.DataArray, str] | None:
    """A variable on exactly ``dims``, and how it got there; None where it does not live there, or is no number."""
    if variable.dtype.kind not in "fiub":
        return None
    plain = variable.reset_coords(drop=True)
    if set(dims) <= set(variable.dims):
        more = [str(dim) for dim in variable.dims if dim not in dims]
        return (plain.mean(more) if more else plain), (f"mean over {', '.join(more)}" if more else "")
    if tuple(dims) == ("layer",) and "module" in variable.dims and "module_layer" in variable.coords:
        inside = variable.where(variable["module_layer"] >= 0, drop=True)
        more = [str(dim) for dim in variable.dims if dim != "module"]
        by_layer = inside.mean(more).groupby("module_layer").mean() if more else inside.groupby("module_layer").mean()
        return by_layer.rename(module_layer="layer").reset_coords(drop=True), "mean over " + ", ".join(["module", *more])
    return None
