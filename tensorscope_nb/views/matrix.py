"""Matrix: one number for each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.fields import TOKENS, comparison, dims_of, is_companion, measures, opened, shown, stand_ins
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr

# Numbers about a row or column that a tooltip has room for.
MOST_NUMBERS = 3


class Matrix(View):
    """A heat map of any two dimensions, such as ``[layer_a, layer_b]``, ``[source, target]`` or ``[sample_a, sample_b]``.

    ``y`` is the dimension of the rows and ``x`` that of the columns: the last two of the variable where none is given. Signed
    values get a diverging scale, and cells that are ``significant`` a ring. Layers run upwards, all else downwards. What
    ``task_a``, ``text_a`` and numbers such as ``loss_a`` say of a row or column stands in the tooltip. A text for each cell, such
    as ``top_token [sample, position, layer]``, is written into it; the tokens of ``token [sample, position]`` stand below.
    ``instead`` names what says the same as a variable more finely, such as ``{"influence": ["contribution"]}``: it is shown while
    all its dimensions besides the axes are selected.

    >>> import numpy as np, xarray as xr
    >>> Matrix(xr.Dataset({"cka": (("layer_a", "layer_b"), np.eye(3))}))
    Matrix(cka)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        x: str | None = None,
        y: str | None = None,
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        instead: Mapping[str, Sequence[str]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        data, variable = opened(ds, variable)
        if variable is None:
            variable = next((n for n in measures(data, [d for d in (x, y) if d]) if len(dims_of(data, n)) >= 2), None)
        dims = dims_of(data, variable) if variable else ()
        free = [d for d in dims if d not in (x, y)]
        needs = [y or (free[-1:] if x else free[-2:-1] or ["rows"])[0], x or (free[-1:] or ["columns"])[0]]
        if needs[0] == needs[1]:
            raise ValueError(f"Matrix needs two different dimensions; x={x!r} and y={y!r} came")
        what = shown("Matrix", ds, variable, needs, dims)
        words, tokens = words_of(what.data, variable or "", needs), tokens_of(what.data, needs[1])
        told = [*about(what.data, needs[0]), *about(what.data, needs[1]), *cells(what.data, needs)]
        told += [*(n for n in (words, tokens) if n), *stand_ins(what.data, instead)]
        super().__init__(
            focus=focus,
            **what.traits(ds, *told),
            marks=what.marks,
            y=needs[0],
            x=needs[1],
            about={d: about(what.data, d) for d in needs},
            cells=cells(what.data, needs),
            words=words,
            tokens=tokens,
            upward=needs[0].startswith("layer") or needs[0] == "y",
            compare=comparison(what.data, compare),
            instead=instead or None,
            title=title,
            reduce=reduce,
        )


def about(data: xr.Dataset, dim: str) -> list[str]:
    """What there is to say of one row or column: its task, some numbers, its text."""
    along = [str(n) for n in data.variables if n != dim and n not in data.sizes and dims_of(data, str(n)) == (dim,)]

    def texts(kind: str) -> list[str]:
        names = [n for n in along if n.removeprefix("test_") == kind or n.startswith(f"{kind}_")]
        return [n for n in names if data[n].dtype.kind in "OUST"]

    numbers = [n for n in along if n in data.data_vars and data[n].dtype.kind in "iuf" and not is_companion(n)]
    return [*texts("task"), *numbers[:MOST_NUMBERS], *texts("text")]


def cells(data: xr.Dataset, axes: Sequence[str]) -> list[str]:
    """Which tokens a cell is about."""
    return [n for n in TOKENS if n in data.data_vars and set(dims_of(data, n)) == set(axes)]


def words_of(data: xr.Dataset, variable: str, axes: Sequence[str]) -> str | None:
    """The text, or token, that stands in each cell: on both axes, and on nothing that the variable is not on."""
    texts = [str(n) for n, v in data.data_vars.items() if v.dtype.kind in "OUST"]
    ids = [n for n in ("top_token",) if n in data.data_vars]
    return next((n for n in texts + ids if set(axes) <= set(dims_of(data, n)) <= set(dims_of(data, variable))), None)


def tokens_of(data: xr.Dataset, dim: str) -> str | None:
    """The tokens along a dimension of positions."""
    there = dim == "position" and "token" in data.variables and data["token"].dtype.kind in "OUST"
    return "token" if there and dim in data["token"].dims and set(dims_of(data, "token")) <= {"sample", dim} else None
