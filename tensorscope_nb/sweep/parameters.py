"""Trainable parameters, and the modules that use each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tensorscope_nb.sweep.forms import as_matrix
from tensorscope_nb.sweep.rules import Rule, rule_of

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


@dataclass(frozen=True)
class Parameter:
    """A trainable parameter, and the modules that use it (several where weights are tied), each with its rule."""

    name: str
    tensor: nn.Parameter
    uses: tuple[tuple[str, nn.Module, Rule], ...]  # empty: no rule, one backward per sample
    held_elsewhere: bool = False  # by a module that has no rule for it, which may use it or not

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def matrix(self) -> Tensor:
        """The weights as (rows, columns)."""
        return as_matrix(self.tensor.detach())


def parameters_of(scope: Scope, chosen: Mapping[str, nn.Parameter]) -> list[Parameter]:
    """Each chosen parameter with every module that holds it and has a rule; whether those are all uses is checked later."""
    users: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, module in scope.model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(id(parameter), []).append((path, module, name))
    found = []
    for name, tensor in chosen.items():
        rules = [(path, module, rule_of(module, local)) for path, module, local in users[id(tensor)]]
        uses = tuple((path, module, rule) for path, module, rule in rules if rule is not None)
        found.append(Parameter(name, tensor, uses, len(uses) < len(rules)))
    return found
