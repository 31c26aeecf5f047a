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


def held_out_sums(draws: Tensor, counts: Sequence[int]) -> Tensor:
    """(draws, counts): the entries that are least in the other draws, summed in this one.

    An entry that is small by accident is put first and counted small: over all draws at once the sum of the first ones is
    too low. What a draw says of the order of the others is not.
    """
    total = draws.sum(0)
    return torch.stack([sums_of_first(draw, least_first(total - draw), counts) for draw in draws])


def even_ranks(values: Tensor) -> Tensor:
    """(rank + ½) / N of the entries of a vector: the least of several vectors are then the same share of each."""
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[least_first(values)] = (torch.arange(len(values), dtype=torch.float64) + 0.5) / len(values)
    return ranks


def without_least(weights: Sequence[Tensor], kept: Sequence[Tensor], count: int, *, evenly: bool = False) -> list[Tensor]:
    """What is kept when ``count`` entries of all vectors are out: those that were out before, then the least in size, ties by
    order; with ``evenly`` the same share of each vector, to the nearest entry.
    """
    sizes = [torch.where(k, w.abs(), -1.0).cpu() for w, k in zip(weights, kept, strict=True)]
    out = least_first(torch.cat([even_ranks(size) for size in sizes] if evenly else sizes))[:count]
    flat = torch.ones(sum(map(len, sizes)), dtype=torch.bool)
    flat[out] = False
    return list(flat.split([len(size) for size in sizes]))


def shuffled(kept: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """As many entries of each vector, at random; with the same random numbers more of them contain fewer."""
    found = []
    for mask in kept:
        drawn = torch.zeros(len(mask), dtype=torch.bool)
        drawn[torch.randperm(len(mask), generator=generator)[: int(mask.sum())]] = True
        found.append(drawn)
    return found
