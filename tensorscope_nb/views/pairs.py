"""What a result says of pairs of samples: a matrix of them, a table of those that were looked at, and both texts of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views import influence
from tensorscope_nb.views.base import Composition, View
from tensorscope_nb.views.fields import dims_of, is_companion, measures
from tensorscope_nb.views.focus import Focus
from tensorscope_nb.views.matrix import Matrix
from tensorscope_nb.views.sample_table import SampleTable
from tensorscope_nb.views.timeline import Timeline
from tensorscope_nb.views.token_strip import SIDES, TokenStrip, along_of

if TYPE_CHECKING:
    import xarray as xr

PAIR = "pair"


SIDES_OF = (("sample_a", "sample_b"), (influence.TRAIN, influence.TEST))


def sides(ds: xr.Dataset) -> tuple[str, str] | None:
    """The two dimensions of the samples of a pair, such as ``("sample_a", "sample_b")``; None where there are none."""
    return next((two for two in SIDES_OF if set(two) <= set(ds.sizes)), None)


def details(ds: xr.Dataset, first: View, *, reduce: str | None, focus: Focus) -> list[View]:
    """What stands beside the view of a result that also tells of single pairs, from the coarse to the fine.

    A variable such as ``pair_dot [module, sample_a, sample_b]`` is a Matrix that follows ``module``; a dimension ``pair`` is a
    table, and two strips of tokens. What is too large for the page is left out.
    """
    two = sides(ds)
    common: dict[str, Any] = {"reduce": reduce, "focus": focus}
    made: list[Callable[[], View]] = []
    name = next(iter(measures(ds, two)), None) if two else None
    if name is not None and two is not None and not of_pairs(first):
        made += [lambda n=n: _view(ds, n, common) for n in _leading(ds, name, two, first)]  # type: ignore[misc]
        made.append(lambda: Matrix(ds, name, y=two[0], x=two[1], **common))
    if PAIR in ds.sizes and not isinstance(first, (SampleTable, TokenStrip)):
        columns = [str(n) for n, v in ds.data_vars.items() if dims_of(ds, str(n)) == (PAIR,) and v.dtype.kind in "iufOUST"]
        made += [lambda: SampleTable(ds, columns, by=PAIR, **common)] if columns else []
        made += [lambda n=n: TokenStrip(ds, n, **common) for n in texts(ds)]  # type: ignore[misc]
    if two and influence.of_influence(two) and of_pairs(first):
        made += influence.details(ds, common)
    found: list[View] = []
    for make in made:
        with suppress(ValueError):
            found.append(make())
    return found


def texts(ds: xr.Dataset) -> list[str]:
    """The first variable by token for each text of a pair: ``["contribution_a", "contribution_b"]``."""
    by_token = [n for n in measures(ds, [PAIR]) if along_of(ds, n) in dims_of(ds, n) and not is_companion(n)]
    return [n for side in SIDES for n in [v for v in by_token if v.endswith(side)][:1]]


def of_pairs(view: View) -> bool:
    """Whether it is a Matrix of samples by samples."""
    return isinstance(view, Matrix) and (view.options["y"], view.options["x"]) in SIDES_OF


def groups(views: list[View]) -> list[list[View]]:
    """The views of each result that tells of pairs, but for what develops over training; those with texts come last."""
    of = {id(v.cube) for v in views if of_pairs(v)}
    found = [
        [v for v in views if id(v.cube) == cube and not isinstance(v, Timeline)]
        for cube in dict.fromkeys(id(v.cube) for v in views)
    ]
    several = [group for group in found if len(group) > 1 and id(group[0].cube) in of]
    return sorted(several, key=lambda group: any(isinstance(v, TokenStrip) for v in group))


def rows(group: list[View]) -> list[View]:
    """What belongs together in one row, the texts in the next, and a ranking of samples at the end."""
    strips = [v for v in group if isinstance(v, TokenStrip)]
    tables = [v for v in group if isinstance(v, SampleTable) and v.options["by"] in (influence.TRAIN, influence.TEST)]
    others = [v for v in group if v not in strips and v not in tables]
    # texts need the whole width, pictures do not
    below = [tables] if all("pictures" in v.options for v in tables) else [[v] for v in tables]
    return [Composition("beside", row) if len(row) > 1 else row[0] for row in (others, strips, *below) if row]


def together(group: list[View]) -> View:
    """One view of a result that has several."""
    made = rows(group)
    return Composition("below", made) if len(made) > 1 else made[0]


def _leading(ds: xr.Dataset, name: str, two: tuple[str, str], first: View) -> list[str]:
    """The variable by the dimensions at which the matrix is sliced, where the first view does not have them."""
    rest = [d for d in dims_of(ds, name) if d not in two]
    if set(rest) <= set(dims_of(ds, first.variable)) if first.variable in ds else not rest:
        return []
    return [n for n in measures(ds, rest) if set(dims_of(ds, n)) == set(rest)][:1]


def _view(ds: xr.Dataset, name: str, common: dict[str, Any]) -> View:
    from tensorscope_nb.views.dispatch import view

    return view(ds, name, **common)
