"""``with scope.trace(text): …``: nnsight's trace over the standard sites, which leaves the model as it found it."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Interleaver
from nnsight.intervention.source import STATE
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor, nn

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check, inputs
from tensorscope_nb.scope.sites import Point, main_tensor, with_main_tensor
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

    def live(self, point: Point) -> Tensor:
        """The value at a point, where the model has come to it; what is written into it the model goes on with."""
        place = Place(f"model.{point.path}".rstrip("."), self.envoy.interleaver, point)
        return place.input if point.side == "input" else place.output


class Place:
    """One point of the model as nnsight serves it: read as a view that is part of the graph, written back as a whole.

    The view is a copy on the way of the value, so that its gradient is its own and writing into it is safe in a
    backward.
    """

    def __init__(self, path: str, interleaver: Interleaver, point: Point) -> None:
        self.path = path
        self.interleaver = interleaver
        self.point = point

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self.path, self.point) == (other.path, other.point)

    @eproperty(key="output")
    def output(self, value: Any) -> Tensor:
        return self.point.seen(main_tensor(value)).clone()

    @output.transform  # type: ignore[no-redef]
    def output(self, view: Tensor, raw: Any) -> Any:
        return with_main_tensor(raw, self._written(main_tensor(raw), view))

    @eproperty(key="input")
    def input(self, value: Any) -> Tensor:
        args, kwargs = value
        return self.point.seen(args[0] if args else kwargs[_first_tensor(kwargs)]).clone()

    @input.transform  # type: ignore[no-redef]
    def input(self, view: Tensor, raw: Any) -> Any:
        args, kwargs = raw
        if args:
            return (self._written(args[0], view), *args[1:]), kwargs
        name = _first_tensor(kwargs)
        return args, kwargs | {name: self._written(kwargs[name], view)}

    def _written(self, base: Tensor, view: Tensor) -> Tensor:
        new = base.clone()
        self.point.seen(new).copy_(view)
        return new


def _first_tensor(kwargs: dict[str, Any]) -> str:
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))


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
