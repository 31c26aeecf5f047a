"""The gradient sweep: per-sample gradients of every parameter, a tile at a time, for any number of reducers.

    gradient_sweep(scope, samples, [masses, gram])        # one forward and one backward per chunk

A tile G (n, rows, …) holds the gradients of n samples for some rows of one parameter; it is used and dropped. Additive
reducers get the tiles of each chunk; pairwise ones (a Gram matrix) the tiles of all samples together, for which the
factors of all chunks are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import chunks, output_of
from tensorscope_nb.scope.reference import chosen_parameters, per_sample_gradients
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.factors import Captured, Parameter, capture, parameters_of
from tensorscope_nb.sweep.sweep import bar

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

TILE_BYTES = 16 * 2**20
Reduction = Literal["mean", "sum"]
CHECKED = 2  # samples of the self-check: what it looks for does not depend on which
AGREES = 1e-3  # of the self-check, relative to the largest gradient of the parameter


class GradientReducer(Protocol):
    """What a recipe keeps of the gradients."""

    pairwise: bool  # wants the tiles of all samples at once

    def tile(self, parameter: Parameter, rows: slice, gradients: Tensor, start: int) -> None:
        """``gradients`` (n, rows, …) of the samples from number ``start`` on."""
        ...


@dataclass
class Coverage:
    """How the gradients were found: by factors, or (named) by one backward per sample."""

    parameters: list[Parameter]
    divisor: float  # what a sum over samples is divided by: their number, or that of all predicted tokens
    by_reference: list[str] = field(default_factory=list)
    losses: Tensor | None = None


def gradient_sweep(
    scope: Scope,
    samples: Samples,
    reducers: Sequence[GradientReducer],
    *,
    reduction: Reduction = "mean",
    modules: str | Sequence[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
    label: str = "gradients",
) -> Coverage:
    """Runs the sweep; a gradient is that of a sample's own mean loss, or of its sum over predicted tokens."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: choose 'mean' or 'sum' over the predicted tokens of a sample")
    _refuse_mixing(scope.model)
    samples = scope.rule.prepared(samples)
    terms = scope.rule.n_terms(samples).double()
    weights = terms if reduction == "sum" else torch.ones_like(terms)
    parameters = parameters_of(scope, chosen_parameters(scope, modules))
    parts = list(chunks(samples, scope.anatomy, chunk))
    covered = Coverage(parameters, float(weights.sum()), [p.name for p in parameters if not p.uses])
    with preserved(scope.model):
        covered.by_reference += _disagreeing(scope, parts[0][:CHECKED], [p for p in parameters if p.uses], weights[:CHECKED])
    factored = [p for p in parameters if p.name not in covered.by_reference]
    additive, pairwise = [r for r in reducers if not r.pairwise], [r for r in reducers if r.pairwise]
    kept: list[Captured] = []
    losses, start = [], 0
    with bar(len(parts), label, progress) as done:
        for part in parts:
            with preserved(scope.model):
                captured = capture(scope, part, factored, weights[start : start + len(part)])
            losses.append(captured.losses)
            _give(additive, factored, [captured], start)
            if pairwise:
                kept.append(captured)
                _check_room(captured, len(part), len(samples))
            start += len(part)
            done.update()
    _give(pairwise, factored, kept, 0)
    if covered.by_reference:
        _give_reference(scope, samples, reducers, [p for p in parameters if p.name in covered.by_reference], weights)
    covered.losses = torch.cat(losses)
    return covered


def _give(reducers: Sequence[GradientReducer], parameters: Sequence[Parameter], captured: Sequence[Captured], start: int) -> None:
    if not reducers:
        return
    n = sum(len(c.losses) for c in captured)
    for parameter in parameters:
        for rows in _tiles(parameter.tensor, n):
            gradients = torch.cat([c.rows(parameter, rows) for c in captured])
            for reducer in reducers:
                reducer.tile(parameter, rows, gradients, start)


def _tiles(tensor: Tensor, n: int) -> Iterator[slice]:
    """Rows of a parameter such that the gradients of n samples for them fit into a tile."""
    per_row = max(1, tensor[0].nelement()) * tensor.element_size() * n
    step = max(1, TILE_BYTES // per_row)
    for a in range(0, len(tensor), step):
        yield slice(a, min(a + step, len(tensor)))


def _give_reference(
    scope: Scope, samples: Samples, reducers: Sequence[GradientReducer], parameters: Sequence[Parameter], weights: Tensor
) -> None:
    """Parameters that no rule covers, one backward per sample."""
    names = [p.name for p in parameters]
    found = per_sample_gradients(scope, samples, parameters=names)
    for parameter in parameters:
        whole = slice(0, len(parameter.tensor))
        for reducer in reducers:
            gradients = found[parameter.name]
            scale = weights.to(gradients).reshape(-1, *[1] * (gradients.ndim - 1))
            reducer.tile(parameter, whole, gradients * scale, 0)


def _disagreeing(scope: Scope, part: Samples, parameters: Sequence[Parameter], weights: Tensor) -> list[str]:
    """The parameters whose per-sample gradients do not add up to their ordinary gradient: a use that no rule saw."""
    captured = capture(scope, part, parameters, weights)
    with torch.enable_grad():
        losses = scope.rule.per_sample(output_of(scope.model, part, scope.anatomy), part)
        total = (losses * weights.to(losses)).sum()
        expected = torch.autograd.grad(total, [p.tensor for p in parameters], allow_unused=True) if parameters else ()
    largest = max((float(g.abs().max()) for g in expected if g is not None), default=0.0)
    wrong = []
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is None:
            wrong.append(parameter.name)
            continue
        if not any(captured.calls.get(path) for path, _, _ in parameter.uses):
            wrong.append(parameter.name)
            continue
        sums = torch.cat([captured.rows(parameter, rows).sum(0) for rows in _tiles(parameter.tensor, len(part))])
        # a gradient that is zero by symmetry (a key's bias) is rounding noise on the scale of the others
        if float((sums - gradient).abs().max()) > max(AGREES * float(gradient.abs().max()), 1e-5 * largest):
            wrong.append(parameter.name)
    return wrong


def _refuse_mixing(model: nn.Module) -> None:
    """In evaluation mode no layer here mixes samples; a BatchNorm without running statistics still does."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UnsupportedModel(
                f"{name} normalises over the batch also in evaluation: a sample has no gradient of its own there"
            )


def _check_room(captured: Captured, n: int, total: int) -> None:
    held = sum(f.x.nbytes + f.delta.nbytes for calls in captured.calls.values() for f in calls)
    if held * total // n > 4 * current().memory:
        raise ValueError(
            f"the factors of {total} samples take {held * total / n / 2**30:.1f} GiB, more than 4 times the memory option "
            f"({current().memory / 2**30:.1f} GiB): ask for fewer samples or modules=, or raise ts.options(memory=…)"
        )
