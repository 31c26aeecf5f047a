"""The linked views of a Study: what its results are, side by side, under one Focus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.attention_pattern import AttentionPattern
from tensorscope_nb.views.base import Composition, View
from tensorscope_nb.views.fields import measures
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.head_grid import HeadGrid
from tensorscope_nb.views.landscape import Landscape
from tensorscope_nb.views.pairs import groups
from tensorscope_nb.views.pairs import rows as rows_of
from tensorscope_nb.views.sample_table import SampleTable, joined
from tensorscope_nb.views.timeline import Timeline
from tensorscope_nb.views.token_strip import TokenStrip

if TYPE_CHECKING:
    import xarray as xr

TIME = ("checkpoint", "step")
WIDE = (Timeline, SampleTable)
# From the coarse to the fine.
ORDER = (HeadGrid, AttentionPattern, TokenStrip)


def is_study(source: Any) -> bool:
    """Whether it is a collection of results by name."""
    return (
        not hasattr(source, "dims") and hasattr(source, "__iter__") and hasattr(source, "__getitem__") and hasattr(source, "run")
    )


def dashboard(study: Any, *, reduce: str | None = None, focus: Focus | None = None) -> View:
    """A view of each result, what develops over training below, and the samples at the end.

    ``study`` is whatever has results by name: a Study, or a dict of Datasets.

    >>> import numpy as np, xarray as xr
    >>> dashboard({"a": xr.Dataset({"score": (("layer", "head"), np.eye(2, 4))})})
    HeadGrid(score)
    """
    results = {name: study[name] for name in study}
    if not results:
        raise ValueError("this Study holds no results yet: run a recipe, study.run(ts.recipes.induction_heads)")
    focus = Focus() if focus is None else focus
    views = [part for ds in results.values() for part in pieces(ds, reduce=reduce, focus=focus)]
    samples = by_sample(results)
    made = arranged([*views, *(table(samples, reduce=reduce, focus=focus) if samples is not None else [])])
    if made is None:
        raise ValueError(
            f"no view fits the results of this Study ({', '.join(results)}): they are single numbers; read study[name]"
        )
    return made


def pieces(ds: xr.Dataset, *, reduce: str | None = None, focus: Focus) -> list[View]:
    """The views of one result: those that fit, and how it develops over training. What is by sample is in the table."""
    from tensorscope_nb.views.dispatch import kind_of, view

    kind = kind_of(ds)
    time = next((d for d in TIME if measures(ds, [d])), None)
    found: list[View] = []
    with suppress(ValueError):  # scalars only, or too large for the page: the report has them
        if kind is not SampleTable or "sample" not in ds.sizes:
            found.extend(_parts(view(ds, reduce=reduce, focus=focus)))
        # each point of a surface would be a line
        if time and kind not in (Timeline, Landscape):
            found.append(Timeline(ds, x=time, reduce=reduce, focus=focus))
    return found


def _parts(view: View) -> list[View]:
    """The single views of a composition, which itself is closed: they will stand in another."""
    if not isinstance(view, Composition):
        return [view]
    found = [part for child in view.children for part in _parts(child)]
    view.close()
    return found


def by_sample(results: Mapping[str, xr.Dataset]) -> xr.Dataset | None:
    """What the results say of single samples, in one Dataset; None where they say nothing, or only patterns and the like."""
    try:
        return joined(results)
    except ValueError:
        return None


def table(samples: xr.Dataset, *, reduce: str | None = None, focus: Focus) -> list[View]:
    """The table of the samples, where one fits."""
    with suppress(ValueError):
        return [SampleTable(samples, reduce=reduce, focus=focus)]
    return []


def arranged(views: Iterable[View]) -> View | None:
    """Views beside each other, below them those of pairs of samples, result by result, then the wide ones; None where there
    are none."""
    views = list(views)
    together = groups(views)
    grouped = {id(v) for group in together for v in group}
    views = [v for v in views if id(v) not in grouped]
    beside = [v for v in views if not isinstance(v, WIDE)]
    beside.sort(key=lambda v: next((i for i, kind in enumerate(ORDER) if isinstance(v, kind)), len(ORDER)))
    below = [v for v in views if isinstance(v, WIDE)]
    paired = [row for group in together for row in rows_of(group)]
    rows: list[View] = [*([Composition("beside", beside)] if len(beside) > 1 else beside), *paired, *below]
    return Composition("below", rows) if len(rows) > 1 else next(iter(rows), None)
