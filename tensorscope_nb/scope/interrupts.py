"""Ctrl-C while the model is being prepared or restored waits until that is done; everywhere else it comes at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

_open: list[Interrupts] = []  # of the main thread, the innermost last
_sealed = 0


@contextmanager
def held_interrupts() -> Iterator[Interrupts]:
    """Inside, an interrupt waits for the next ``allowed``, or for the end."""
    interrupts = Interrupts()
    interrupts.begin()
    try:
        yield interrupts
    finally:
        interrupts.end()


@contextmanager
def sealed() -> Iterator[None]:
    """Inside, an interrupt waits even where ``allowed``: something is half done that must be finished."""
    global _sealed
    _sealed += 1
    try:
        yield
    finally:
        _sealed -= 1


@contextmanager
def allowed() -> Iterator[None]:
    """Inside, where the model runs and nothing is half done, an interrupt comes at once."""
    waits = _sealed or threading.current_thread() is not threading.main_thread()
    before = [] if waits else [(each, each.held) for each in _open]
    for each, _ in before:
        each.held = False
    try:
        for each, _ in before:
            each.deliver()
        yield
    finally:
        for each, held in before:
            each.held = held


class Interrupts:
    """From ``begin`` to ``end`` an interrupt is held while ``held`` is set, and in the frames of ``guarded`` code."""

    def __init__(self, guarded: frozenset[CodeType] = frozenset()) -> None:
        self.held = False
        self.came: tuple[int, FrameType | None] | None = None
        self._guarded = guarded
        self._before: Any = None

    def begin(self) -> None:
        """Takes over Ctrl-C, which Python gives to the main thread only."""
        self.held = True
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._on_interrupt)
            _open.append(self)

    def end(self) -> None:
        """Gives Ctrl-C back; one that was held comes now."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            _open.remove(self)
            self.deliver()

    def deliver(self) -> None:
        if self.came is not None:
            came, self.came = self.came, None
            self._before(*came)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.held or (frame is not None and frame.f_code in self._guarded):
            self.came = number, frame
        else:
            self._before(number, frame)
