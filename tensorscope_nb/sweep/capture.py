"""One forward and one backward of a chunk, in which the gradients of every parameter pass by, sample by sample.

The backward is of the summed per-sample losses, with respect to what the modules put out and not to their weights: a third
of the arithmetic of an ordinary backward is left out, and what comes is per sample, because samples do not mix. Each
gradient is used as soon as its factors are there, and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import output_of
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.point import Point, main_tensor
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.sweep.forms import Gradients
from tensorscope_nb.sweep.parameters import Parameter
from tensorscope_nb.sweep.rules import Factors, Summed

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Use = Callable[[Parameter, Gradients], None]


class Chunk:
    """Some samples, what the model did with them at the sites asked for, and the gradient of the losses there."""

    def __init__(
        self,
        samples: Samples,
        points: Mapping[str, Point],
        bases: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor] | None = None,
        losses: Tensor | None = None,
    ) -> None:
        self.samples = samples
        self.losses = losses  # each sample's mean; None where no loss was asked for
        self._points = points
        self._bases = bases
        self._gradients = gradients or {}

    def site(self, name: str) -> Tensor:
        """The tensor at a site, as a user sees it; first axis sample."""
        return self._points[name].seen(self._bases[name].detach())

    def gradient(self, name: str) -> Tensor:
        """The gradient of each sample's loss with respect to what stands at a site."""
        return self._points[name].seen(self._gradients[name])


@dataclass
class _Call:
    """One call of a module: its input, and later the gradient of its output."""

    x: Tensor
    edge: GradientEdge
    starts: bool  # nothing before it that is differentiated
    delta: Tensor | None = None


def capture(
    scope: Scope,
    part: Samples,
    parameters: Sequence[Parameter],
    weights: Tensor,
    use: Use,
    points: Mapping[str, Point] | None = None,
    on_losses: Callable[[Tensor], None] | None = None,
    by_position: bool = False,
) -> tuple[Chunk, set[str]]:
    """Runs a chunk, each sample's loss times its weight; also the parameters that were used by no row per sample.

    ``by_position`` keeps the positions apart also where their sum is less to hold. The model must be ``preserved`` around
    it: what is not asked for is not differentiated.
    """
    points = points or {}
    calls: dict[str, list[_Call]] = {}
    apart: set[str] = set()  # the modules whose output is not one row per sample
    modules = {path: module for parameter in parameters for path, module, _ in parameter.uses}
    wanted = {id(parameter.tensor) for parameter in parameters if parameter.uses}
    for tensor in scope.model.parameters():
        tensor.requires_grad_(id(tensor) in wanted)

    def hook(path: str) -> Any:
        def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            x = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
            out = main_tensor(output)
            if out.ndim < 2 or x.ndim < 1 or len(out) != len(part) or len(x) != len(part):
                apart.add(path)
            elif out.requires_grad:
                # the edge and not the tensor: an activation that works in place would put its own gradient there
                calls.setdefault(path, []).append(_Call(x.detach(), get_gradient_edge(out), not x.requires_grad))

        return keep

    with ExitStack() as stack, torch.enable_grad():
        for path, module in modules.items():
            stack.callback(module.register_forward_hook(hook(path), with_kwargs=True).remove)
        bases = stack.enter_context(intercepted(scope.model, scope.anatomy, points, [], leaves=bool(points)))
        losses = scope.rule.per_sample(output_of(scope.model, part, scope.anatomy), part)
        check_finite(losses.detach(), part, scope.model)
        if on_losses is not None:
            on_losses(losses.detach())
        total = (losses * weights.to(losses)).sum()
    strange = {p.name for p in parameters if any(path in apart for path, _, _ in p.uses)}
    usable = [p for p in parameters if p.uses and p.name not in strange]
    # where a weight is used outside the calls known, what follows must be differentiated as well
    elsewhere = {
        p.name: p.tensor for p in parameters if p.uses and (p.held_elsewhere or any(path not in calls for path, _, _ in p.uses))
    }
    found, unseen = _backward(total, calls, usable, bases, use, len(part), elsewhere, by_position)
    strange |= unseen
    return Chunk(part, points, bases, dict(zip(bases, found, strict=True)), losses.detach()), strange


def _backward(
    total: Tensor,
    calls: dict[str, list[_Call]],
    parameters: Sequence[Parameter],
    bases: Mapping[str, Tensor],
    use: Use,
    n: int,
    elsewhere: Mapping[str, Tensor],
    by_position: bool,
) -> tuple[list[Tensor], set[str]]:
    """Runs the backward; a parameter is used when the last of its calls has its gradient."""
    of_path: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        for path, _, _ in parameter.uses:
            of_path.setdefault(path, []).append(parameter)
    waiting = {p.name: sum(len(calls.get(path, ())) for path, _, _ in p.uses) for p in parameters}
    paths = dict.fromkeys(calls, 0)

    def arrived(path: str, call: _Call, delta: Tensor | None) -> None:
        call.delta = delta
        for parameter in of_path.get(path, ()):
            waiting[parameter.name] -= 1
            if not waiting[parameter.name]:
                use(parameter, _gradients(parameter, calls, n, by_position))
        paths[path] += 1
        if paths[path] == len(calls[path]) and all(not waiting[p.name] for p in of_path.get(path, ())):
            calls[path].clear()  # nothing needs its factors any more

    starts = [(path, call) for path, made in calls.items() for call in made if call.starts]
    with ExitStack() as stack:
        for path, made in calls.items():
            for call in made:
                if not call.starts:
                    stack.callback(call.edge.node.register_prehook(_listening(arrived, path, call)).remove)
        ends: Any = [call.edge for _, call in starts] + list(bases.values()) + list(elsewhere.values())
        deltas = torch.autograd.grad(total, ends, allow_unused=True) if ends else ()
    for (path, call), delta in zip(starts, deltas, strict=False):
        arrived(path, call, delta)
    used = {name for name, d in zip(elsewhere, deltas[len(deltas) - len(elsewhere) :], strict=False) if d is not None}
    reached = _reached(total) if any(waiting.values()) else set()
    unseen: set[str] = set()
    for parameter in parameters:
        called = [path for path, _, _ in parameter.uses if path in paths]
        if not called and parameter.name in used:
            unseen.add(parameter.name)  # used, but not by a call of its module
        elif waiting[parameter.name] and any(c.delta is None and c.edge.node in reached for path in called for c in calls[path]):
            unseen.add(parameter.name)  # something before it is differentiated that is no call known
        elif waiting[parameter.name] or not called:
            use(parameter, _gradients(parameter, calls, n, by_position))  # modules that did not run, or whose output nothing used
    found = deltas[len(starts) : len(starts) + len(bases)]
    return [torch.zeros_like(base) if g is None else g for base, g in zip(bases.values(), found, strict=True)], unseen


def _reached(total: Tensor) -> set[Any]:
    """The nodes of the graph of the loss."""
    seen: set[Any] = set()
    left = [total.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return seen


def _listening(arrived: Callable[[str, _Call, Tensor | None], None], path: str, call: _Call) -> Callable[[Any], None]:
    def listen(gradients: Sequence[Tensor | None]) -> None:
        arrived(path, call, gradients[call.edge.output_nr])

    return listen


def _gradients(parameter: Parameter, calls: Mapping[str, Sequence[_Call]], n: int, by_position: bool) -> Gradients:
    forms = [
        (rule.by_position if by_position and isinstance(rule, Summed) else rule)(module, Factors(call.x, call.delta))
        for path, module, rule in parameter.uses
        for call in calls.get(path, ())
        if call.delta is not None
    ]
    return Gradients(parameter.matrix, forms, n)
