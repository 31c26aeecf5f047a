"""One run of the model that waits: it goes on only as far as the user's code asks to see.

The model runs in a greenlet of its own, the user's block runs where it is written. A read switches to the model, whose
hooks switch back at the place that was asked for. So nothing needs the block's source, and the model's torch modes
(gradients, autocast) stay apart from those that the block sets for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Literal

import torch
from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]
from torch import nn

Side = Literal["input", "output"]
Location = tuple[nn.Module, Side]
DEVICES = ("cpu", "cuda")


class Modes:
    """torch's modes of this thread, which are not switched with the greenlets."""

    def __init__(self) -> None:
        self.grad = torch.is_grad_enabled()
        self.autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES]

    def set(self) -> None:
        torch.set_grad_enabled(self.grad)
        for device, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)

    @contextmanager
    def here(self) -> Iterator[None]:
        own = Modes()
        self.set()
        try:
            yield
        finally:
            own.set()


class Stopped(BaseException):
    """Leaves the block of a trace; no ``except Exception`` of the user's holds it."""


class Finished(Exception):
    """The model came to its end, and not by the place that was asked for."""


class Run:
    """``call()`` runs the model, once or, in a generation, once per step."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.step = -1  # the pass of the model that is under way
        self.at: Location | int | None = None  # where the model waits: a place, or the beginning of a step
        self.value: Any = None  # what stands there
        self.modes = Modes()
        self._call = call
        self._wanted: Location | int | None = None
        self._passed: set[Location] = set()
        self._result: Any = None
        self._greenlet = greenlet(self._body)
        self._greenlet.gr_context = copy_context()
        self._greenlet.of_run = self

    @property
    def finished(self) -> bool:
        return self._greenlet.dead

    def has_passed(self, location: Location) -> bool:
        """Whether the model has run past a place in this step, and does not wait at it."""
        return self.finished or (location in self._passed and location != self.at)

    def to(self, wanted: Location | int) -> None:
        """Lets the model run to a place of this step, or to the beginning of a step."""
        self._wanted = wanted
        if not self.finished:
            self._go(self._greenlet.switch)
        if self.finished:
            raise Finished

    def finish(self) -> Any:
        """Lets the model run to its end, and gives what it returned."""
        self._wanted = None
        if not self.finished:
            self._go(self._greenlet.switch)
        return self._result

    def abandon(self) -> None:
        """Ends the run where it stands."""
        self._wanted = None
        try:
            if not self.finished:
                self._go(self._greenlet.throw, GreenletExit)
        finally:
            self._greenlet.of_run = self._result = None  # no cycle keeps the tensors of the run

    def begin_step(self) -> None:
        self.step += 1
        self._passed.clear()
        if self._wanted == self.step:
            self._wait(self.step, None)

    def visit(self, location: Location, value: Any) -> Any:
        """Called by the model at every place; None where nobody waits for it, else the value to go on with."""
        self._passed.add(location)
        return self._wait(location, value) if self._wanted == location else None

    def wants(self, locations: Collection[Location | int | None]) -> bool:
        return self._wanted in locations

    def pass_by(self, locations: Iterable[Location]) -> None:
        """Counts places as passed that the model takes a shortcut around."""
        self._passed.update(locations)

    def _wait(self, at: Location | int, value: Any) -> Any:
        self.at, self.value = at, value
        getcurrent().parent.switch()
        value, self.value = self.value, None
        return value

    def _body(self) -> None:
        self._result = self._call()

    def _go(self, switch: Callable, *args: Any) -> None:
        own = Modes()
        self._greenlet.parent = getcurrent()
        self.at = None
        self.modes.set()
        try:
            switch(*args)
        finally:
            self.modes = Modes()
            own.set()


def current_run() -> Run | None:
    """The run whose model is asking; None for the user's own code, which may call the model or parts of it."""
    return getattr(getcurrent(), "of_run", None)


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """Hooks every module, so that a run can wait at either side of each."""

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> Any:
        run = current_run()
        if run is None:
            return None
        if module is model:
            run.begin_step()
        return run.visit((module, "input"), (args, kwargs))

    def leave(module: nn.Module, args: tuple, output: Any) -> Any:
        run = current_run()
        return None if run is None else run.visit((module, "output"), output)

    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()
