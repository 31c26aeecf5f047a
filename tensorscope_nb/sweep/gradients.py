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
    covered.by_reference += _disagreeing(scope, samples, [p for p in parameters if p.uses])
    factored = [p for p in parameters if p.name not in covered.by_reference]
    additive, pairwise = [r for r in reducers if not r.pairwise], [r for r in reducers if r.pairwise]
    kept: list[Captured] = []
    start = 0
    with bar(len(parts), label, progress) as done:
        for part in parts:
            with preserved(scope.model):
                captured = capture(scope, part, factored, weights[start : start + len(part)])
            _give(additive, factored, [captured], start)
            if pairwise:
                kept.append(captured)
                _check_room(captured, len(part), len(samples))
            start += len(part)
            done.update()
    _give(pairwise, factored, kept, 0)
    if covered.by_reference:
        _give_reference(scope, samples, reducers, [p for p in parameters if p.name in covered.by_reference], weights)
    return covered


def _give(reducers: Sequence[GradientReducer], parameters: Sequence[Parameter], captured: Sequence[Captured], start: int) -> None:
    if not reducers:
        return
    n = sum(len(c.losses) for c in captured)
    for parameter in parameters:
        for rows in _tiles(parameter.tensor, n):
            gradients = _wide(torch.cat([c.rows(parameter, rows) for c in captured]))
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
    at_once = [reducer for reducer in reducers if reducer.pairwise]
    size = sum(p.tensor.nelement() for p in parameters) * 4
    if at_once:
        _check_bytes(size, len(samples), "gradients")
    step = len(samples) if at_once else max(1, min(len(samples), current().memory // size))
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        found = per_sample_gradients(scope, part, parameters=[p.name for p in parameters])
        for parameter in parameters:
            gradients = _wide(found[parameter.name])
            scale = weights[start : start + step].to(gradients).reshape(-1, *[1] * (gradients.ndim - 1))
            for reducer in reducers:
                reducer.tile(parameter, slice(0, len(parameter.tensor) if parameter.tensor.ndim else 1), gradients * scale, start)


def _wide(gradients: Tensor) -> Tensor:
    """Squares and products of half-precision gradients underflow."""
    return gradients.float() if gradients.dtype in (torch.float16, torch.bfloat16) else gradients


def _disagreeing(scope: Scope, samples: Samples, parameters: Sequence[Parameter]) -> list[str]:
    """The parameters whose factors do not give the gradient that a few samples have when they are run one by one.

    It finds a use of a weight that no rule sees, and an axis that only looks like samples. A model in which one sample's
    loss depends on the others has no per-sample gradients: that is an error.
    """
    few = samples[sorted({0, len(samples) // 2, len(samples) - 1})]
    captured = capture(scope, few, parameters, torch.ones(len(few)))
    with torch.no_grad():
        alone = torch.cat([scope.rule.per_sample(output_of(scope.model, few[i], scope.anatomy), few[i]) for i in range(len(few))])
    agrees = max(AGREES, 8 * torch.finfo(captured.losses.dtype).eps, 8 * torch.finfo(next(scope.model.parameters()).dtype).eps)
    if not torch.allclose(alone, captured.losses, rtol=agrees, atol=1e-6):
        raise UnsupportedModel("the loss of a sample changes with the samples beside it: it has no gradient of its own")
    expected = per_sample_gradients(scope, few, parameters=[p.name for p in parameters]) if parameters else {}
    wrong = []
    for parameter in parameters:
        calls = [call for path, _, _ in parameter.uses for call in captured.calls.get(path, ())]
        found = torch.cat([captured.rows(parameter, rows) for rows in _tiles(parameter.tensor, len(few))], 1) if calls else None
        reference = expected[parameter.name]
        if found is None or found.shape != reference.shape:
            wrong.append(parameter.name)
            continue
        # a gradient that is zero by symmetry (a key's bias) is rounding noise on the scale of what it is summed from
        noise = 1e-6 * sum(_largest(call.x) * float(call.delta.abs().max()) * call.delta[0].numel() ** 0.5 for call in calls)
        if float((found - reference).abs().max()) > max(agrees * float(reference.abs().max()), noise):
            wrong.append(parameter.name)
    return wrong


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.is_floating_point() else 1.0


def _refuse_mixing(model: nn.Module) -> None:
    """In evaluation mode no layer here mixes samples; a BatchNorm without running statistics still does."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UnsupportedModel(
                f"{name} normalises over the batch also in evaluation: a sample has no gradient of its own there"
            )


def _check_room(captured: Captured, n: int, total: int) -> None:
    held = sum(f.x.nbytes + f.delta.nbytes for calls in captured.calls.values() for f in calls)
    _check_bytes(held / n, total, "factors")


def _check_bytes(each: float, total: int, what: str) -> None:
    if each * total > 4 * current().memory:
        raise ValueError(
            f"the {what} of {total} samples take {each * total / 2**30:.1f} GiB, more than 4 times the memory option "
            f"({current().memory / 2**30:.1f} GiB): ask for fewer samples or modules=, or raise ts.options(memory=…)"
        )
