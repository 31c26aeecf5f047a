"""What stands beside the view of a result that has more than one thing to say."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.attention_pattern import AttentionPattern
from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import by_cell, dims_of, family_of, measures
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.head_grid import HeadGrid
from tensorscope_nb.views.matrix import Matrix
from tensorscope_nb.views.pairs import details
from tensorscope_nb.views.ranking import Ranking
from tensorscope_nb.views.rules import base_name, twins
from tensorscope_nb.views.sample_table import SampleTable
from tensorscope_nb.views.scatter import Scatter
from tensorscope_nb.views.timeline import Timeline

if TYPE_CHECKING:
    import xarray as xr


# Parts of a model that a map beside curves has as its rows.
MAPPED = ("module", "layer")


def beside(ds: xr.Dataset, first: View, *, reduce: str | None, focus: Focus) -> list[View]:
    """The views beside the first one: heads beside a matrix of heads, the parts of a cell beside a pattern, a scatter beside the
    table of tokens, curves and what is behind them, and what there is to say of pairs of samples."""
    common: dict[str, Any] = {"reduce": reduce, "focus": focus}
    if isinstance(first, AttentionPattern) and (names := by_cell(ds)):
        # without its parts a pattern of this kind says little: what is too large for the page is an error that tells what to do
        return [Ranking(ds, names[0], **common)]
    if isinstance(first, Matrix) and of_heads(first.options["y"], first.options["x"]) and measures(ds, ["layer", "head"]):
        return [HeadGrid(ds, **common)]
    if isinstance(first, SampleTable) and first.options["by"] == "token_id":
        numbers = [n for n in measures(ds, ["token_id"]) if dims_of(ds, n) == ("token_id",)]
        if len(numbers) > 1:
            with suppress(ValueError):
                return [Scatter(ds, numbers[1], numbers[0], **common)]
    if isinstance(first, Timeline) and first.options.get("apart"):
        return curves(ds, first, common)
    return details(ds, first, **common)


def curves(ds: xr.Dataset, first: Timeline, common: dict[str, Any]) -> list[View]:
    """Beside named curves: those in other units and the differences between them, and what else there is at each of their places.

    What is told of each replicate has a picture for each unit, what is told of them together (the differences) has one, and so
    have curves with other names. Where the curves are one, as of a count that all have alike, there is no picture.
    """
    x, by = first.options["x"], first.options["apart"]
    names: list[str] = first.options["variables"]
    own = dims_of(ds, first.variable)
    about = lambda n: ds[n].attrs.get("units") if dims_of(ds, n) == own else dims_of(ds, n)
    told = {about(n): n for n in names if ds[n].notnull().any() and (ds[n].max(by) > ds[n].min(by)).any()}
    told |= {about(first.variable): first.variable}
    told |= {family: n for n in reversed(measures(ds, [x])) if (family := family_of(ds, n)) and family not in ((x, by), None)}
    chosen = [n for n in measures(ds, [x]) if n in told.values() and n != first.variable]
    found: list[View] = [Timeline(ds, n, x=x, **common) for n in chosen]
    maps = [n for n in measures(ds, [x]) if len(rest := set(dims_of(ds, n)) - {x}) == 1 and rest <= set(MAPPED)]
    with suppress(ValueError):
        found += [Matrix(ds, n, y=next(d for d in dims_of(ds, n) if d != x), x=x, **common) for n in maps[:1]]
    return found


def of_heads(rows: str, columns: str) -> bool:
    """Whether a matrix is of one thing against itself, and that not samples.

    >>> of_heads("source", "target"), of_heads("sample_a", "sample_b"), of_heads("layer", "neuron")
    (True, False, False)
    """
    return twins(rows, columns) and base_name(rows) != "sample"
