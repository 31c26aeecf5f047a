"""What removing samples does to the next step, on samples that had no part in choosing them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.scope.fingerprint import fingerprint
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.reducers import Sums

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


def removal_effect(
    scope: Scope,
    train: Any,
    removed: Sequence[str] | pd.DataFrame,
    evaluation: Any,
    *,
    learning_rate: float = 0.01,
    n_random: int = 20,
    seed: int | None = None,
) -> xr.Dataset:
    """The loss on held-out samples after one gradient step, with some training samples removed and with as many at random.

    What it answers: whether what ``curate`` would remove is better gone, on samples it has not seen.
    Equation: θ' = θ − η mean_{i kept} g_i; loss_change = mean loss of the evaluation samples at θ' − at θ. ``removed`` are ids
    in ``train``, or the plan of ``curate``; each random control removes as many samples of each task. The model is left as it
    is: a copy takes the step, in single precision at least.

    Result: ``[selection, replicate] loss_change`` (selection: everything kept, removed, random; one replicate but for random,
    NaN beyond), ``[selection] loss_change_mean``, ``[selection, sample] loss_change_by_sample`` (random: the mean of its
    replicates); scalars ``difference`` (removed − mean of random), ``p_value`` (how often random is at least as good, with
    +1). Errors: ValueError where the evaluation shares a sample with ``train``. Cost: a sweep of the training samples and one
    of the removed ones per replicate, a forward pass of the evaluation each.
    How to read it: a difference below zero says that the removal helps more than chance. When not to trust it: one step is not
    training; take the learning rate of the training that you have in mind.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> train = ts.datasets.shakespeare(scope, n=8, length=16)
    >>> effect = ts.recipes.removal_effect(scope, train, [train.ids[0]], ts.datasets.code(scope, n=4, length=16), n_random=2)
    >>> effect["loss_change"].shape
    (3, 2)
    """
    train, evaluation = scope.samples(train), scope.samples(evaluation)
    if isinstance(removed, str):
        removed = [removed]
    elif not isinstance(removed, Sequence):
        removed = removed["sample"].tolist()
    if unknown := [name for name in removed if name not in train.ids]:
        raise LookupError(f"{unknown[0]!r} is none of the training samples: ids are such as {train.ids[0]!r}")
    if both := set(train.ids) & set(evaluation.ids):
        raise ValueError(f"{min(both)!r} is in both the training and the evaluation samples: evaluate on others")
    if not 0 < len(set(removed)) < len(train):
        raise ValueError(f"{len(set(removed))} of {len(train)} samples are to be removed: remove some, and keep some")
    if n_random < 1:
        raise ValueError(f"n_random is {n_random}: the control takes at least 1 random removal")
    rows = [train.ids.index(name) for name in dict.fromkeys(removed)]
    generator = np.random.default_rng(current().seed if seed is None else seed)
    total = _sum(scope, train)
    wide = torch.promote_types(torch.float32, next(scope.model.parameters()).dtype)  # in half precision a step is rounded away
    trial = type(scope)(copy.deepcopy(scope.model).to(wide), scope.tokenizer, scope.rule.custom, name=scope.name)
    before = trial.losses(evaluation).double().numpy()

    def change(gone: list[int]) -> np.ndarray:
        less = _sum(scope, train[gone]) if gone else {}
        with torch.no_grad():
            for (name, moved), start in zip(trial.model.named_parameters(), scope.model.parameters(), strict=True):
                if name in total:
                    mean = (total[name] - less.get(name, 0)) / (len(train) - len(gone))
                    moved.copy_(start.to(wide) - learning_rate * mean.to(moved))
        return trial.losses(evaluation).double().numpy() - before

    random = [change(_alike(train, rows, generator)) for _ in range(n_random)]
    everything, chosen = change([]), change(rows)
    table = np.full((3, n_random), np.nan)
    table[0, 0], table[1, 0], table[2] = everything.mean(), chosen.mean(), [each.mean() for each in random]
    unit, words = "loss", "change of the held-out loss in one step"
    variables: dict[str, Variable] = {
        "loss_change_mean": (("selection",), [table[0, 0], table[1, 0], table[2].mean()], words, unit),
        "loss_change": (("selection", "replicate"), table, words, unit),
        "loss_change_by_sample": (("selection", "sample"), [everything, chosen, np.mean(random, 0)], words, unit),
        "difference": ((), table[1, 0] - table[2].mean(), f"{words}, removed minus random", unit),
        "p_value": ((), (1 + (table[2] <= table[1, 0]).sum()) / (1 + n_random), "p of a removal as good as random ones", ""),
    }
    coords = {"selection": ["everything kept", "removed", "random"], "sample": np.array(evaluation.ids, dtype=object)}
    said = {"n_removed": len(rows), "learning_rate": float(learning_rate), "model": scope.name, "weights": fingerprint(scope)}
    return dataset(variables, coords, **said, n_used=len(train), n_available=len(train))


def _sum(scope: Scope, samples: Samples) -> dict[str, Tensor]:
    sums = Sums()
    gradient_sweep(scope, samples, [sums])
    return sums.totals


def _alike(train: Samples, rows: list[int], generator: np.random.Generator) -> list[int]:
    """As many rows of each task, at random."""
    found: list[int] = []
    for task in dict.fromkeys(train.tasks):
        there = [i for i, name in enumerate(train.tasks) if name == task]
        found += generator.choice(there, sum(row in there for row in rows), replace=False).tolist()
    return found
