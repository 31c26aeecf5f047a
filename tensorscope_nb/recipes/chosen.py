"""Which layers, heads or positions are asked for."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress


def chosen(given: Sequence[int] | None, name: str, n: int) -> list[int]:
    """The numbers in the option ``name``, each from 0 to n − 1 and once; all of them where none are given."""
    if given is None:
        return list(range(n))
    numbers = None
    if not isinstance(given, str):
        with suppress(TypeError):
            numbers = [operator.index(i) for i in given]
    if numbers is None:
        raise TypeError(f"{name} is {given!r:.80}: give a list of numbers, such as [0, 1]")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} is {numbers}: name at least one, and each once")
    for i in numbers:
        if not 0 <= i < n:
            raise LookupError(f"{name} names {i}: there are 0 to {n - 1}")
    return numbers
