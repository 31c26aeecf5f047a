"""The pairs of heads that stand out of a ``qk_ov_pairing``."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorscope_nb.recipes.dataset import Variable, dataset

if TYPE_CHECKING:
    from tensorscope_nb.numerics.composed import Array

ALPHA = 0.05
KEPT = ("composition", "null", "composition_z", "composition_q_value", "expected", "excess", "excess_z", "excess_q_value")
PREVIOUS = 0.2  # least attention to the previous token; our choice, like that of induction_heads


def circuits(ds: xr.Dataset, n: int | None = None, *, alpha: float = ALPHA, heads: xr.Dataset | None = None) -> xr.Dataset:
    """The pairs of a ``qk_ov_pairing`` whose composition stands out, the furthest first: a table, ``.to_dataframe()``.

    The rule: ``composition_q_value`` ≤ alpha (above chance) and ``excess_q_value`` ≤ alpha (above what the two heads do with
    others); where there are too few heads for the second, chance alone. In random weights the first holds for any pair at all
    in a share alpha of models at most. The second is a screen: with normal noise around the effects of heads it alone holds for
    any pair in .01 to .06 of simulated models at .05, but with the tails of a Student law of 5 degrees of freedom in .05 (2
    layers of 3 heads) to all of them (6 layers of 12 heads and more). In a large trained model some of what is named is no
    circuit: look for the same pair in another seed or a later checkpoint, and at ``ablation``.

    Result on ``[circuit]``, named as in ``"K 0.0 → 1.2"``, with coordinates ``circuit_kind, circuit_source, circuit_target``: the
    variables of the pair. With ``heads``, the result of ``induction_heads`` of the same model: ``source_previous_token``,
    ``target_prefix_matching``, and ``is_induction_circuit``: a K-composition of a head whose attention to the previous token is
    at least .2 by its lower confidence limit with one that ``is_induction``. ``n`` keeps the first ones.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> found = ts.recipes.circuits(ts.recipes.qk_ov_pairing(scope), heads=ts.recipes.induction_heads(scope))
    >>> found["circuit"].values[0], bool(found["is_induction_circuit"][0])
    ('K 0.0 → 1.1', True)
    """
    _check(ds, n, alpha)
    tables = {name: ds[name].transpose("kind", "source", "target").values for name in KEPT}
    by_chance, by_others = tables["composition_q_value"], tables["excess_q_value"]
    compared = np.isfinite(by_others)
    stand_out = (by_chance <= alpha) & (~compared | (by_others <= alpha))
    score = np.where(compared, tables["excess_z"], tables["composition_z"])
    at = np.argwhere(stand_out)
    at = at[np.argsort(-score[stand_out], kind="stable")][:n]
    kind, source, target = (ds[dim].values[i] for dim, i in zip(("kind", "source", "target"), at.T, strict=True))
    words = {name: (ds[name].attrs["long_name"], ds[name].attrs["units"]) for name in KEPT}
    variables: dict[str, Variable] = {name: (("circuit",), tables[name][tuple(at.T)], *words[name]) for name in KEPT}
    if heads is not None:
        variables |= _induction(heads, kind, source, target)
    names = [f"{k} {s} → {t}" for k, s, t in zip(kind, source, target, strict=True)]
    coords: dict[str, Any] = {"circuit": np.array(names, dtype=object)}
    for name, values in (("kind", kind), ("source", source), ("target", target)):
        coords[f"circuit_{name}"] = ("circuit", np.array(values, dtype=object))
    return dataset(variables, coords, alpha=alpha, n_pairs=int(np.isfinite(tables["composition"]).sum()))


def _check(ds: xr.Dataset, n: int | None, alpha: float) -> None:
    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"circuits takes the Dataset of a qk_ov_pairing, and a {type(ds).__name__} came")
    if missing := [name for name in KEPT if name not in ds]:
        raise LookupError(f"there is no {missing[0]} among {', '.join(map(str, ds.data_vars))}: give a qk_ov_pairing")
    if several := [str(dim) for dim in ds["composition"].dims if dim not in ("kind", "source", "target")]:
        raise ValueError(f"there is more than one of {several[0]} here: choose one, such as ds.isel({several[0]}=0)")
    if missing := [dim for dim in ("kind", "source", "target") if dim not in ds["composition"].dims]:
        raise ValueError(f"{missing[0]} is no dimension here any more: choose with a list, such as ds.sel(kind=['K'])")
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral) or n < 1):
        raise ValueError(f"n is {n!r}: ask for at least 1 circuit")
    if not isinstance(alpha, Real) or not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha!r}: give a rate between 0 and 1")


def _induction(heads: xr.Dataset, kind: Array, source: Array, target: Array) -> dict[str, Variable]:
    if not isinstance(heads, xr.Dataset):
        raise TypeError(f"heads is a {type(heads).__name__}: give the result of induction_heads")
    wanted = ("previous_token", "previous_token_ci_low", "prefix_matching", "is_induction")
    if missing := [name for name in wanted if name not in heads]:
        raise LookupError(f"heads has no {missing[0]}: give the result of induction_heads")

    def of(name: str, places: Array) -> Any:
        layer, head = np.array([str(place).split(".") for place in places]).reshape(-1, 2).astype(int).T
        if set(layer) - set(heads["layer"].values) or set(head) - set(heads["head"].values):
            raise LookupError("heads lacks some head of these pairs: give the induction_heads of the same model")
        dims = {"layer": xr.DataArray(layer, dims="circuit"), "head": xr.DataArray(head, dims="circuit")}
        return heads[name].sel(dims).values

    by_name = (kind == "K") & of("is_induction", target) & (of("previous_token_ci_low", source) >= PREVIOUS)
    share = "share of attention"
    return {
        "source_previous_token": (
            ("circuit",),
            of("previous_token", source),
            "source looks one back",
            share,
        ),
        "target_prefix_matching": (("circuit",), of("prefix_matching", target), "target matches prefixes", share),
        "is_induction_circuit": (("circuit",), by_name, "previous-token head read by an induction head", ""),
    }
