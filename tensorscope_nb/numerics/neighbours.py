"""Nearest neighbours among many points, in blocks: the matrix of all distances is never held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SPARE = 16  # neighbours beyond those asked for, so that rounding at the edge is seen
COPIES = 4  # of a block of distances, at most: what topk and the comparison need
MOST_ROWS = 1024  # of a block, from which on more is not faster
GATHERED = 2**18  # numbers of differences held at once, so that they stay in a processor's cache


@dataclass(frozen=True)
class Distinct:
    """Points without repetition: which place each point is at, how many are there, and a point of each place."""

    place: Tensor  # (n,)
    count: Tensor  # (places,)
    first: Tensor  # (places,)

    @classmethod
    def of(cls, points: Tensor) -> Distinct:
        known: dict[bytes, int] = {}
        place = torch.empty(len(points), dtype=torch.long)
        first: list[int] = []
        for i, row in enumerate(points.cpu()):
            digest = hashlib.blake2b((row + 0.0).numpy().tobytes(), digest_size=16).digest()  # −0 is 0
            at = known.setdefault(digest, len(known))
            if at == len(first):
                first.append(i)
            place[i] = at
        return cls(place, torch.bincount(place), torch.tensor(first))


def middle(points: Tensor) -> Tensor:
    """Their mean in double precision, without a copy of them in it."""
    total = torch.zeros_like(points[0], dtype=torch.float64)
    for part in points.split(4096):
        total += part.sum(0, dtype=torch.float64)
    return total / len(points)


class Neighbours:
    """The k nearest of ``points`` (n, d), no two of them equal, to some of them; the point itself is none of its neighbours.

    Who they are is found by products, ‖x‖² + ‖y‖² − 2 x·y about the mean of all points. Where the bound of their error could
    hide a neighbour, all that it could hide are looked at. Distances are those of the differences.
    """

    def __init__(self, points: Tensor, k: int, memory: float) -> None:
        if not 0 < k < len(points):
            raise ValueError(f"k is {k}: there are {len(points)} points, each has {len(points) - 1} neighbours")
        self.points, self.k = points, k
        mean = middle(points)
        self.centred = torch.empty_like(points)
        for there, part in zip(self.centred.split(4096), points.split(4096), strict=True):
            there.copy_(part.double() - mean)
        self.squares = torch.cat([part.double().square().sum(1) for part in self.centred.split(4096)])
        self.rows = max(1, min(MOST_ROWS, int(memory // (COPIES * points.element_size() * len(points)))))
        exact = points.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
        self.rounding = torch.finfo(points.dtype).eps / 2 if exact else 2.0**-8

    def blocks(self, of: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For the points of these numbers, some at a time: their numbers, distances (rows, k) ascending, and neighbours."""
        for some in of.split(self.rows):
            yield some, *self.nearest(some)

    def nearest(self, some: Tensor) -> tuple[Tensor, Tensor]:
        some = some.to(self.points.device)
        asked = min(self.k + SPARE, len(self.points) - 1)
        # less ‖x‖², the same for a row: the order is that of the distances
        shifted = torch.addmm(self.squares.to(self.points.dtype), self.centred[some], self.centred.T, alpha=-2)
        shifted[torch.arange(len(some)), some] = torch.inf
        values, found = shifted.topk(asked, largest=False)
        squared, order = self._squared(some, found).sort(1)
        found = found.gather(1, order)
        hidden = self._error(some, squared[:, self.k - 1].sqrt())
        limit = squared[:, self.k - 1] + hidden - self.squares[some]
        unsure = values[:, -1].double() < limit
        if asked < len(self.points) - 1:
            for i in unsure.nonzero()[:, 0].tolist():
                near = (shifted[i] <= limit[i]).nonzero()[:, 0]
                exact = self._squared(some[i : i + 1], near[None])[0]
                squared[i, : self.k], order = exact.topk(self.k, largest=False)
                found[i, : self.k] = near[order]
        return squared[:, : self.k].sqrt().cpu(), found[:, : self.k].cpu()

    def _error(self, some: Tensor, radius: Tensor) -> Tensor:
        """A bound of the error of a squared distance from products, to points within ``radius``."""
        norm = self.squares[some].sqrt()
        far = norm + radius  # the norm of such a point, at most
        return 2 * self.rounding * far * ((self.points.shape[1] + 4) * norm + 2 * far)

    def _squared(self, some: Tensor, found: Tensor) -> Tensor:
        """The squared distances from each of some points to those that were found for it."""
        exact = torch.empty(found.shape, dtype=torch.float64, device=found.device)
        columns = max(1, GATHERED // self.points.shape[1])
        for rows in torch.arange(len(some)).split(max(1, columns // found.shape[1])):
            for here in torch.arange(found.shape[1]).split(columns):
                place = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(here[0]), int(here[-1]) + 1)
                differences = self.points[found[place]]
                differences -= self.points[some[place[0]]][:, None]
                exact[place] = differences.square_().sum(-1, dtype=torch.float64)
        return exact
