"""The gradient sweep: per-sample gradients of every parameter, one at a time, for any number of reducers.

    gradient_sweep(scope, samples, [masses, gram])        # one forward and one backward per chunk

What a reducer wants of each parameter (masses, a sum, squares, inner products) is measured once for all that want it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import chunks, usual_chunk
from tensorscope_nb.scope.interrupts import held_interrupts, sealed
from tensorscope_nb.scope.reference import chosen_parameters, per_sample_gradients
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.capture import Chunk, Use, capture
from tensorscope_nb.sweep.check import Alone
from tensorscope_nb.sweep.faults import not_finite, too_much
from tensorscope_nb.sweep.forms import Gradients, Whole, as_matrix, widened
from tensorscope_nb.sweep.measure import measure
from tensorscope_nb.sweep.paired import PAIRED
from tensorscope_nb.sweep.pairs import Pairs
from tensorscope_nb.sweep.parameters import Parameter, parameters_of
from tensorscope_nb.sweep.progress import bar
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Coverage:
    """What a sweep went through."""

    samples: Samples  # those that are done: all, unless it was interrupted
    n_available: int
    parameters: list[Parameter]
    weights: Tensor  # what each sample's mean loss was multiplied by
    by_reference: list[str] = field(default_factory=list)  # found by one backward per sample
    n_paired: int = 0  # the first so many samples have all their inner products, where those were wanted
    each: float = 0.0  # bytes per sample that were held for them
    interrupted: bool = False
    source: Tensor | None = None  # of each unit the number of the sample it comes from; None: units are samples

    @property
    def complete(self) -> bool:
        return len(self.samples) == self.n_available

    @property
    def divisor(self) -> float:
        """What a sum over samples is divided by: their number, or that of all predicted tokens."""
        return float(self.weights.sum())

    def first(self, n: int) -> Coverage:
        """The same of the first n samples."""
        source = None if self.source is None else self.source[:n]
        return replace(self, samples=self.samples[:n], weights=self.weights[:n], source=source)


def gradient_sweep(
    scope: Scope,
    samples: Samples,
    reducers: Sequence[Reducer],
    *,
    reduction: Reduction = "mean",
    modules: str | Sequence[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
    only: Collection[str] | None = None,
    so_far: Callable[[Coverage], None] | None = None,
) -> Coverage:
    """Runs the sweep; a gradient is that of a sample's own mean loss, or of its sum over predicted tokens.

    An interrupt ends it with what is done, if anything is, and ``interrupted`` says so. ``only`` names the parameters to
    look at, of those that ``modules`` chooses. ``so_far`` is called between chunks.
    """
    check_asked(scope.model, reduction)
    parameters = [p for p in parameters_of(scope, chosen_parameters(scope, modules)) if only is None or p.name in only]
    samples = scope.rule.prepared(samples)
    terms = scope.rule.n_terms(samples).double()
    weights = terms if reduction == "sum" else torch.ones_like(terms)
    wants = {p.name: {want for r in reducers for want in r.wants(p)} for p in parameters}
    source = Source(scope, samples, [p for p in parameters if wants[p.name]], weights, reducers)
    parts = [len(part) for part in chunks(samples, scope.anatomy, source.chunk(chunk))]
    # inner products of one chunk are measured with everything else
    held = {name for name, want in wants.items() if want & PAIRED and (len(parts) > 1 or want & PAIRED != {"gram"})}
    pairs = Pairs(source, len(samples), reducers, held) if held else None
    done, n_paired, interrupted = 0, 0, False
    for reducer in reducers:
        reducer.begin(len(samples))

    def update(parameter: Parameter, gradients: Gradients) -> None:
        gradients = gradients.wide()
        wanted = wants[parameter.name]
        if pairs and parameter.name in held:
            gradients, wanted = pairs.keep(parameter, gradients), wanted - PAIRED
        found = measure(gradients, wanted - {"each"}, samples.ids[done : done + gradients.n])
        if not all(bool(value.sum().isfinite()) for value in found.values()):
            raise not_finite(parameter, gradients, samples[done : done + gradients.n])
        for reducer in reducers:
            reducer.update(parameter, found, done)
            if "each" in wanted and "each" in reducer.wants(parameter):
                reducer.hold(parameter, gradients)
            if "gram" in found and reducer.wants_pairs(parameter):
                reducer.pair(parameter, found["gram"], done, done)

    def covered() -> Coverage:
        each = pairs.each if pairs else 0.0
        paired = n_paired if pairs else done
        made = samples[:done], len(samples), parameters, weights[:done], source.by_reference, paired, each, interrupted
        return Coverage(*made)

    with bar(len(samples), "gradients", progress) as ticks:
        try:
            for size in parts:
                with held_interrupts():  # what the reducers hold is of whole chunks
                    seen = source.gradients(slice(done, done + size), update)
                    for reducer in reducers:
                        reducer.see(seen, done)
                    done += size
                    if pairs:
                        pairs.chunk_ends(size)
                ticks.update(size)
                if so_far is not None and done < len(samples):
                    so_far(covered())
            if pairs:
                n_paired = pairs.finish(done, ticks)
        except KeyboardInterrupt:
            if not done:
                raise
            n_paired = pairs.finish(done, ticks, interrupted=True) if pairs else 0
            interrupted = True
    return covered()


class Source:
    """Where per-sample gradients come from: factors where a rule knows them, else one backward per sample."""

    def __init__(
        self, scope: Scope, samples: Samples, parameters: list[Parameter], weights: Tensor, reducers: Sequence[Reducer]
    ) -> None:
        self.scope, self.samples, self.parameters, self.weights = scope, samples, parameters, weights
        sites = [site for reducer in reducers for site in reducer.needs]
        self.points = expand(sites, scope.anatomy, scope.model) if sites else {}
        self.by_reference = [p.name for p in parameters if not p.uses]
        self.by_position = any("factors" in r.wants(p) for p in parameters for r in reducers)
        self._proven: set[str] = set()

    def chunk(self, asked: int | None) -> int | None:
        """As asked, but no more samples than whose gradients, where those must be made whole, fit into the memory option."""
        each = sum(p.tensor.nbytes for p in self.parameters if p.name in self.by_reference)
        if not each:
            return asked
        if each > current().memory:
            raise too_much("the gradients of one sample", each)
        return min(asked or usual_chunk(self.samples, self.scope.anatomy), int(current().memory // each))

    def gradients(self, rows: slice, use: Use) -> Chunk:
        """One forward and one backward of some samples, in which each parameter's gradients are used once."""
        part, weights = self.samples[rows], self.weights[rows]
        factored = [p for p in self.parameters if p.name not in self.by_reference]
        unproven = [p for p in factored if p.name not in self._proven]
        alone = Alone(self.scope, part, weights, unproven) if unproven else None
        # before anything is used: where the model runs, an interrupt may come
        whole = self._by_one(part, weights, self.by_reference)
        wrong: list[str] = []

        def checked(parameter: Parameter, gradients: Gradients) -> None:
            if alone is None or alone.agrees(parameter, gradients):
                use(parameter, gradients)
            else:
                wrong.append(parameter.name)

        with preserved(self.scope.model):
            check_loss = alone.check_loss if alone else None
            seen, strange = capture(self.scope, part, factored, weights, checked, self.points, check_loss, self.by_position)
        if alone is not None:
            self._proven |= {p.name for p in unproven if not alone.says_nothing_of(p)}
        wrong += sorted(strange)
        self.by_reference += wrong
        with sealed():
            whole |= self._by_one(part, weights, wrong)
        for parameter in self.parameters:
            if parameter.name in whole:
                use(parameter, whole[parameter.name])
        return seen

    def _by_one(self, part: Samples, weights: Tensor, names: Sequence[str]) -> dict[str, Gradients]:
        if not names:
            return {}
        found = per_sample_gradients(self.scope, part, parameters=names)
        made = {}
        for p in self.parameters:
            if p.name in found:
                wide = widened(torch.stack([as_matrix(g) for g in found[p.name]]))
                made[p.name] = Gradients(p.matrix, [Whole(wide * weights.to(wide)[:, None, None])], len(part))
        return made


def check_asked(model: nn.Module, reduction: Reduction) -> None:
    """Raises where gradients of samples make no sense: for this reduction, in this mode of torch, or of this model."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: choose 'mean' or 'sum' over the predicted tokens of a sample")
    if torch.is_inference_mode_enabled():
        raise ValueError("gradients inside torch.inference_mode(): leave that mode first")
    _refuse_mixing(model)


def _refuse_mixing(model: nn.Module) -> None:
    """In evaluation mode no layer here mixes samples; a BatchNorm without running statistics still does."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UnsupportedModel(
                f"{name} normalises over the batch also in evaluation: a sample has no gradient of its own there"
            )
