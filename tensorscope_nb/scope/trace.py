"""``with scope.trace(text): …``: the standard sites live, in a run of the model that waits for the block.

The words are nnsight's (``.save()``, ``tracer.stop()``, ``tracer.invoke``, ``tracer.iter``, ``tracer.result``); the block runs
where it is written, so what it assigns stays, with ``.save()`` or without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import nnsight
import torch
from nnsight.tracing.tracer import dec, inc
from torch import Tensor

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.backward import retained
from tensorscope_nb.scope.forward import call, check
from tensorscope_nb.scope.generation import Steps, generating
from tensorscope_nb.scope.interrupts import Interrupts
from tensorscope_nb.scope.point import Point
from tensorscope_nb.scope.prompt import Prompt
from tensorscope_nb.scope.run import Modes, Stopped, watched
from tensorscope_nb.scope.shortcut import tapped_on_demand
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope

T = TypeVar("T")

if not hasattr(Tensor, "save"):  # where nnsight could not build the extension that gives every object its .save()
    setattr(Tensor, "save", nnsight.save)  # noqa: B010


class Tracer:
    """What ``scope.trace`` opens: prepares the model for its block, and leaves it as it was."""

    def __init__(self, scope: Scope, samples: Samples | None, generation: dict[str, Any]) -> None:
        self.scope = scope
        self.generation = generation
        self.prompt: Prompt | None = None
        self.copies: list[Tensor] = []  # what was read and carries a gradient
        self.thread = 0
        self._whole = None if samples is None else self._prompt(samples)
        self._open = ExitStack()
        self._interrupts = Interrupts(GUARDED)

    def __enter__(self) -> Tracer:
        if self.thread:
            raise ValueError("this trace was opened before: open a new one with scope.trace(...)")
        if torch.is_inference_mode_enabled():
            raise ValueError("a trace was opened inside torch.inference_mode(): gradients and edits need torch's normal mode")
        self._interrupts.begin()
        try:
            self._prepare()
            self._interrupts.deliver()
        except BaseException:
            self._restore()
            raise
        self._interrupts.held = False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        try:
            if kind is None and self._whole is not None:
                self._whole.finish()
        finally:
            self._interrupts.held = True
            self._restore()
            whole, self._whole = self._whole, None
        if whole is not None:
            whole.warn_of_late_writes()
        return kind is Stopped

    def _prepare(self) -> None:
        scope, opened = self.scope, self._open
        opened.callback(Modes().set)  # an interrupt may come between the run's modes and the block's
        opened.enter_context(preserved(scope.model, random_state=False, interrupts=self._interrupts))
        if any(point.tapped for point in scope.anatomy.sites.values()):
            opened.enter_context(tapped_on_demand(scope.model, scope.anatomy))
        opened.enter_context(watched(scope.model))
        opened.enter_context(retained(self.copies))
        inc()  # nnsight's .save() asks whether a trace is open
        opened.callback(dec)
        scope.tracer, self.thread = self, get_ident()
        opened.callback(setattr, scope, "tracer", None)
        if self._whole is not None:
            self._whole.__enter__()

    def _restore(self) -> None:
        try:
            with self._open:
                if self.prompt is not None:
                    self.prompt.abandon()
        finally:
            self.copies.clear()
            self._interrupts.end()

    def _prompt(self, samples: Samples) -> Prompt:
        scope = self.scope
        check(samples, scope.anatomy)
        if self.generation:
            run = generating(scope, samples, self.generation)
        else:
            run = lambda: call(scope.model, samples, scope.anatomy)
        return Prompt(self, run)

    def invoke(self, samples: Any) -> Prompt:
        """One of several prompts: a block of its own, a run of its own.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> with scope.trace() as tracer:
        ...     with tracer.invoke("one two"):
        ...         z = scope.layers[0].attn.z[:, -1]
        ...     with tracer.invoke("three four five"):
        ...         scope.layers[0].attn.z[:, -1] = z
        ...         logits = scope.logits
        """
        if self._whole is not None:
            raise ValueError(
                "this trace has its samples already: open scope.trace() without any to give them to tracer.invoke(...)"
            )
        return self._prompt(self.scope.samples(samples))

    def stop(self) -> None:
        """Leaves the block here; the model runs no further."""
        raise Stopped

    @property
    def result(self) -> Any:
        """What the model returned, or the token ids of a generation: lets the model run to its end."""
        return self.running.finish()

    @property
    def iter(self) -> Steps:
        """The steps of a generation: ``for step in tracer.iter[:3]``."""
        return Steps(self, itertools.count())

    def all(self) -> Steps:
        """Every step of a generation."""
        return Steps(self, itertools.count())

    @property
    def running(self) -> Prompt:
        if self.prompt is None:
            raise ValueError("no prompt is open: give scope.trace(...) samples, or open `with tracer.invoke(samples):` first")
        return self.prompt

    def read(self, site: str, point: Point) -> Tensor:
        """The value at a point, where the model has come to it; what is written into it the model goes on with."""
        copy = self.running.read(site, point)
        if copy.requires_grad:
            self.copies.append(copy)
        return copy

    def write(self, site: str, point: Point, value: Any) -> None:
        """Replaces the value at a point; what was read of it before stays as it was."""
        self.running.write(site, point, value)


GUARDED = frozenset({Tracer.__enter__.__code__, Tracer.__exit__.__code__})


def run(scope: Scope, fn: Callable[[Scope], T], samples: Samples) -> T:
    """See :meth:`tensorscope_nb.Scope.run`."""
    tracer = Tracer(scope, samples, {})
    with tracer:
        value = fn(scope)
        tracer.stop()
    return value
