"""How far a computation is, and how long it will still take: a bar for people, and whoever else listens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from tensorscope_nb.settings import current

PER_SECOND = 10
Listener = Callable[[str, float, float], None]  # what is being done, how much of it is, and of how much
_listener: ContextVar[Listener | None] = ContextVar("tensorscope_progress", default=None)


@contextmanager
def listened(listener: Listener) -> Iterator[None]:
    """Inside, ``listener`` hears of every computation at most ten times a second, and of its end; what it raises ends it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class bar:
    """A progress bar that appears where the work takes longer than a second, and leaves nothing behind."""

    def __init__(self, total: float, label: str, progress: bool | None = None) -> None:
        from tqdm import tqdm

        wanted = current().progress if progress is None else progress
        # in a notebook: text, which a saved file forgets (a closed widget would stay in it as an error), and not on red
        stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
        interval = 1 / PER_SECOND
        self._tqdm: Any = tqdm(
            total=total, desc=label, delay=1, leave=False, disable=not wanted, file=stream, ncols=80, mininterval=interval
        )
        self.label, self.total, self.done = label, total, 0.0
        self._heard = 0.0

    def update(self, amount: float = 1) -> None:
        """So much more is done."""
        self.done += amount
        self._tqdm.total = self.total
        self._tqdm.update(amount)
        listener, now = _listener.get(), time.monotonic()
        if listener is not None and (now - self._heard >= 1 / PER_SECOND or self.done >= self.total):
            self._heard = now
            listener(self.label, self.done, self.total)

    def __enter__(self) -> bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tqdm.close()
