"""How far two distributions of mass over the same entries, or two sets of entries, overlap; and how far by chance.

Each comes as a list of vectors, such as one per parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Vectors = Sequence[Tensor]
NAN = float("nan")


def bhattacharyya(a: Vectors, b: Vectors) -> float:
    """Σ √(pₖ qₖ) / √(Σ p Σ q) of two distributions, given by their roots a = √p and b = √q.

    1 where they are proportional, 0 where they are disjoint, NaN where one is zero.
    """
    size = (_square(a) * _square(b)) ** 0.5
    return min(sum(float(p @ q) for p, q in zip(a, b, strict=True)) / size, 1.0) if size > 0 else NAN


def bhattacharyya_by_chance(a: Vectors, b: Vectors) -> float:
    """What is expected when the entries of one are shuffled inside each vector: Σ over vectors Σ a Σ b / N."""
    size = (_square(a) * _square(b)) ** 0.5
    by_chance = sum(float(p.sum()) * float(q.sum()) / p.nelement() for p, q in zip(a, b, strict=True))
    return by_chance / size if size > 0 else NAN


def shared(a: Vectors, b: Vectors) -> float:
    """|A ∩ B| / min(|A|, |B|), the overlap coefficient; NaN where one is empty."""
    least = min(_count(a), _count(b))
    return _both(a, b) / least if least else NAN


def shared_by_chance(a: Vectors, b: Vectors) -> float:
    """What is expected of random sets of these sizes: max(|A|, |B|) / N."""
    sizes = sorted((_count(a), _count(b)))
    return sizes[1] / sum(p.nelement() for p in a) if sizes[0] else NAN


def jaccard(a: Vectors, b: Vectors) -> float:
    """|A ∩ B| / |A ∪ B|."""
    either = _count(a) + _count(b) - _both(a, b)
    return _both(a, b) / either if either else NAN


def largest(values: Vectors, fraction: float) -> list[Tensor]:
    """True at exactly round(fraction · N) entries over all vectors, the largest ones, ties by order."""
    flat = torch.cat([value.flatten() for value in values])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[torch.argsort(flat, descending=True, stable=True)[: round(fraction * len(flat))]] = True
    return list(kept.split([value.nelement() for value in values]))


def _both(a: Vectors, b: Vectors) -> int:
    return sum(int((p & q).sum()) for p, q in zip(a, b, strict=True))


def _count(masks: Vectors) -> int:
    return sum(int(mask.sum()) for mask in masks)


def _square(values: Vectors) -> float:
    return sum(float(value @ value) for value in values)
