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
    memory: int = GIGABYTE  # bytes that activations of one chunk, or of one record, may take
    progress: bool = True


_DEFAULT = Options()
_current: ContextVar[Options] = ContextVar("tensorscope_options", default=_DEFAULT)


def current() -> Options:
    return _current.get()


@contextmanager
def options(*, seed: int | None = None, memory: int | None = None, progress: bool | None = None) -> Iterator[Options]:
    """Sets the default ``seed``, ``memory`` (bytes for activations) and ``progress`` inside a ``with`` block.

    >>> import tensorscope_nb as ts
    >>> with ts.options(seed=3) as active:
    ...     active.seed
    3
    """
    if memory is not None and memory <= 0:
        raise ValueError(f"memory is {memory}: give a positive number of bytes")
    given: dict[str, Any] = {"seed": seed, "memory": memory, "progress": progress}
    token = _current.set(replace(current(), **{k: v for k, v in given.items() if v is not None}))
    try:
        yield current()
    finally:
        _current.reset(token)
