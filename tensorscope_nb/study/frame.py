"""A table of every result at the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd


APART = {"metric", "metric_a", "metric_b", "selection", "control"}  # what stands along these are different things: no means


@dataclass(frozen=True)
class Column:
    """A variable at its places, and the result it is of."""

    result: str
    variable: str
    values: pd.Series


def frame(results: Mapping[str, xr.Dataset], dims: Sequence[str]) -> pd.DataFrame:
    """See :meth:`tensorscope_nb.Study.frame`."""
    import pandas as pd

    if not dims:
        raise ValueError("frame() of no dimensions: name at least one, such as 'layer'")
    return pd.concat([column.values for column in columns(results, dims).values()], axis=1)


def columns(results: Mapping[str, xr.Dataset], dims: Sequence[str]) -> dict[str, Column]:
    """What lives on ``dims``, by the name that tells it apart."""
    from tensorscope_nb.views.fields import is_companion

    found: dict[str, Column] = {}
    for result_name, result in results.items():
        for name, variable in result.data_vars.items():
            there = _at(variable, dims)
            if there is None:
                continue
            values, reduced = there
            if reduced and is_companion(str(name)):
                continue  # a mean of residuals, of p values or of ends of intervals says nothing
            column = f"{name} ({reduced})" if reduced else str(name)
            if column in found:
                column = f"{result_name}.{column}"
            found[column] = Column(result_name, str(name), values.transpose(*dims).to_series().rename(column))
    if not found:
        there_are = sorted({str(dim) for result in results.values() for dim in result.dims})
        raise LookupError(
            f"no variable lives on {', '.join(dims)}: the results have the dimensions {', '.join(there_are) or 'none'}"
        )
    return found


def _at(variable: xr.DataArray, dims: Sequence[str]) -> tuple[xr.DataArray, str] | None:
    """A variable on exactly ``dims``, and how it got there; None where it does not live there, or is no number."""
    if variable.dtype.kind not in "fiub":
        return None
    plain = variable.reset_coords(drop=True)
    if set(dims) <= set(variable.dims):
        more = [str(dim) for dim in variable.dims if dim not in dims]
        if APART & set(more):
            return None
        return (plain.mean(more) if more else plain), (f"mean over {', '.join(more)}" if more else "")
    if tuple(dims) == ("layer",) and "module" in variable.dims and "module_layer" in variable.coords:
        inside = variable.where(variable["module_layer"] >= 0, drop=True)
        more = [str(dim) for dim in variable.dims if dim != "module"]
        by_layer = inside.mean(more).groupby("module_layer").mean() if more else inside.groupby("module_layer").mean()
        return by_layer.rename(module_layer="layer").reset_coords(drop=True), "mean over " + ", ".join(["module", *more])
    return None
