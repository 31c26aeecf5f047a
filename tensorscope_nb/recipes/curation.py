"""What to make of a ``sample_conflicts``: a table of pairs, what to remove and why, and which tokens conflict."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorscope_nb.numerics.cover import vertex_cover
from tensorscope_nb.recipes.dataset import dataset

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Keep = Literal["lower_loss", "higher_loss", "most"]


def conflict_pairs(ds: xr.Dataset, *, significant: bool = False) -> pd.DataFrame:
    """One row per pair of a ``sample_conflicts``, the most opposed first; ``significant`` keeps those alone.

    Columns: sample_a, sample_b (ids), sample_a_idx, sample_b_idx (numbers in a + b, or in the samples of the Study: one
    numbering for both), task_a, task_b, cosine, dot, p_value, q_value, effect_size, fdr_significant, layer (that of the lowest
    dot), token_id, token_b_id (the input token of a, of b, that lowers the dot most; −1 where not looked at), sample_a_loss,
    sample_b_loss. Of one set against itself each pair stands once.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose, code = ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8)
    >>> pairs = ts.recipes.conflict_pairs(ts.recipes.sample_conflicts(scope, prose, code))
    >>> len(pairs), bool(pairs["cosine"].iloc[0] < 0)
    (64, True)
    """
    import pandas as pd

    ds = _one_pair(ds)
    index_a, index_b = ds["index_a"].values, ds["index_b"].values
    once = np.ones((len(index_a), len(index_b)), dtype=bool)
    if np.array_equal(ds["sample_a"].values, ds["sample_b"].values):
        once = np.triu(once, 1)
    if significant:
        once &= ds["significant"].values == 1
    i, j = np.nonzero(once)
    order = np.lexsort((ds["cosine"].values[i, j], ds["p_value"].values[i, j]))
    i, j = i[order], j[order]

    def at(name: str) -> Any:
        return ds[name].values[i, j]

    def numbers(name: str) -> Any:
        return ds[name].fillna(-1).values[i, j].astype(int) if name in ds else np.full(len(i), -1)

    columns = {
        "sample_a": ds["sample_a"].values[i], "sample_b": ds["sample_b"].values[j], "sample_a_idx": index_a[i],
        "sample_b_idx": index_b[j], "task_a": ds["task_a"].values[i], "task_b": ds["task_b"].values[j], "cosine": at("cosine"),
        "dot": at("dot"), "p_value": at("p_value"), "q_value": at("q_value"), "effect_size": at("effect_size"),
        "fdr_significant": at("significant") == 1, "layer": numbers("conflict_layer"), "token_id": numbers("token_a"),
        "token_b_id": numbers("token_b"), "sample_a_loss": ds["loss_a"].values[i], "sample_b_loss": ds["loss_b"].values[j],
    }  # fmt: skip
    return pd.DataFrame(columns)


def curate(ds: xr.Dataset, keep: Keep = "lower_loss", *, alpha: float = 0.01, min_effect_size: float = 3.0) -> pd.DataFrame:
    """Which samples to remove so that no conflict is left, and why: a plan, nothing is removed.

    First go samples that oppose the other task's mean gradient (``task_q_value`` ≤ ``alpha``), as some do of any two unrelated
    tasks. Then, of the pairs that are left (significant, effect size at least ``min_effect_size``), one of each: a vertex cover
    of small weight by the local-ratio rule (at most twice the least; Bar-Yehuda and Even 1985), which removes fewer than going
    through the pairs one by one.
    ``keep="lower_loss"`` prefers to remove high losses, ``"higher_loss"`` low ones, ``"most"`` as few samples as it can.
    Which pairs are significant was decided by the ``alpha`` of ``sample_conflicts``; the one here is for samples.
    Where more than half of a task conflicts with the other, the tasks conflict and not some samples: a warning says so, and
    that ground is not used.

    Result, one row per sample to remove: sample (id), idx (its number in a + b, or in the Study's samples), task, loss, reason,
    q_value, n_pairs (conflicts that go with it). The selection looks at the samples it judges: measure its effect on others,
    against removing as many at random (``ts.recipes.removal_effect``).

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose, code = ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8)
    >>> list(ts.recipes.curate(ts.recipes.sample_conflicts(scope, prose, code)).columns[:4])
    ['sample', 'idx', 'task', 'loss']
    """
    import pandas as pd

    ds = _one_pair(ds)
    if keep not in ("lower_loss", "higher_loss", "most"):
        raise ValueError(f"keep is {keep!r}: choose 'lower_loss', 'higher_loss' or 'most'")
    known: dict[int, dict[str, Any]] = {}  # by number
    removed: dict[int, dict[str, Any]] = {}
    for side, other in (("a", "b"), ("b", "a")):
        q, mean = ds[f"task_q_value_{side}"].values, ds[f"mean_cosine_{side}"].values
        against = (q <= alpha) & (mean < 0)
        whole = against.mean() > 0.5
        own, task = (str(ds[f"task_{each}"].values[0]) for each in (side, other))
        if whole:
            warnings.warn(
                f"{against.sum()} of {len(against)} samples of {own!r} conflict with {task!r}: the tasks conflict, not some "
                "samples; only single pairs are looked at",
                stacklevel=2,
            )
        for at, idx in enumerate(ds[f"index_{side}"].values):
            known[int(idx)] = {
                "sample": str(ds[f"sample_{side}"].values[at]), "idx": int(idx), "task": str(ds[f"task_{side}"].values[at]),
                "loss": float(ds[f"loss_{side}"].values[at]),
            }  # fmt: skip
            if against[at] and not whole:
                reason = f"its mean cosine with {task!r} is {mean[at]:.2f}"
                removed[int(idx)] = {"reason": reason, "q_value": float(q[at])}
    pairs = conflict_pairs(ds, significant=True)
    pairs = pairs[pairs["effect_size"] >= min_effect_size]
    edges = list(zip(pairs["sample_a_idx"].tolist(), pairs["sample_b_idx"].tolist(), strict=True))
    of_pair = dict(zip(edges, zip(pairs["q_value"], pairs["cosine"], strict=True), strict=True))
    cover = vertex_cover([edge for edge in edges if not set(edge) & set(removed)], _costs(known, keep))
    for idx in cover:
        mine = {edge: of_pair[edge] for edge in edges if idx in edge}
        worst = min(mine, key=lambda edge: mine[edge][1])
        other_sample = known[worst[0] if worst[1] == idx else worst[1]]["sample"]
        removed[idx] = {"reason": f"its cosine with {other_sample!r} is {mine[worst][1]:.2f}", "q_value": float(mine[worst][0])}
    counts = {idx: sum(idx in edge for edge in edges) for idx in removed}
    rows = [known[idx] | removed[idx] | {"n_pairs": counts[idx]} for idx in sorted(removed)]
    return pd.DataFrame(rows, columns=["sample", "idx", "task", "loss", "reason", "q_value", "n_pairs"])


def _costs(known: dict[int, dict[str, Any]], keep: Keep) -> dict[int, float]:
    """What removing a sample costs: positive, and less the rather it is to go."""
    if keep == "most":
        return dict.fromkeys(known, 1.0)
    order = sorted(known, key=lambda idx: known[idx]["loss"], reverse=keep == "lower_loss")
    return {idx: 1.0 + rank for rank, idx in enumerate(order)}


def conflict_tokens(ds: xr.Dataset) -> xr.Dataset:
    """Which tokens make the conflicts: ``[token_id] rate, expected, n``.

    rate is the share, among the sides of the pairs that were looked at, in which a token is the one that lowers the inner
    product most; expected is its share of the positions of those texts, which is what a token picked at random would have. A
    first token that was told apart takes no part, nor a side that has no other.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> prose, code = ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8)
    >>> tokens = ts.recipes.conflict_tokens(ts.recipes.sample_conflicts(scope, prose, code))
    >>> round(float(tokens["rate"].sum()), 6), round(float(tokens["expected"].sum()), 6)
    (1.0, 1.0)
    """
    ds = _one_pair(ds)
    none = "no pair was looked at token by token: make it with tokens= above 0, of samples that have tokens"
    if "pair" not in ds.sizes:
        raise LookupError(none)
    ids = np.concatenate([ds["token_id_a"].values, ds["token_id_b"].values])
    added = np.concatenate([ds["contribution_a"].values, ds["contribution_b"].values])
    ids = np.where(np.isfinite(added), ids, -1).astype(int)
    told = (ids >= 0).any(1)
    if not told.any():
        raise LookupError(none)
    ids, added = ids[told], added[told]
    lowest = ids[np.arange(len(ids)), np.where(ids >= 0, added, np.inf).argmin(1)]
    texts = np.concatenate([ds["token_text_a"].values, ds["token_text_b"].values])[told]
    tokens = np.unique(ids[ids >= 0])
    words = dict(zip(ids.ravel(), texts.ravel(), strict=True))
    n = np.array([(lowest == token).sum() for token in tokens])
    expected = np.mean([[(row == token).sum() / (row >= 0).sum() for token in tokens] for row in ids], 0)
    variables = {
        "rate": (("token_id",), n / len(ids), "share of the conflicts that the token makes", ""),
        "expected": (("token_id",), expected, "share of the texts that the token is", ""),
        "n": (("token_id",), n, "conflicts that the token makes", "conflicts"),
    }
    coords = {"token_id": tokens, "token": ("token_id", np.array([words[token] for token in tokens], dtype=object))}
    return dataset(variables, coords, n_conflicts=len(ids))


def _one_pair(ds: xr.Dataset) -> xr.Dataset:
    """The conflicts of one pair of tasks; of one that was chosen among several, its own samples and pairs alone."""
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"this takes the Dataset of a sample_conflicts, and a {type(ds).__name__} came")
    if "effect_size" not in ds or "task_q_value_a" not in ds:
        raise LookupError(f"there is no effect_size among {', '.join(map(str, ds.data_vars))}: give a sample_conflicts")
    if several := [dim for dim in ds["dot"].dims if dim not in ("sample_a", "sample_b")]:
        raise ValueError(f"there is more than one of {several[0]} here: choose one, such as ds.isel({several[0]}=0)")
    there = ds["dot"].notnull()
    ds = ds.isel(sample_a=there.any("sample_b").values, sample_b=there.any("sample_a").values)
    return ds.isel(pair=ds["pair_tasks"].values == ds["tasks"].item()) if "pair_tasks" in ds.coords else ds
