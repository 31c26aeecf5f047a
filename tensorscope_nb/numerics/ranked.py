"""The largest of very many numbers that come in pieces, without ever holding them all."""

from __future__ import annotations

import torch
from torch import Tensor


class Largest:
    """The ``k`` largest of all values that were added, and where they stood; of equal ones those that came first."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.values = torch.empty(0)
        self.places = torch.empty(0, dtype=torch.long)

    @property
    def bound(self) -> float:
        """Only what is above it can be among them any more."""
        if not self.k:
            return torch.inf
        return float(self.values[-1]) if len(self.places) == self.k else -torch.inf

    def add(self, values: Tensor, start: int) -> None:
        """Takes in a vector whose first entry stands at ``start``; places must come in ascending order."""
        if not self.k:
            return
        full = len(self.places) == self.k
        # equal to the least that is held is too late; a comparison costs a fraction of a sort
        new = (values > self.bound).nonzero()[:, 0] if full else torch.arange(len(values), device=values.device)
        if not len(new):
            return
        chosen = values[new]
        if len(chosen) > self.k:
            least = torch.topk(chosen, self.k).values[-1]
            above, equal = (chosen > least).nonzero()[:, 0], (chosen == least).nonzero()[:, 0]
            kept = torch.cat([above, equal[: self.k - len(above)]]).sort().values
            new, chosen = new[kept], chosen[kept]
        both = torch.cat([self.values.to(chosen.device), chosen])  # in the wider precision of the two
        order = torch.sort(both, descending=True, stable=True).indices[: self.k]
        self.values = both[order]
        self.places = torch.cat([self.places.to(new), new + start])[order]
