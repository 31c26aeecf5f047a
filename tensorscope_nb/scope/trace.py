"""``with scope.trace(text): …``: nnsight's trace over the standard sites, which leaves the model as it found it."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.source import STATE
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor, nn

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check, inputs
from tensorscope_nb.scope.place import Place, Reads
from tensorscope_nb.scope.point import Point
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.scope.tap import tapped

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


class ScopeTracer(InterleavingTracer):
    """Wraps the model for nnsight when the block runs, not before, and unwraps it afterwards."""

    def __init__(self, scope: Scope, samples: Samples) -> None:
        check(samples, scope.anatomy)
        parameter = next(scope.model.parameters())
        given = inputs(samples, scope.anatomy, parameter.device, parameter.dtype)
        by_position = [given.pop("x")] if "x" in given else []
        super().__init__(None, "__call__", *by_position, **given)
        self.scope = scope
        self.reads: dict[str, list[Reads]] = {}

    def execute(self, code: CodeType) -> None:
        scope, model = self.scope, self.scope.model
        with ExitStack() as stack:
            stack.enter_context(preserved(model, random_state=False))
            if any(point.tapped for point in scope.anatomy.sites.values()):
                stack.enter_context(tapped(model, scope.anatomy))
            stack.callback(_unwrap, model, _wrapped(model))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a submodule named "output" is reached by its path here, not by attribute
                self.envoy = Envoy(model)
            scope.tracer = self
            stack.callback(setattr, scope, "tracer", None)
            super().execute(code)
        for site, reads in self.reads.items():
            if any(read.written_too_late for read in reads):
                text = f"{site} was written after the model had run past it, which changes nothing: write before later sites"
                warnings.warn(text, stacklevel=4)

    def read(self, site: str, point: Point) -> Tensor:
        """The value at a point, where the model has come to it; what is written into it the model goes on with."""
        reads = self._place(point).reads(point.side)
        seen = self.reads.setdefault(site, [])
        if not any(reads is known for known in seen):
            seen.append(reads)
        return reads.take()

    def write(self, point: Point, value: Any) -> None:
        """Replaces the value at a point; what was read of it before stays as it was."""
        self._place(point).write(point.side, value)

    def _place(self, point: Point) -> Place:
        return Place(f"model.{point.path}".rstrip("."), self.envoy.interleaver, point)


def _wrapped(model: nn.Module) -> set[nn.Module]:
    """The modules that nnsight controls already, because the user wrapped the model too: those stay wrapped."""
    return {module for module in model.modules() if STATE in module.__dict__}


def _unwrap(model: nn.Module, keep: set[nn.Module]) -> None:
    for module in model.modules():
        if module not in keep and module.__dict__.pop(STATE, None) is not None:
            del module.__dict__["forward"]


def traced(scope: Scope, samples: Samples) -> ScopeTracer:
    if torch.is_inference_mode_enabled():
        raise ValueError("a trace was opened inside torch.inference_mode(): gradients and edits need torch's normal mode")
    return ScopeTracer(scope, samples)
