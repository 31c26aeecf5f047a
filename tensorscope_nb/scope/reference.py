"""Per-sample gradients one sample at a time: slow, and right for every model. The reference for everything faster."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check, output_of
from tensorscope_nb.scope.loss import check_attached, check_finite
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


def per_sample_gradients(
    scope: Scope, samples: Samples, modules: str | Sequence[str] | None = None, *, parameters: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """See :meth:`tensorscope_nb.Scope.per_sample_gradients`; ``parameters`` names them one by one."""
    chosen = chosen_parameters(scope, modules)
    if parameters is not None:
        chosen = {name: chosen[name] for name in parameters}
    samples = scope.rule.prepared(samples)
    check(samples, scope.anatomy)
    found: dict[str, list[Tensor]] = {name: [] for name in chosen}
    with preserved(scope.model), torch.enable_grad():
        for i in range(len(samples)):
            losses = scope.rule.per_sample(output_of(scope.model, samples[i], scope.anatomy), samples[i])
            check_finite(losses.detach(), samples[i], scope.model)
            check_attached(losses)
            gradients = torch.autograd.grad(losses.sum(), list(chosen.values()), allow_unused=True)
            for (name, parameter), gradient in zip(chosen.items(), gradients, strict=True):
                found[name].append(torch.zeros_like(parameter) if gradient is None else gradient.to_dense())
    return {name: torch.stack(rows).detach() for name, rows in found.items()}


def chosen_parameters(scope: Scope, modules: str | Sequence[str] | None) -> dict[str, torch.nn.Parameter]:
    """The trainable parameters of the modules whose paths match; all where nothing is asked."""
    trainable = {name: p for name, p in scope.model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("all parameters are frozen: set requires_grad on those whose gradients you want")
    if modules is None:
        return trainable
    patterns = [modules] if isinstance(modules, str) else modules
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"modules is {modules!r}: give a module path, a glob such as '*.mlp.*', or a list of them")
    owners: dict[str, list[str]] = {name: [] for name in trainable}
    names = {id(p): name for name, p in trainable.items()}
    for path, module in scope.model.named_modules():  # a tied weight has several, and any of them chooses it
        for p in module._parameters.values():
            if id(p) in names:
                owners[names[id(p)]].append(path)
    chosen = {
        name: p
        for name, p in trainable.items()
        if any(fnmatch.fnmatchcase(owner, pattern) for owner in owners[name] for pattern in patterns)
    }
    if not chosen:
        there = ", ".join(list(dict.fromkeys(path for paths in owners.values() for path in paths))[:3])
        raise LookupError(f"no trainable parameter is in {', '.join(patterns)}: module paths are such as {there}")
    return chosen
