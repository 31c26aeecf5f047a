"""``ts.view``: the view that fits the dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.attention_pattern import AttentionPattern
from tensorscope_nb.views.base import View
from tensorscope_nb.views.beside import beside, of_heads
from tensorscope_nb.views.fields import dims_of, increasing, measures, opened, runs_along
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.head_grid import HeadGrid
from tensorscope_nb.views.influence import BY_TIME, TEST, TRAIN, finer, of_influence
from tensorscope_nb.views.landscape import Landscape
from tensorscope_nb.views.layer_bars import LayerBars
from tensorscope_nb.views.matrix import Matrix
from tensorscope_nb.views.pairs import together
from tensorscope_nb.views.ranking import Ranking
from tensorscope_nb.views.rules import BASES, base_name, twins
from tensorscope_nb.views.sample_table import TEXTS, SampleTable
from tensorscope_nb.views.scatter import Scatter
from tensorscope_nb.views.spectrum import Spectrum
from tensorscope_nb.views.timeline import Timeline
from tensorscope_nb.views.token_strip import TokenStrip

if TYPE_CHECKING:
    import xarray as xr

TIME = ("checkpoint", "step")
# Along these a variable is sliced or reduced, unless nothing else is there.
ASIDE = (*TIME, "model", "task", "sample", "replicate", "kind")
# Of these a table says more than what is largest.
TABLED = ("circuit", "token_id")
FITS = (
    "query and key (AttentionPattern), layer and head (HeadGrid), checkpoint or step (Timeline), position (TokenStrip), "
    "x and y with coordinates (Landscape), any number that increases (Timeline), component (Spectrum), layer (LayerBars), "
    "sample (SampleTable), any two dimensions (Matrix), any one (Ranking)"
)


def view(
    source: Any,
    variable: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    reduce: str | None = None,
    budget: int | None = None,
    title: str | None = None,
    focus: Focus | None = None,
) -> View:
    """The view that fits a variable's dimensions, or the linked views of a Study.

    A Dataset that also tells of single pairs of samples has a Matrix of them beside, and both texts of a pair below. Heads stand
    beside a Matrix of heads, the parts of a cell beside an AttentionPattern, a Scatter beside the table of tokens. What training
    samples taught test samples has its checkpoints, its tokens or the test samples, and a ranking of the training samples; curves
    with names, such as those of lottery tickets, have their differences and what is kept of each module.

    ``x`` and ``y`` ask for certain axes; two variables in their place are set against each other. ``compare`` takes two
    checkpoints (or models): side by side, with their difference. ``budget`` bounds the bytes of attention patterns.

    >>> import numpy as np, xarray as xr
    >>> history = xr.Dataset({"score": (("checkpoint", "layer", "head"), np.zeros((3, 2, 4)))})
    >>> view(history), view(history, x="checkpoint")
    (HeadGrid(score), Timeline(score))
    >>> view(xr.Dataset({"cka": (("layer_a", "layer_b"), np.eye(2))}))
    Matrix(cka)
    """
    from tensorscope_nb.views.dashboard import dashboard, is_study

    common: dict[str, Any] = {"title": title, "reduce": reduce, "focus": focus}
    if is_study(source):
        asked = {"variable": variable, "x": x, "y": y, "compare": compare, "title": title}
        if given := [name for name, value in asked.items() if value is not None]:
            raise ValueError(f"the view of a Study takes no {', '.join(given)}; view one of its results: ts.view(study[name], …)")
        return dashboard(source, reduce=reduce, focus=focus)
    data, variable = opened(source, variable)
    if variable is None and x in data.data_vars and y in data.data_vars:
        return Scatter(source, x, y, **common)
    dims = set(dims_of(data, variable)) if variable is not None else {str(d) for d in data.sizes}
    for name, axis in (("x", x), ("y", y)):
        if axis is not None and axis not in dims:
            there = ", ".join(sorted(dims)) or "none"
            raise ValueError(f"{name}={axis!r} is no dimension of {variable or 'this Dataset'}; there are {there}")
    if not dims and data.data_vars:
        name = variable or str(next(iter(data.data_vars)))
        raise ValueError(f'{name} is a single number: read result["{name}"], or view it along checkpoints or models of a Study')
    make = _fitting(data, variable, x, y)
    if make is None:
        asked_for = "".join(f", {name}={axis!r}" for name, axis in (("x", x), ("y", y)) if axis is not None)
        raise ValueError(f"no view fits {variable or 'this Dataset'} [{', '.join(sorted(dims))}]{asked_for}; views fit {FITS}")
    kind, options = make
    if kind is AttentionPattern:
        common = {"title": title, "focus": focus, **({} if budget is None else {"budget": budget})}
    elif budget is not None:
        raise ValueError(f"budget= bounds attention patterns; this is a {kind.__name__}")
    if compare is not None:
        if kind in (AttentionPattern, Timeline, SampleTable, Spectrum):
            raise ValueError(f"compare= does not fit a {kind.__name__}")
        options = {**options, "compare": compare}
    if kind is not SampleTable:
        options = {**options, "variable": variable}
    plain = (variable, x, y, compare) == (None, None, None, None)
    if plain and focus is None:
        common["focus"] = Focus()
    first = kind(source, **options, **common)
    more = beside(data, first, reduce=reduce, focus=common["focus"]) if plain else []
    return together([first, *more]) if more else first


Fit = tuple[type[Any], dict[str, Any]]


def kind_of(data: xr.Dataset) -> type[View] | None:
    """The kind of view that ``view(data)`` is; None where none fits."""
    fit = _fitting(data, None, None, None)
    return fit and fit[0]


def _fitting(data: xr.Dataset, variable: str | None, x: str | None, y: str | None) -> Fit | None:
    """The kind of view, and the options that it needs; the first that fits."""
    axes = {axis for axis in (x, y) if axis is not None}

    def has(*needs: str) -> bool:
        if variable is not None:
            return set(needs) <= set(dims_of(data, variable)) and axes <= set(needs)
        return axes <= set(needs) and bool(measures(data, needs))

    if has("query", "key"):
        return AttentionPattern, {}
    if x in TIME and y is None:
        return Timeline, {"x": x}
    names = [variable] if variable is not None else [n for n in measures(data, []) if dims_of(data, n)]
    # without axes it is the first variable that says what the Dataset is about
    pairs = (_pair(_varying(data, n, axes), x, y) for n in (names if axes else names[:1]))
    pair = next(filter(None, pairs), None)
    if has("layer", "head") and not (pair and of_heads(*pair)):
        return HeadGrid, {}
    if _directions(data, names, axes):
        return Landscape, {"x": "y", "y": "x"} if x == "y" or y == "x" else {}
    if y is None and names and (curve := runs_along(data, names[0])) and axes <= {curve}:
        return Timeline, {"x": curve}
    if pair and (
        axes or of_influence(pair) or not has("position") or set(pair) in ({"layer", "position"}, {"source", "position"})
    ):
        return Matrix, {"y": pair[0], "x": pair[1], **({"instead": finer(data, names[0], BY_TIME)} if of_influence(pair) else {})}
    if has("position") or (names and {"test_sample", "test_position"} <= set(dims_of(data, names[0]))):
        return TokenStrip, {}
    if has("component"):
        return Spectrum, {}
    for time in TIME:
        if has(time):
            return Timeline, {"x": time}
    if has("layer"):
        return LayerBars, {}
    if has("sample") and all(set(dims_of(data, n)) == {"sample"} for n in names):
        texts = [n for n in TEXTS if n in data.variables]
        return SampleTable, {"columns": [*texts, variable]} if variable is not None else {}
    if names and not axes:
        own = {d for n in names for d in dims_of(data, n)}
        if len(own) == 1 and variable is None and own <= set(TABLED):
            (by,) = own
            # numbers have an order of their own
            named = by in data.coords and data[by].dtype.kind not in "iuf"
            return SampleTable, {"by": by, "sort": names[0] if named else None}
        return Ranking, {}
    return None


def _directions(data: xr.Dataset, names: Sequence[str], axes: set[str]) -> bool:
    """Whether the first variable is over the directions ``x`` and ``y``, or over ``x`` alone, with distances along them."""
    there = {d for d in dims_of(data, names[0]) if d not in (*ASIDE, "layer")} if names else set()
    return there in ({"x", "y"}, {"x"}) and axes <= there and all(increasing(data, d) for d in there)


def _varying(data: xr.Dataset, name: str, axes: set[str]) -> list[str]:
    """The dimensions of a variable, without those of a setting that has one value only, such as a ``ratio`` of 1."""
    alone = lambda d: data.sizes[d] == 1 and d not in BASES and base_name(d) is None
    return [d for d in dims_of(data, name) if d in axes or not alone(d)]


def _pair(dims: Sequence[str], x: str | None, y: str | None) -> tuple[str, str] | None:
    """The rows and columns of a Matrix: those asked for, or the two dimensions that are left when the others are sliced."""
    if x and y:
        return (y, x) if {x, y} <= set(dims) and x != y and not {x, y} & set(TIME) else None
    free = [d for d in dims if d not in ASIDE]
    if of_influence(dims) and not (x or y):
        return (TRAIN, TEST) if free == [TEST] else None
    if len(free) != 2 or (x or y) or "component" in free or len(dims) - len(free) > 2:
        return None
    if free[0] == "position":
        free.reverse()  # a text runs from left to right
    along_time = any(d in TIME for d in dims)
    return (free[0], free[1]) if not along_time or twins(*free) or set(free) == {"layer", "position"} else None
