"""Which variables of a Dataset a view shows, and which travel along to qualify them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.cube import dataset_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

ROLES = {"ci_low": "low", "ci_high": "high", "null": "null"}
ASIDES = ("p_value", "q_value", "statistic", "effect_size")


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
    ]  # fmt: skip


def flags(ds: xr.Dataset, needs: Iterable[str], within: Iterable[str]) -> list[str]:
    """Yes-or-no variables that have the dimensions ``needs`` and none outside ``within``."""
    needs, within = set(needs), set(within)
    return [str(n) for n, v in ds.data_vars.items() if v.dtype.kind == "b" and needs <= {str(d) for d in v.dims} <= within]


def companions(ds: xr.Dataset, names: Iterable[str], needs: Iterable[str]) -> dict[str, dict[str, str]]:
    """The interval and the null of each variable: ``{variable: {"low": ..., "high": ..., "null": ...}}``.

    ``x_ci_low`` belongs to ``x``. A plain ``ci_low`` belongs to the first variable of the Dataset that has its dimensions.
    """
    needs = set(needs)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        mine: dict[str, str] = {}
        for role, key in ROLES.items():
            for candidate in (f"{name}_{role}", role):
                if candidate not in ds.data_vars or not needs <= set(dims_of(ds, candidate)) <= set(dims_of(ds, name)):
                    continue
                if candidate == role and name != _first(ds, candidate):
                    continue
                mine[key] = candidate
                break
        if mine:
            found[name] = mine
    return found


def _first(ds: xr.Dataset, companion: str) -> str | None:
    return next(iter(measures(ds, dims_of(ds, companion))), None)


def travelling(names: Iterable[str], belonging: dict[str, dict[str, str]], *others: Iterable[str]) -> list[str]:
    """All variables that go to the page, each once."""
    every: list[Any] = [*names, *(c for m in belonging.values() for c in m.values()), *(o for group in others for o in group)]
    return list(dict.fromkeys(every))
