"""SampleTable: one row per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.base import View
from tensorscope_nb.views.cube import Cube, dataset_of
from tensorscope_nb.views.fields import TOKENS, came, companions, dims_of, is_companion, light, pictures_of, stand_ins, travelling
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.partial import least_complete

if TYPE_CHECKING:
    import xarray as xr

TEXTS = ("text", "task", "token")
#: More rows than this are refused.
MOST = 1_000_000
SLICED = ("checkpoint", "step", "model", "layer", "head", "block", "component", "x", "y", "replicate", "position")


class SampleTable(View):
    """A table of samples: their text and task, and every variable that has a ``sample``, sliced at the Focus.

    Takes a Dataset or a Study. Click a column to sort, a row to select its sample; only the rows in sight are in the page.
    ``sort`` names the column whose largest value comes first. ``by`` takes another dimension in the place of ``sample``, such
    as ``token_id`` or ``circuit``. What is typed into the search box is looked for in all texts. ``instead`` names what says the
    same as a column more finely or coarsely, such as ``{"influence": ["token_influence", "mean_influence"]}``: the finest whose
    dimensions are all selected is shown. ``along`` names columns that have one more dimension, such as
    ``{"contribution": "checkpoint"}``: a row of coloured cells. Samples that are images have a small picture in their row, of
    ``pixels [sample, row, column]`` from 0 (black) to 1 (``test_pixels`` for test samples).

    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({"loss": ("sample", np.array([3.1, 2.7]))}, {"sample": ["a", "b"]})
    >>> SampleTable(ds)
    SampleTable(loss)
    """

    may_be_empty = True

    def __init__(
        self,
        ds: Any,
        columns: Iterable[str] | None = None,
        *,
        by: str = "sample",
        sort: str | None = None,
        instead: Mapping[str, Sequence[str]] | None = None,
        along: Mapping[str, str] | None = None,
        title: str | None = None,
        reduce: str | None = None,
        focus: Focus | None = None,
    ) -> None:
        source = ds if hasattr(ds, "dims") else joined(ds, by)
        data = dataset_of(source)
        if by not in data.sizes:
            raise ValueError(f"SampleTable needs a variable with {by}; {came(data)} came")
        if data.sizes[by] > MOST:
            raise ValueError(f"SampleTable shows at most {MOST:,} rows; {data.sizes[by]:,} came: ds.isel({by}=slice({MOST}))")
        names = list(columns) if columns is not None else _columns(data, by)
        for name in names:
            if name not in data.variables:
                raise LookupError(f"there is no variable {name!r}; there are {', '.join(map(str, data.data_vars)) or 'none'}")
            if by not in data[name].dims:
                there = ", ".join(dims_of(data, name)) or "no dimensions"
                raise ValueError(f"a column of a SampleTable has {by}; {name} has {there}")
        for name, dim in (along or {}).items():
            if name not in names or dim not in data[name].dims:
                raise ValueError(f"along= names columns and a dimension of each; {name!r} with {dim!r} came")
        if sort is not None and sort not in names:
            raise LookupError(f"sort= names a column; there is no {sort!r}, there are {', '.join(names)}")
        shown = [*names, *stand_ins(data, instead)]
        belonging = companions(data, shown, [by])
        pictures = pictures_of(data, by)
        cube = Cube.of(source, travelling(shown, belonging, [pictures] if pictures and light(data, pictures) else []))
        numbers = [n for n in names if data[n].dtype.kind in "biuf"]
        super().__init__(
            focus=focus,
            cube=cube,
            variable=(numbers or names or [""])[0],
            columns=names,
            companions=belonging,
            by=by,
            instead=instead or None,
            along=dict(along or {}) or None,
            pictures=pictures,
            title=title,
            reduce=reduce,
        )
        if sort is not None:
            self.settings = {"sort": {"column": sort, "descending": True}}


def _columns(ds: xr.Dataset, by: str) -> list[str]:
    """Text and task first, then what there is for every sample, then what is sliced at the Focus; no means of token ids."""
    texts = [n for n in TEXTS if n in ds.variables and dims_of(ds, n) == (by,)]
    plain = [str(n) for n, v in ds.data_vars.items() if dims_of(ds, str(n)) == (by,) and v.dtype.kind in "biufOUST"]
    sliced = [
        str(n) for n, v in ds.data_vars.items()
        if v.dtype.kind in "iuf" and n not in TOKENS and by in v.dims and v.ndim > 1 and set(map(str, v.dims)) <= {by, *SLICED}
    ]  # fmt: skip
    return list(dict.fromkeys([*texts, *(n for n in [*plain, *sliced] if not is_companion(n))]))


def joined(study: Any, by: str = "sample") -> xr.Dataset:
    """The variables of all results of a Study that have samples, in one Dataset; names that occur twice tell their recipe."""
    import xarray as xr

    found: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    sources: list[xr.Dataset] = []
    for recipe in study:
        ds = study[recipe]
        if by not in ds.sizes:
            continue
        texts |= {n: ds[n] for n in TEXTS if n in ds.coords and dims_of(ds, n) == (by,) and n not in texts}
        if (pictures := pictures_of(ds, by)) and pictures not in found:
            found[pictures] = ds[pictures].drop_vars(TEXTS, errors="ignore")
        for name, variable in ds.data_vars.items():
            if by in variable.dims and set(map(str, variable.dims)) <= {by, *SLICED}:
                found[str(name) if name not in found else f"{recipe}_{name}"] = variable.drop_vars(TEXTS, errors="ignore")
                sources.append(ds)
    if not found:
        raise ValueError(f"no result of this Study has a variable by {by}: run its recipes with per_sample=True")
    data = xr.Dataset(dict(xr.merge([v.rename(n) for n, v in found.items()], join="outer", compat="override")))
    data.attrs = least_complete(sources)
    # results may be of different samples: those of one have no text in another
    return data.assign_coords({n: t.reset_coords(drop=True).reindex({by: data[by]}, fill_value="") for n, t in texts.items()})
