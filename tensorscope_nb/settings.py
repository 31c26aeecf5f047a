"""Defaults that hold for a block: ``with ts.options(seed=1, progress=False): ...``."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

GIGABYTE = 2**30


@dataclass(frozen=True)
class Options:
    seed: int = 0
    memory: int = GIGABYTE  # bytes that each large thing may take: the activations of a chunk, a record, a basis
    progress: bool = True


_DEFAULT = Options()
_current: ContextVar[Options] = ContextVar("tensorscope_options", default=_DEFAULT)


def current() -> Options:
    return _current.get()


@contextmanager
def options(*, seed: int | None = None, memory: int | None = None, progress: bool | None = None) -> Iterator[Options]:
    """Sets the default ``seed``, ``memory`` (bytes that each large thing may take: the activations of a chunk, a record,
    a basis of vectors) and ``progress`` inside a ``with`` block.

    >>> import tensorscope_nb as ts
    >>> with ts.options(seed=3) as active:
    ...     active.seed
    3
    """
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int | float) or memory <= 0):
        raise ValueError(f"memory is {memory!r}: give a positive number of bytes, such as 8 * 2**30")
    given: dict[str, Any] = {"seed": seed, "memory": memory, "progress": progress}
    token = _current.set(replace(current(), **{k: v for k, v in given.items() if v is not None}))
    try:
        yield current()
    finally:
        _current.reset(token)
