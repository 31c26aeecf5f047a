"""Captures, in one forward and one backward, what every per-sample gradient is made of.

The backward is of the summed per-sample losses, with respect to the modules' outputs and not to their weights: a third of
the arithmetic of an ordinary backward is left out, and what comes is per sample, because samples do not mix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import output_of
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.point import main_tensor
from tensorscope_nb.sweep.rules import Factors, Rule, rule_of

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


@dataclass(frozen=True)
class Parameter:
    """A trainable parameter, and the modules that use it (several where weights are tied), each with its rule."""

    name: str
    tensor: nn.Parameter
    uses: tuple[tuple[str, nn.Module, Rule], ...]  # empty: no rule, one backward per sample

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]


def parameters_of(scope: Scope, chosen: Mapping[str, nn.Parameter]) -> list[Parameter]:
    """Each chosen parameter with every module that holds it and has a rule; whether those are all uses is checked later."""
    users: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, module in scope.model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(id(parameter), []).append((path, module, name))
    found = []
    for name, tensor in chosen.items():
        uses = [(path, module, rule_of(module, local)) for path, module, local in users[id(tensor)]]
        found.append(Parameter(name, tensor, tuple((path, module, rule) for path, module, rule in uses if rule is not None)))
    return found


@dataclass
class Captured:
    """The factors of one chunk, by module path, and the losses of its samples."""

    losses: Tensor
    calls: dict[str, list[Factors]]

    def rows(self, parameter: Parameter, rows: slice) -> Tensor:
        """The gradients (n, rows, …) of all samples for some rows of a parameter: summed over its uses and their calls."""
        parts = [rule(module, call, rows) for path, module, rule in parameter.uses for call in self.calls.get(path, ())]
        if not parts:  # the chunk did not run the module
            like = parameter.tensor[rows]
            return like.new_zeros(len(self.losses), *like.shape)
        return sum(parts[1:], parts[0])


def capture(scope: Scope, part: Samples, parameters: Sequence[Parameter], weights: Tensor) -> Captured:
    """One forward and one backward of a chunk; each sample's mean loss is multiplied by its weight."""
    seen: list[tuple[str, Tensor, GradientEdge]] = []
    modules = {path: module for parameter in parameters for path, module, _ in parameter.uses}

    def hook(path: str) -> Any:
        def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            x = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
            out = main_tensor(output)
            if out.requires_grad and len(out) == len(part):
                # the edge and not the tensor: an activation that works in place would put its own gradient there
                seen.append((path, x.detach(), get_gradient_edge(out)))

        return keep

    with ExitStack() as stack, torch.enable_grad():
        for path, module in modules.items():
            stack.callback(module.register_forward_hook(hook(path), with_kwargs=True).remove)
        losses = scope.rule.per_sample(output_of(scope.model, part, scope.anatomy), part)
        check_finite(losses.detach(), part, scope.model)
        deltas = (
            torch.autograd.grad((losses * weights.to(losses)).sum(), [out for _, _, out in seen], allow_unused=True)
            if seen
            else ()
        )
    calls: dict[str, list[Factors]] = {}
    for (path, x, _), delta in zip(seen, deltas, strict=True):
        if delta is not None:
            calls.setdefault(path, []).append(Factors(x, delta))
    return Captured(losses.detach(), calls)
