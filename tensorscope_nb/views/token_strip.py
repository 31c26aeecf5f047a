"""TokenStrip: a value for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.fields import SLICED, comparison, dims_of, opened, shown, stand_ins, travelling
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.rules import base_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xarray as xr

# A row is one text: that of a sample, or one of the two of a pair.
ROWS = ("test_sample", "sample", "pair")
SIDES = {"_a": "_b", "_b": "_a"}


class TokenStrip(View):
    """The tokens of the focused sample, coloured by a ``[sample, position]`` or ``[position]`` variable.

    Tokens come from the variable ``tokens``: ``token`` where none is named. Further dimensions, such as ``layer``, are sliced
    at the Focus. With ``token_id [sample, position]`` a click selects that token too, and a token that is selected elsewhere has
    an outline wherever it stands.

    Of a pair of samples a strip shows one text: ``contribution_a [pair, position_a]`` that of the sample
    ``pair_sample_a [pair]``, with the tokens of ``token_text_a``. It shares its colours with the strip of
    ``contribution_b``, and says so where the pair that is selected is not among those of the Dataset. Of test samples it shows
    the tokens of ``test_token [test_sample, test_position]``. ``instead`` names what says the same more finely.

    >>> import numpy as np, xarray as xr
    >>> TokenStrip(xr.Dataset({"loss": (("sample", "position"), np.ones((2, 3)))}))
    TokenStrip(loss)
    """

    def __init__(
        self,
        ds: xr.Dataset | xr.DataArray,
        variable: str | None = None,
        *,
        tokens: str | None = None,
        compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        instead: Mapping[str, Sequence[str]] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        data, variable = opened(ds, variable)
        along = along_of(data, variable)
        what = shown("TokenStrip", ds, variable, [along], [*SLICED, *ROWS, "layer", "head", "block"])
        dims = dims_of(data, what.variable)
        # with training samples beside them the texts are those of the test samples
        rows = next((r for r in ROWS if r in dims), "sample")
        side = what.variable[-2:] if rows == "pair" and what.variable[-2:] in SIDES else ""
        names = [n for n in what.variables if n.endswith(side) and n not in (instead or {}).get(what.variable, ())]
        words = _tokens(data, tokens, side, rows, along)
        other = _other(data, what.variable, side, rows)
        of = f"{rows}_sample{side}"
        ids = _ids(data, side, rows, along)
        cube = Cube.of(ds, travelling(names, what.companions, [n for n in (words, other, ids) if n], stand_ins(data, instead)))
        super().__init__(
            focus=focus,
            cube=cube,
            variable=what.variable,
            variables=names,
            companions=what.companions,
            rows=rows,
            along=along,
            tokens=words,
            ids=ids,
            side=side.strip("_") or None,
            of=of if of in data.coords and dims_of(data, of) == (rows,) else None,
            order=data[rows].attrs.get("order") if rows in data.coords else None,
            alike={"variable": other, "along": along_of(data, other)} if other else None,
            compare=comparison(data, compare),
            instead=instead or None,
            title=title,
            reduce=reduce,
        )


def along_of(data: xr.Dataset, variable: str | None) -> str:
    """The dimension of the tokens: ``position``, or one of its kind such as ``position_a``."""
    dims = [str(d) for d in data.sizes] if variable is None else dims_of(data, variable)
    kin = [d for d in dims if d not in ("query", "key") and base_name(d) == "position"]
    return next(iter(kin), "position") if "position" not in dims else "position"


def _tokens(data: xr.Dataset, asked: str | None, side: str, rows: str, along: str) -> str | None:
    """The variable of the tokens: the one that is asked for, else the one of this side, else ``token``."""

    def fits(name: str) -> bool:
        return along in data[name].dims and {str(d) for d in data[name].dims} <= {rows, along}

    if asked is None:
        candidates = [f"token_text{side}", f"token{side}"] if side else ["test_token"] if rows == "test_sample" else []
        return next((n for n in (*candidates, "token") if n in data.variables and fits(n)), None)
    if asked not in data.variables:
        raise LookupError(f"tokens= names a variable; there is no {asked!r}, there are {', '.join(map(str, data.data_vars))}")
    if not fits(asked):
        there = ", ".join(dims_of(data, asked)) or "no dimensions"
        raise ValueError(f"tokens= names a variable with {along}, and {rows} at most besides; {asked} has {there}")
    return asked


def _ids(data: xr.Dataset, side: str, rows: str, along: str) -> str | None:
    """The variable that says which token of the vocabulary each one is."""
    name = f"token_id{side}"
    there = name in data.variables and data[name].dtype.kind in "iu"
    return name if there and along in data[name].dims and set(dims_of(data, name)) <= {rows, along} else None


def _other(data: xr.Dataset, variable: str, side: str, rows: str) -> str | None:
    """The same of the other text of a pair."""
    other = variable.removesuffix(side) + SIDES[side] if side else ""
    there = other in data.data_vars and data[other].dtype.kind in "iuf" and rows in data[other].dims
    return other if there and base_name(along_of(data, other)) == base_name(along_of(data, variable)) else None
