"""One run of the model as the block of a trace sees it: sites are asked for, and the model runs to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensorscope_nb.scope.place import Place, Reads
from tensorscope_nb.scope.point import Point
from tensorscope_nb.scope.run import Finished, Run, Stopped

if TYPE_CHECKING:
    from tensorscope_nb.scope.trace import Tracer

IN_ORDER = "ask for sites in the order in which the model runs them"


class Prompt:
    """All of a trace, or one ``tracer.invoke`` in it."""

    def __init__(self, tracer: Tracer, call: Callable[[], Any]) -> None:
        self._tracer = tracer
        self._call = call
        self._here: Place | None = None  # where the model waits
        self._reads: list[tuple[str, Reads]] = []
        self._last = ""  # the site that was served last

    def __enter__(self) -> Prompt:
        if self._tracer.scope.tracer is not self._tracer:
            raise ValueError(
                "a prompt belongs into its trace: `with scope.trace() as tracer:`, and in it `with tracer.invoke(...):`"
            )
        if self._tracer.prompt is not None:
            raise ValueError("a prompt of this trace is open: close its block before the next tracer.invoke(...)")
        self.run = Run(self._call)
        self._tracer.prompt = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abandon()
        self.warn_of_late_writes()
        return kind is Stopped

    def read(self, site: str, point: Point) -> Tensor:
        reads = self._at(site, point)
        with self.run.modes.here():
            return reads.take()

    def write(self, site: str, point: Point, value: Any) -> None:
        reads = self._at(site, point)
        try:
            reads.put(value)
        except (RuntimeError, TypeError) as error:
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"{site} was given {given}, and has shape {tuple(reads.seen.shape)}: give what fits it") from error

    def finish(self) -> Any:
        self._leave()
        return self.run.finish()

    def abandon(self) -> None:
        self._tracer.prompt = None
        self.run.abandon()

    def to_step(self, step: int) -> bool:
        """Whether the model makes that step; if so, it now waits at its beginning."""
        if step <= self.run.step:
            raise ValueError(f"step {step} was asked for when step {self.run.step} had begun: ask for steps in order, each once")
        self._leave()
        try:
            self.run.to(step)
        except Finished:
            return False
        return True

    def warn_of_late_writes(self) -> None:
        """Called at the end of the block; the warning points at its line."""
        for site in dict.fromkeys(site for site, reads in self._reads if reads.written_too_late):
            text = f"{site} was written after the model had run past it, which changes nothing: write before later sites"
            warnings.warn(text, stacklevel=3)

    def _at(self, site: str, point: Point) -> Reads:
        """What was given out at this point; the model runs there first."""
        if torch.is_inference_mode_enabled():
            raise ValueError(f"{site} was asked for inside torch.inference_mode(): leave that mode first, or use torch.no_grad()")
        location = (self._tracer.scope.model.get_submodule(point.path), point.side)
        if self.run.has_passed(location):
            self._too_late(site)
        if self.run.at != location:
            self._leave()
            try:
                self.run.to(location)
            except Finished:
                raise LookupError(f"the model did not run {site!r} on this input: leave it out") from None
            self._here = Place(point.side, self.run.value)
        assert self._here is not None
        self._last = site
        with self.run.modes.here():
            reads, new = self._here.at(point)
        if new:
            self._reads.append((site, reads))
        return reads

    def _too_late(self, site: str) -> None:
        stands = "has come to its end" if self.run.finished else f"stands at {self._last}" if self._last else "is past it"
        where = f" in step {self.run.step}" if self._tracer.generation else ""
        later = "; later steps are in `for step in tracer.iter[:]`" if self._tracer.generation else ""
        raise ValueError(f"{site} was asked for too late: the model {stands}{where}; {IN_ORDER}{later}")

    def _leave(self) -> None:
        """Before the model goes on, what was written becomes what it goes on with."""
        if self._here is not None:
            with self.run.modes.here():
                self.run.value = self._here.leave()
            self._here = None
