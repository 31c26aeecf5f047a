"""The linked views of a Study: what its results are, side by side, under one Focus."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tensorscope_nb.views.attention_pattern import AttentionPattern
from tensorscope_nb.views.base import Composition, View
from tensorscope_nb.views.fields import measures
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.head_grid import HeadGrid
from tensorscope_nb.views.sample_table import SampleTable, joined
from tensorscope_nb.views.timeline import Timeline
from tensorscope_nb.views.token_strip import TokenStrip

TIME = ("checkpoint", "step")
WIDE = (Timeline, SampleTable)
# From the coarse to the fine.
ORDER = (HeadGrid, AttentionPattern, TokenStrip)


def is_study(source: Any) -> bool:
    """Whether it is a collection of results by name."""
    return (
        not hasattr(source, "dims") and hasattr(source, "__iter__") and hasattr(source, "__getitem__") and hasattr(source, "run")
    )


def dashboard(study: Any, *, reduce: str = "mean", focus: Focus | None = None) -> View:
    """A view of each result, what develops over training below, and the samples at the end."""
    from tensorscope_nb.views.dispatch import view

    names = list(study)
    if not names:
        raise ValueError("this Study holds no results yet: run a recipe, study.run(ts.recipes.induction_heads)")
    focus = focus or Focus()
    beside: list[View] = []
    below: list[View] = []
    for name in names:
        ds = study[name]
        try:
            made = view(ds, focus=focus, reduce=reduce)
        except ValueError:
            continue  # scalars only: the report has them
        (below if isinstance(made, WIDE) else beside).append(made)
        time = next((d for d in TIME if measures(ds, [d])), None)
        if time and not isinstance(made, Timeline):
            below.append(Timeline(ds, x=time, reduce=reduce, focus=focus))
    below = [v for v in below if not isinstance(v, SampleTable)]
    beside.sort(key=lambda v: next((i for i, kind in enumerate(ORDER) if isinstance(v, kind)), len(ORDER)))
    if any("sample" in study[name].sizes for name in names):
        with suppress(ValueError):  # only patterns, or the like, are by sample
            below.append(SampleTable(joined(study), reduce=reduce, focus=focus))
    rows: list[View] = [*([Composition("beside", beside)] if len(beside) > 1 else beside), *below]
    if not rows:
        raise ValueError(
            f"no view fits the results of this Study ({', '.join(names)}): they are single numbers; read study[name]"
        )
    return rows[0] if len(rows) == 1 else Composition("below", rows)
