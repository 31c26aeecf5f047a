"""Numbers as the bits that are stored."""

from __future__ import annotations

import torch
from torch import Tensor

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def as_integers(values: Tensor) -> Tensor:
    """The same bits read as whole numbers."""
    return values.view(INTEGERS[values.element_size()])


def flipped(values: Tensor, bits: Tensor) -> Tensor:
    """Each value with one bit of its stored form turned over: bit 0 is the lowest of the mantissa, the highest the sign."""
    stored = as_integers(values)
    return (stored ^ (torch.ones_like(stored) << bits.to(stored))).view(values.dtype)


def n_differing(a: Tensor, b: Tensor) -> int:
    """How many values differ in a bit; 0 and −0 are one value."""
    return int(((as_integers(a) != as_integers(b)) & ((a != 0) | (b != 0))).sum())
