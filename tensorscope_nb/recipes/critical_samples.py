"""The training samples that matter most for a test sample, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

By = Literal["influence", "relative"]


def critical_samples(
    ds: xr.Dataset,
    n: int = 10,
    *,
    test_sample: str | int | None = None,
    test_position: int | None = None,
    mean: bool = False,
    by: By = "influence",
) -> pd.DataFrame:
    """The n proponents and the n opponents of each test sample in a ``tracin``, the strongest first.

    ``test_sample`` (an id or a number) asks for one, and with ``test_position`` for the token that is predicted there (of a
    ``tracin`` with ``test_unit="token"``); ``mean`` for the mean over all test samples. ``by="relative"`` ranks by
    influence / √self-influence (Barshan et al. 2020, arXiv:2003.11630), so that samples with large gradients do not lead every
    list. A proponent has an influence above 0, an opponent one below: where there are fewer than n there are fewer rows.

    Columns: test_sample, kind, rank, sample (id), index (number among the training samples), influence, relative,
    self_influence, contributions (``{training step: influence there}``, which sum to influence), task, text; with ``mean``
    also ci_low and ci_high, over the test samples.

    >>> import tensorscope_nb as ts
    >>> history = ts.checkpoints("tiny")
    >>> train, test = (ts.datasets.code(history[0], n=6, length=32, split=split) for split in ("train", "test"))
    >>> found = ts.recipes.tracin(history, train, test)
    >>> table = ts.recipes.critical_samples(found, n=2, test_sample=0)
    >>> table["kind"].tolist()[:2], table["rank"].tolist()[:2]
    (['proponent', 'proponent'], [1, 2])
    """
    import pandas as pd
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"critical_samples takes the Dataset of a tracin, and a {type(ds).__name__} came")
    if lacks := {"influence", "contribution", "self_influence"} - set(ds.data_vars):
        raise LookupError(f"there is no {sorted(lacks)[0]} among {', '.join(map(str, ds.data_vars))}: give a tracin")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n is {n!r}: ask for at least 1 sample")
    if by not in ("influence", "relative"):
        raise ValueError(f"by is {by!r}: choose 'influence' or 'relative'")
    if mean and test_sample is not None:
        raise ValueError(f"mean is over all test samples, and test_sample is {test_sample!r}: ask for one of the two")
    if test_position is not None:
        ds = _at_token(ds, test_sample, test_position)
    rows: list[dict[str, Any]] = []
    own, steps = ds["self_influence"].values, ds["checkpoint"].values.tolist()
    ids, tasks, texts = (ds[name].values.tolist() for name in ("sample", "task", "text"))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(own > 0, np.sqrt(own), np.nan)
    for name, found in _asked(ds, test_sample, mean):
        influence, contribution = found["influence"].values, found["contribution"].transpose("sample", "checkpoint").values
        ends = {end: found[end].values for end in ("ci_low", "ci_high") if mean}
        if len(bad := np.flatnonzero(~np.isfinite(influence))):
            sample = str(ids[bad[0]])
            raise ValueError(f"the influence of {sample!r} is no finite number (test_sample {name!r}): leave one of the two out")
        relative = influence / scale
        score = influence if by == "influence" else np.nan_to_num(relative)  # without a gradient: neither
        for kind, signed in (("proponent", score), ("opponent", -score)):
            order = np.argsort(-signed, kind="stable")
            for rank, i in enumerate(order[signed[order] > 0][:n], start=1):
                row = {"test_sample": name, "kind": kind, "rank": rank, "sample": str(ids[i]), "index": int(i)}
                row |= {"influence": float(influence[i]), "relative": float(relative[i]), "self_influence": float(own[i])}
                row["contributions"] = dict(zip(steps, contribution[i].tolist(), strict=True))
                rows.append(row | {"task": tasks[i], "text": texts[i]} | {end: float(v[i]) for end, v in ends.items()})
    columns = ["test_sample", "kind", "rank", "sample", "index", "influence", "relative", "self_influence", "contributions"]
    return pd.DataFrame(rows, columns=[*columns, "task", "text", *(["ci_low", "ci_high"] if mean else [])])


def _at_token(ds: xr.Dataset, test_sample: str | int | None, position: int) -> xr.Dataset:
    """The influence on one token in the place of that on its sample."""
    if test_sample is None:
        raise ValueError(f"test_position is {position}: say of which test_sample")
    if "token_influence" not in ds:
        raise LookupError('test_position asks for a token: run tracin with test_unit="token"')
    if position not in ds["test_position"].values:
        raise LookupError(f"there is no test_position {position}: there are 0 to {ds.sizes['test_position'] - 1}")
    ((_, one),) = _asked(ds.assign(influence=ds["token_influence"]), test_sample, False)
    if bool(one["influence"].sel(test_position=position).isnull().all()):
        raise LookupError(f"nothing is predicted at test_position {position} of {test_sample!r}: choose another token")
    finer = {"influence": ds["token_influence"], "contribution": ds["token_contribution"]}
    return ds.assign({name: values.sel(test_position=position, drop=True) for name, values in finer.items()})


def _asked(ds: xr.Dataset, test_sample: str | int | None, mean: bool) -> list[tuple[str, xr.Dataset]]:
    """What is asked for, with influence and contribution by training sample."""
    names = [str(name) for name in ds["test_sample"].values]
    if mean:
        kept = ds[["influence", "contribution", "ci_low", "ci_high"]]
        return [("mean", kept.mean("test_sample", skipna=False, keep_attrs=True).assign(kept[["ci_low", "ci_high"]]))]
    kept = ds[["influence", "contribution"]]
    if test_sample is None:
        return [(name, kept.isel(test_sample=i)) for i, name in enumerate(names)]
    if isinstance(test_sample, str):
        if test_sample not in names:
            raise LookupError(f"there is no test sample {test_sample!r}: ids are such as {names[0]!r}")
        test_sample = names.index(test_sample)
    if not 0 <= test_sample < len(names):
        raise LookupError(f"there is no test sample {test_sample}: there are 0 to {len(names) - 1}, or give an id")
    return [(names[test_sample], kept.isel(test_sample=test_sample))]
