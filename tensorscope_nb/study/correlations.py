"""Every pair of variables at the same places of a model: how they go together, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from tensorscope_nb.numerics.correlation import LEAST_N_EFF, ROUNDING, majority_p
from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.study.frame import Column, columns
from tensorscope_nb.study.metadata import metadata
from tensorscope_nb.study.places import Places

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["spearman", "pearson"]
SUPPORTED = (("layer",), ("layer", "head"), ("module",))
MEMBERS = ("checkpoint", "model")
STRUCTURE = ("n_parameters", "n_sharing", "n_neurons")  # what the model is, not what it does


@dataclass(frozen=True)
class Found:
    """One pair in one member of the study."""

    rho: float = np.nan
    partial: float = np.nan
    n: int = 0
    n_eff: float = np.nan
    p: float = np.nan
    why: str = ""  # there is no p value


def correlations(
    results: Mapping[str, xr.Dataset],
    dims: Sequence[str],
    method: Method = "spearman",
    variables: Sequence[str] | None = None,
    trim: int = 0,
) -> pd.DataFrame:
    """See :meth:`tensorscope_nb.Study.correlations`."""
    import pandas as pd

    dims = _dims(dims)
    if method not in ("spearman", "pearson"):
        raise ValueError(f"method is {method!r}: choose 'spearman' or 'pearson'")
    if isinstance(trim, bool) or not isinstance(trim, int | np.integer) or trim < 0:
        raise ValueError(f"trim is {trim!r}: give the number of layers to leave out at either end, 0 or more")
    along, members = _members(results)
    tables = []
    for member in members:
        there = _chosen(columns(member, dims), member, variables)
        index = dict.fromkeys(row for column in there.values() for row in column.values.index)
        places = Places.of(dims, index, member, trim)
        tables.append((places, {name: places.table(column.values) for name, column in there.items()}))
    if dims == ("layer",) and len(places.layers) < 2:
        raise ValueError("there is 1 layer: a correlation over layers takes at least 2, and a p value 8")
    rows: list[dict[str, Any]] = []
    for a, b in combinations(there, 2):
        each = [_found(places, table, a, b, method) for places, table in tables]
        shared = _shared(results, there[a], there[b])
        said, notes = _reported(each, along)
        note = "; ".join(filter(None, [_coupling(shared), *notes]))
        rows.append({"a": a, "b": b, **said, "coupled": None if shared is None else bool(shared), "note": note})
    table = pd.DataFrame(rows).astype({"coupled": "boolean"})
    table["q"] = q_values(table["p"].where(table["coupled"].eq(False).fillna(False).astype(bool)))
    return table[["a", "b", "rho", "rho_detrended", "n", "n_eff", "p", "q", "coupled", "n_members", "n_same_sign", "note"]]


def _dims(dims: Sequence[str]) -> tuple[str, ...]:
    found = next((known for known in SUPPORTED if sorted(known) == sorted(map(str, dims))), None)
    if found is None:
        came = ", ".join(map(repr, dims)) or "no dimensions"
        raise ValueError(f"correlations over {came}: choose 'layer', or 'layer', 'head' (heads in their layer), or 'module'")
    return found


def _members(results: Mapping[str, xr.Dataset]) -> tuple[str | None, list[dict[str, xr.Dataset]]]:
    """The dimension of checkpoints or models, and the results of each that all have reached; without one, the results."""
    along = next((dim for dim in MEMBERS if any(dim in result.dims for result in results.values())), None)
    if along is None:
        return None, [dict(results)]
    reached = [set(result[along].values.tolist()) for result in results.values() if along in result.dims]
    longest = next(result[along].values.tolist() for result in results.values() if along in result.dims)
    common = [value for value in longest if all(value in others for others in reached)]
    if not common:
        raise ValueError(f"the results have no {along} in common: run the recipes on the same ones")
    return along, [
        {name: result.sel({along: value}) if along in result.dims else result for name, result in results.items()}
        for value in common
    ]


def _chosen(there: Mapping[str, Column], results: Mapping[str, xr.Dataset], variables: Sequence[str] | None) -> dict[str, Column]:
    """Those asked for, by their name, that of their column or ``result.variable``; by default all that measure something."""
    from tensorscope_nb.views.fields import is_companion

    if variables is None:
        names = [
            name for name, column in there.items()
            if results[column.result][column.variable].dtype.kind != "b" and column.variable not in STRUCTURE
            and not is_companion(column.variable) and not column.variable.endswith("_by_sample")
            and "sample_a" not in results[column.result][column.variable].dims
        ]  # fmt: skip
    else:
        asked = [variables] if isinstance(variables, str) else list(variables)
        known = {name: {name, column.variable, f"{column.result}.{column.variable}"} for name, column in there.items()}
        if unknown := [name for name in asked if not any(name in other for other in known.values())]:
            raise LookupError(f"variables names {unknown[0]!r}, which is not there: there are {', '.join(there)}")
        names = [name for name in there if known[name] & set(asked)]
    if len(names) < 2:
        raise ValueError(f"a correlation takes two variables, and here are {len(names)} ({', '.join(names) or 'none'}): "
                         f"there are {', '.join(there)}")  # fmt: skip
    return {name: there[name] for name in names}


def _found(places: Places, table: Mapping[str, np.ndarray], a: str, b: str, method: Method) -> Found:
    x, y = (table.get(name, np.full(places.shape, np.nan)) for name in (a, b))
    seen = np.isfinite(x) & np.isfinite(y)
    n = int(seen.sum())
    if n < 2:
        return Found(n=n, why=f"{n} place{'s' * (n != 1)} where both are defined")
    if constant := [name for name, values in ((a, x), (b, y)) if np.ptp(values[seen]) <= ROUNDING * np.abs(values[seen]).max()]:
        return Found(n=n, why=f"{' and '.join(constant)} {'is' if len(constant) == 1 else 'are'} constant")
    result = places.correlate(x, y, method == "spearman")
    rho, partial, n_eff, p = (float(v) for v in (result.rho, result.partial, result.n_eff, result.p))
    why = places.too_few(seen)
    if not why and np.isnan(partial):
        why = "nothing is left of one of them once what is partialled out is gone"
    elif not why and method == "pearson":
        p, why = np.nan, "of values there is no p value, which heavy tails would make too small: see method='spearman'"
    elif not why and n_eff < LEAST_N_EFF:
        why = f"n_eff {n_eff:.1f}: too few independent places for a p value"
    return Found(rho, partial, n, n_eff, p, why)


def _reported(each: Sequence[Found], along: str | None) -> tuple[dict[str, Any], list[str]]:
    """The numbers of the last checkpoint, or the medians over models, with the members that have their sign; and the notes."""
    last = each[-1]
    numbers: dict[str, Any] = {
        "rho": last.rho, "rho_detrended": last.partial, "n": last.n, "n_eff": last.n_eff, "p": last.p
    }  # fmt: skip
    notes = [last.why]
    if along == "model":
        numbers = {
            "rho": _median([f.rho for f in each]),
            "rho_detrended": _median([f.partial for f in each]),
            "n": int(np.median([f.n for f in each])),
            "n_eff": _median([f.n_eff for f in each]),
            "p": majority_p(np.array([f.p for f in each])),
        }
        notes = [*dict.fromkeys(f.why for f in each), f"medians over {len(each)} models, p of more than half of them"]
        if np.isnan(numbers["p"]):
            notes[-1] = f"medians over {len(each)} models"
    elif along == "checkpoint":
        notes.append("the last checkpoint; checkpoints of one run are not independent replicates: seeds are")
    detrended = np.isfinite(numbers["rho_detrended"])
    signs = _sign([f.partial if detrended else f.rho for f in each])
    reported = _sign(numbers["rho_detrended"] if detrended else numbers["rho"])
    if along is not None and (undefined := int(np.isnan(signs).sum())):
        notes.append(f"undefined in {undefined} of {len(each)} {along}s")
    return numbers | {"n_members": len(each), "n_same_sign": int((signs == reported).sum()) if reported else 0}, notes


def _sign(r: Any) -> np.ndarray:
    return np.sign(np.round(r, 9))  # rounding has none


def _median(values: Sequence[float]) -> float:
    there = [value for value in values if np.isfinite(value)]
    return float(np.median(there)) if there else float("nan")


def _shared(results: Mapping[str, xr.Dataset], a: Column, b: Column) -> str | None:
    """What couples two variables by construction; empty where nothing does, None where a result does not say what it reads."""
    if a.result == b.result:
        return f"of one result, {a.result}"
    needs_a, needs_b = (metadata(results[column.result]).get("needs") for column in (a, b))
    if needs_a is None or needs_b is None:
        return None
    common = [need for need in needs_a if need in needs_b]
    return f"share {' and '.join(common)}" if common else ""


def _coupling(shared: str | None) -> str:
    if shared is None:
        return "not in q: a result does not say what its recipe reads, run it again"
    return shared and f"{shared}: not in q"
