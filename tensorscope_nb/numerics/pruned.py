"""What removing the least of many entries adds up to, where their order is known through the same noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def least_first(scores: Tensor) -> Tensor:
    """The indices of a vector, smallest entry first, ties by index."""
    return torch.argsort(scores, stable=True)


def sums_of_first(values: Tensor, order: Tensor, counts: Sequence[int]) -> Tensor:
    """Σ of ``values`` over the first ``counts`` entries of ``order``, in double precision."""
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), values[order].double().cumsum(0).cpu()])
    return sums[torch.as_tensor(list(counts))]


def held_out_sums(by_fold: Tensor, counts: Sequence[int]) -> Tensor:
    """(folds, counts): the entries that are least in the other folds, summed in this one.

    An entry that is small by accident is put first and counted small: over all folds at once the sum of the first ones is
    too low. What a fold says of the order of the others is not.
    """
    total = by_fold.sum(0)
    return torch.stack([sums_of_first(fold, least_first(total - fold), counts) for fold in by_fold])
