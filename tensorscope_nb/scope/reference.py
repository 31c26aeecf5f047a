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
from tensorscope_nb.scope.nearest import nearest
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
    """The trainable parameters of the modules whose paths match, or whose own names do; all where nothing is asked.

    A tied weight has several names, and any of them chooses it. Each pattern must name something that is there.
    """
    trainable = {name: p for name, p in scope.model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("all parameters are frozen: set requires_grad on those whose gradients you want")
    if modules is None:
        return trainable
    patterns = [modules] if isinstance(modules, str) else modules
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"modules is {modules!r}: give a module path, a glob such as '*.mlp.*', or a list of them")
    chosen = {name for pattern in patterns for name in parameters_at(scope.model, pattern)}
    if not chosen:
        raise LookupError(f"{patterns[0]!r} has no weights itself: for those of the modules in it give '{patterns[0]}.*'")
    found = {name: p for name, p in trainable.items() if name in chosen}
    if not found:
        raise LookupError(f"no trainable parameter is in {', '.join(patterns)}: set requires_grad there, or choose other modules")
    return found


def parameters_at(model: torch.nn.Module, pattern: str) -> set[str]:
    """The names of the parameters of the modules whose paths match a glob, or, where none does, whose own names do."""
    own = {id(p): name for name, p in model.named_parameters()}
    every = {name: own[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    found = {known for name, known in every.items() if fnmatch.fnmatchcase(name.rpartition(".")[0], pattern)}
    found = found or {known for name, known in every.items() if fnmatch.fnmatchcase(name, pattern)}
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    if not found and not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
        raise LookupError(f"there is no module or parameter {pattern!r}: {nearest(pattern, [*paths, *every])}")
    return found
