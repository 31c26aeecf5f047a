"""Random others of nearly the same size: what a choice of large entries has to be compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NEAREST = 20  # entries to draw from, at the least
PLACE = 32  # bits of a place
ALIKE = 0.01  # relative difference of sizes within which all others are drawn from


class Others:
    """The entries of a vector of sizes that are not chosen, sorted once, for any number of draws.

    The match of a size s is drawn with equal chances among the entries within 1 % of s that this draw has not used; where
    fewer than 20 are left there, among the 20 nearest to s. Sizes are compared in single precision.
    """

    def __init__(self, sizes: Tensor, chosen: Tensor) -> None:
        # one whole number for each: its size's bits, which are ordered as sizes are, above its place. Ties go by place on every
        # machine, as with a stable sort, which takes several times as long
        keys = (sizes.float().view(torch.int32).long() << PLACE).add_(torch.arange(len(sizes))).numpy()
        keys = np.delete(keys, chosen.numpy())
        keys.sort()
        self._sizes = torch.from_numpy((keys >> PLACE).astype(np.int32)).view(torch.float32)
        self._places = torch.from_numpy(keys & ((1 << PLACE) - 1))

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, wanted: Tensor, generator: torch.Generator) -> Tensor:
        """Places (k,) in the vector, none twice: one for each wanted size, in order; the first do not depend on the last."""
        if len(wanted) > len(self):
            raise ValueError(f"{len(wanted)} entries need a match of their own, and there are {len(self)} others")
        wanted = wanted.to(self._sizes)
        low = torch.searchsorted(self._sizes, wanted * (1 - ALIKE)).tolist()
        high = torch.searchsorted(self._sizes, wanted * (1 + ALIKE), right=True).tolist()
        free = np.ones(len(self), dtype=bool)
        drawn: list[int] = []
        for i in range(len(wanted)):
            at = self._one(low[i], high[i], float(wanted[i]), free, len(drawn), generator)
            free[at] = False
            drawn.append(at)
        return self._places[torch.tensor(drawn, dtype=torch.long)]

    def _one(self, low: int, high: int, size: float, free: np.ndarray, used: int, generator: torch.Generator) -> int:
        if high - low >= 2 * (used + NEAREST):  # most are free: any of them, tried until one is
            while not free[at := low + _below(high - low, generator)]:
                pass
            return at
        there = low + np.flatnonzero(free[low:high])
        if len(there) < NEAREST:
            start, end = max(0, low - used - NEAREST), min(len(self), high + used + NEAREST)
            there = start + np.flatnonzero(free[start:end])
            distance = np.abs(self._sizes[torch.from_numpy(there)].double().numpy() - size)
            there = there[np.argsort(distance, kind="stable")[:NEAREST]]
        return int(there[_below(len(there), generator)])


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
