"""Which variables of a Dataset a view shows, and which travel along to qualify them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.cube import PATTERN_BUDGET, Cube, dataset_of
from tensorscope_nb.views.rules import BASES, base_name, parts_of, plain

if TYPE_CHECKING:
    import xarray as xr

ROLES = {
    "ci_low": "low", "ci_high": "high", "null": "null", "p_value": "p", "q_value": "q", "significant": "significant",
    "converged": "converged", "residual": "residual",
}  # fmt: skip
ASIDES = ("statistic", "effect_size")
# Numbers that name a token: no measure.
TOKENS = ("token", "token_a", "token_b", "token_id", "token_id_a", "token_id_b", "top_token")
# The pictures of samples: [sample, row, column], from 0 (black) to 1; no measure either.
IMAGES = ("pixels", "test_pixels")
# More curves than this could not be told apart.
MOST_CURVES = 6
# Dimensions that a view may slice at the Focus or reduce besides its axes.
SLICED = ("checkpoint", "step", "model", "task", "sample", "replicate")


def is_companion(name: str) -> bool:
    """Whether a variable qualifies another: an interval, a null, a p value.

    >>> [is_companion(n) for n in ("ci_low", "loss_ci_high", "null", "q_value", "copying")]
    [True, True, True, True, False]
    """
    return any(name == role or name.endswith(f"_{role}") for role in (*ROLES, *ASIDES))


def dims_of(ds: xr.Dataset, name: str) -> tuple[str, ...]:
    return tuple(str(d) for d in ds[name].dims)


def opened(source: xr.Dataset | xr.DataArray, variable: str | None) -> tuple[xr.Dataset, str | None]:
    """The Dataset, and the variable that was asked for: a DataArray asks for itself."""
    ds = dataset_of(source)
    if ds is not source and variable is None:
        variable = str(next(iter(ds.data_vars)))
    if variable is not None and variable not in ds.data_vars:
        raise LookupError(f"there is no variable {variable!r}; there are {', '.join(map(str, ds.data_vars)) or 'none'}")
    return ds, variable


def came(ds: xr.Dataset) -> str:
    """The variables with their dimensions, for an error."""
    return ", ".join(f"{name} [{', '.join(dims_of(ds, str(name)))}]" for name in ds.data_vars) or "no variables"


def measures(ds: xr.Dataset, needs: Iterable[str]) -> list[str]:
    """Numeric variables that have these dimensions and are not companions."""
    needs = set(needs)
    return [
        str(name) for name, v in ds.data_vars.items()
        if v.dtype.kind in "iuf" and needs <= {str(d) for d in v.dims} and not is_companion(str(name))
        and not (v.dtype.kind in "iu" and name in TOKENS) and name not in IMAGES
    ]  # fmt: skip


def increasing(ds: xr.Dataset, dim: str) -> bool:
    """Whether a dimension has a coordinate of numbers, each larger than the one before.

    >>> import xarray as xr
    >>> ds = xr.Dataset(coords={"x": [-1.0, 0.0, 1.0], "y": [0.0, 0.0], "module": ["a", "b"]})
    >>> [increasing(ds, d) for d in ("x", "y", "module", "z")]
    [True, False, False, False]
    """
    if dim not in ds.coords or ds[dim].dtype.kind not in "iuf":
        return False
    values = ds[dim].values
    return bool((values[1:] > values[:-1]).all())


def curve_of(ds: xr.Dataset, name: str) -> str | None:
    """The dimension along which a variable is a curve: an increasing number such as a sparsity, and nothing else but slices.

    >>> import numpy as np, xarray as xr
    >>> sparsity = xr.Dataset({"loss": (("layer", "sparsity"), np.ones((2, 3)))}, {"sparsity": [0.0, 0.5, 0.9]})
    >>> curve_of(sparsity, "loss"), curve_of(sparsity.drop_vars("sparsity"), "loss")
    ('sparsity', None)
    """
    free = [d for d in dims_of(ds, name) if d not in (*SLICED, "layer", "kind")]
    if len(free) != 1 or free[0] in BASES or base_name(free[0]):
        return None
    # whole numbers are as often places in a list
    return free[0] if increasing(ds, free[0]) and ds[free[0]].dtype.kind == "f" else None


def family_of(ds: xr.Dataset, name: str) -> tuple[str, str] | None:
    """Of a variable that is several curves with a name each: the number along which they run, and what their names are.

    >>> import numpy as np, xarray as xr
    >>> coords = {"control": ["ticket", "random"], "sparsity": [0.0, 0.5, 0.9]}
    >>> family_of(xr.Dataset({"loss": (("control", "sparsity", "replicate"), np.ones((2, 3, 5)))}, coords), "loss")
    ('sparsity', 'control')
    """
    free = [d for d in dims_of(ds, name) if d not in SLICED]
    if len(free) != 2 or any(d in BASES or base_name(d) or d not in ds.coords for d in free):
        return None
    by = next((d for d in free if ds[d].dtype.kind in "OUST" and ds.sizes[d] <= MOST_CURVES), None)
    along = next((d for d in free if d != by and ds.sizes[d] > 1 and increasing(ds, d) and ds[d].dtype.kind == "f"), None)
    return (along, by) if along and by else None


def runs_along(ds: xr.Dataset, name: str) -> str | None:
    """The number along which a variable is a curve, or a few of them."""
    return curve_of(ds, name) or next(iter(family_of(ds, name) or ()), None)


def by_cell(ds: xr.Dataset) -> list[str]:
    """The variables that say what each cell of a pattern is made of."""
    return [n for n in measures(ds, []) if parts_of(dims_of(ds, n))]


def flags(ds: xr.Dataset, needs: Iterable[str], within: Iterable[str]) -> list[str]:
    """Yes-or-no variables that have the dimensions ``needs`` and none outside ``within``."""
    needs, within = set(needs), set(within)
    return [
        str(n) for n, v in ds.data_vars.items()
        if v.dtype.kind == "b" and needs <= {str(d) for d in v.dims} <= within and not is_companion(str(n))
    ]  # fmt: skip


def companions(ds: xr.Dataset, names: Iterable[str], needs: Iterable[str]) -> dict[str, dict[str, str]]:
    """The interval, the null and the like of each variable: ``{variable: {"low": ..., "high": ..., "null": ...}}``.

    ``x_ci_low`` belongs to ``x``. A plain ``ci_low`` belongs to the first variable of the Dataset that has its dimensions (and no
    others, if there is one; to a mean before all others), and so does one that is called after its dimension, such as
    ``pair_p_value [pair]``.
    """
    needs = set(needs)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        mine: dict[str, str] = {}
        for role, key in ROLES.items():
            after = [
                f"{d}_{role}" for d in dims_of(ds, name) if f"{d}_{role}" in ds.data_vars and dims_of(ds, f"{d}_{role}") == (d,)
            ]
            for candidate in (f"{name}_{role}", role, *after):
                if candidate not in ds.data_vars or not needs <= set(dims_of(ds, candidate)) <= set(dims_of(ds, name)):
                    continue
                if candidate != f"{name}_{role}" and name != _first(ds, candidate):
                    continue
                mine[key] = candidate
                break
        if mine:
            found[name] = mine
    return found


@dataclass(frozen=True)
class Shown:
    """What a view shows: the first variable, those of its drop-down, and what qualifies them."""

    data: xr.Dataset
    variable: str
    variables: list[str]
    companions: dict[str, dict[str, str]]
    marks: list[str]

    def traits(self, source: xr.Dataset | xr.DataArray, *others: str) -> dict[str, Any]:
        """What every view of one kind of variable is made with: its Cube (``others`` travel too) and what is in it."""
        cube = Cube.of(source, travelling(self.variables, self.companions, self.marks, others))
        return {"cube": cube, "variable": self.variable, "variables": self.variables, "companions": self.companions}


def shown(
    kind: str,
    source: xr.Dataset | xr.DataArray,
    variable: str | None,
    needs: Sequence[str],
    within: Iterable[str] = (),
    *,
    only: bool = False,
) -> Shown:
    """The variables of ``source`` that have the dimensions ``needs``; the drop-down has those with none outside ``within``."""
    data, variable = opened(source, variable)
    words = " and ".join(needs) or "any dimension"
    possible = [n for n in measures(data, needs) if dims_of(data, n)]  # a single number is nothing to draw
    every = {*needs, *within}
    if variable is None:
        if not possible:
            raise ValueError(f"{kind} needs a variable with {words}; {came(data)} came")
        variable = next((n for n in possible if set(dims_of(data, n)) <= every), possible[0])
    dims = dims_of(data, variable)
    if not set(needs) <= set(dims) or not dims:
        raise ValueError(f"{kind} needs {words}; {variable} has {', '.join(dims) or 'no dimensions'}")
    if data[variable].dtype.kind not in "biuf":
        raise ValueError(f"{kind} shows numbers; {variable} has values of type {data[variable].dtype}")
    names = [variable] if only else [n for n in possible if set(dims_of(data, n)) <= every]
    if variable not in names:
        names.insert(0, variable)
    return Shown(data, variable, names, companions(data, names, needs), flags(data, needs, every))


def comparison(ds: xr.Dataset, compare: Sequence[Any] | Mapping[str, Sequence[Any]] | None) -> dict[str, Any] | None:
    """Two places along one dimension, as the page wants them: ``(600, 3000)`` or ``{"model": ("a", "b")}``."""
    if compare is None:
        return None
    if isinstance(compare, Mapping):
        if len(compare) != 1:
            raise ValueError(f"compare= takes one dimension with two of its values; {dict(compare)!r} came")
        dim, pair = next(iter(compare.items()))
    else:
        there = [d for d in COMPARED if d in ds.sizes]
        if not there:
            raise ValueError(
                f"compare= takes two values of a {', '.join(COMPARED)}; this Dataset has {', '.join(map(str, ds.sizes))}"
            )
        dim, pair = there[0], compare
    if dim not in ds.sizes:
        raise ValueError(f"compare={compare!r}: {dim} is no dimension; there are {', '.join(map(str, ds.sizes))}")
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"compare= takes two values along {dim}; {pair!r} came")
    values = ds[dim].values.tolist()
    for value in pair:
        if value not in values:
            shown = ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
            raise ValueError(f"compare={pair!r}: {dim} has no {value!r}; it has {shown}")
    first, second = (plain(v) for v in pair)
    return {"dim": dim, "from": first, "to": second, "show": "all"}


COMPARED = ("checkpoint", "model", "step", "task")


def stand_ins(ds: xr.Dataset, instead: Mapping[str, Sequence[str]] | None) -> list[str]:
    """What travels of the variables that may stand in the place of others: those that are light enough for what they add."""
    named = [name for names in (instead or {}).values() for name in names]
    for name in named:
        opened(ds, name)
    return [name for name in named if light(ds, name)]


def light(ds: xr.Dataset, name: str) -> bool:
    """Whether a variable may travel for what it adds to a view."""
    return 4 * ds[name].size <= PATTERN_BUDGET


def pictures_of(ds: xr.Dataset, by: str) -> str | None:
    """The variable that holds a picture of each sample: ``pixels [sample, row, column]``, ``test_pixels`` of test samples.

    >>> import numpy as np, xarray as xr
    >>> pictures_of(xr.Dataset({"pixels": (("sample", "row", "column"), np.zeros((3, 8, 8)))}), "sample")
    'pixels'
    """
    name = by.removesuffix("sample") + "pixels"
    there = name in IMAGES and name in ds.data_vars and dims_of(ds, name) == (by, "row", "column")
    return name if there and ds[name].dtype.kind in "iuf" else None


def _first(ds: xr.Dataset, companion: str) -> str | None:
    dims = dims_of(ds, companion)
    names = measures(ds, dims)
    exact = [n for n in names if set(dims_of(ds, n)) == set(dims)]
    return next((n for n in exact if n.startswith("mean_")), next(iter([*exact, *names]), None))


def travelling(names: Iterable[str], belonging: dict[str, dict[str, str]], *others: Iterable[str]) -> list[str]:
    """All variables that go to the page, each once."""
    every: list[Any] = [*names, *(c for m in belonging.values() for c in m.values()), *(o for group in others for o in group)]
    return list(dict.fromkeys(every))
