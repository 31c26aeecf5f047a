"""What is made of the gradients of two sets of samples: inner products, parts of a weight block by block, and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tensorscope_nb.sweep.forms import BLOCK_BYTES, Gradients, Rows, Whole, alike, blocks
from tensorscope_nb.sweep.measure import gram_of_positions, inner_products, left_products, measure

PAIRED = {"gram", "parts", "factors"}  # wants that take all samples, and not one chunk


class Part(NamedTuple):
    """Some rows (axis 0) or columns (axis 1) of a parameter as a matrix, such as those of a head."""

    key: Any
    axis: int
    start: int
    stop: int


class Place(NamedTuple):
    """Where a block lies in its parameter."""

    rows: Rows
    columns: slice


Take = Callable[[Part, Place, Tensor, Tensor], None]


def products(a: Gradients, b: Gradients) -> Tensor:
    """⟨gᵢ, gⱼ⟩ for the samples i of one and j of another, (n, m)."""
    if a is b:
        return measure(a, {"gram"})["gram"]
    a, b = alike(a, b)
    if not a.forms or not b.forms:
        return torch.zeros(a.n, b.n, dtype=torch.float64)
    if (k := gram_of_positions(a, b)) is not None:
        return k
    found = torch.zeros(a.n, b.n, dtype=torch.float64)
    for rows, columns, touched in blocks(a, b):
        one, other = a.block(rows, columns, touched), b.block(rows, columns, touched)
        found += (one.flatten(1) @ other.flatten(1).T).double().cpu()
    return found


def part_by_part(a: Gradients, b: Gradients, parts: Sequence[Part], take: Sequence[Take]) -> Tensor:
    """Hands out the gradients of each part, block by block and flat (n, weights); returns the inner products over all parts."""
    same = a is b
    a, b = alike(a, b)
    found = torch.zeros(a.n, b.n, dtype=torch.float64)
    for part in parts:
        for place in _blocks(a, b, part):
            one = a.block(*place).flatten(1)
            other = one if same else b.block(*place).flatten(1)
            found += (inner_products(one) if same else one @ other.T).double().cpu()
            for each in take:
                each(part, place, one, other)
    return found


def _blocks(a: Gradients, b: Gradients, part: Part) -> Iterator[Place]:
    """The part cut along the other axis, so that a block fits into the caches."""
    across = a.columns if part.axis == 0 else a.rows
    room = BLOCK_BYTES // ((a.n if a is b else a.n + b.n) * a.weight.element_size())
    step = max(1, room // (part.stop - part.start))
    for start in range(0, across, step):
        here, there = slice(part.start, part.stop), slice(start, min(start + step, across))
        yield Place(here, there) if part.axis == 0 else Place(there, here)


def positions(a: Gradients, b: Gradients) -> Tensor | None:
    """Σ over weights of what position s of aₖ and position t of bₖ make of ⟨aₖ, bₖ⟩, (n, S, T) for samples side by side.

    ⟨Lᵤᵀ Rᵤ, Lᵥᵀ Rᵥ⟩ = Σₛₜ (Lᵤ Lᵥᵀ) ∘ (Rᵤ Rᵥᵀ) of all their forms; None where positions are not known apart.
    """
    a, b = alike(a, b)
    found = None
    for u in a.forms:
        for v in b.forms:
            if isinstance(u, Whole) or isinstance(v, Whole):
                return None
            made = (left_products(u, v) * torch.bmm(u.right, v.right.mT)).double()
            if found is not None and found.shape != made.shape:
                return None
            found = made if found is None else found + made
    return found
