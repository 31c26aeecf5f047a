"""Inner products of the gradients of some samples with those of others, which are held while the first go by.

With m samples held and n gone by it takes n forwards and backwards and m more, nothing of size n × weights, and n · m products
per weight. Where the m do not fit into the memory option together, they are held in pieces, and the n go by once for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import SAMPLES, bytes_per_sample, usual_chunk
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.forms import Gradients, joined, widened
from tensorscope_nb.sweep.gradients import Reduction, gradient_sweep
from tensorscope_nb.sweep.measure import Against, Found, Want, positions_pay
from tensorscope_nb.sweep.parameters import Parameter
from tensorscope_nb.sweep.reducers import Losses, Reducer

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

ROOM = 8 * 2**20  # bytes of small tensors that go through the model at a time


@dataclass
class Across:
    """What was found of samples that went by, and of those that were held."""

    products: dict[str, Tensor]  # by module, or of all under "", (n, m)
    squares: Tensor  # ‖gᵢ‖² of those that went by (n,)
    losses: Tensor  # theirs (n,)
    held_losses: Tensor  # (m,)
    n_weights: int
    by_reference: list[str]


def across(
    scope: Scope,
    samples: Samples,
    held: Samples,
    *,
    reduction: Reduction = "mean",
    modules: str | Sequence[str] | None = None,
    chunk: int | None = None,
    by_module: bool = True,
) -> Across:
    """⟨gᵢ, hⱼ⟩ of every sample i with every held one j, module by module, or of all weights together."""
    chunk = _chunk(scope, samples) if chunk is None else chunk
    how: dict[str, Any] = {"reduction": reduction, "modules": modules, "chunk": chunk, "progress": False}
    chosen = chosen_parameters(scope, modules).values()
    weights = sum(p.nelement() * widened(p[:0] if p.ndim else p).element_size() for p in chosen)
    found: list[tuple[Passing, Held]] = []
    losses = Losses()
    covered = None
    for piece, whole in _pieces(scope, held, weights, chunk, found):
        holding = Held(whole)
        _done(gradient_sweep(scope, piece, [holding], **how))
        passing = Passing(holding, squares=not found, by_module=by_module)
        covered = _done(gradient_sweep(scope, samples, [passing, *([] if found else [losses])], **how))
        holding.kept.clear()
        passing.held.clear()
        found.append((passing, holding))
    assert covered is not None
    in_order = dict.fromkeys(p.module if by_module else "" for p in covered.parameters)
    return Across(
        {name: torch.cat([passing.products[name] for passing, _ in found], 1) for name in in_order},
        found[0][0].total,
        losses.values,
        torch.cat([each.losses.values for _, each in found]),
        sum(p.tensor.nelement() for p in covered.parameters),
        covered.by_reference,
    )


def _chunk(scope: Scope, samples: Samples) -> int:
    """Half as many sequences as go through a forward at a time, and as many small tensors as take so much memory.

    Measured: with what the backward needs of them, half as many stay nearer to the caches (.9 of the time at 128 tokens); a
    chunk costs what it costs however few samples are in it (.3 of the time where 1437 images of 64 numbers are one chunk).
    """
    usual = usual_chunk(samples, scope.anatomy)
    if samples.has_tokens:
        return max(1, usual // 2)
    return max(usual, int(min(ROOM, current().memory) // bytes_per_sample(samples, scope.anatomy)))


def _done(covered: Any) -> Any:
    """A sweep that an interrupt has ended has not the products of all: what it has is of no use here."""
    if covered.interrupted:
        raise KeyboardInterrupt
    return covered


def _pieces(
    scope: Scope, held: Samples, weights: int, chunk: int | None, found: Sequence[tuple[Passing, Held]]
) -> Iterator[tuple[Samples, bool]]:
    """As many samples at a time as can be held, and whether their gradients are made whole: that is faster where they fit."""
    room = current().memory / 2
    if len(held) * weights <= room:
        yield held, True
        return
    start, size = 0, min(len(held), chunk or usual_chunk(held, scope.anatomy))
    size = max(1, min(size, int(room // weights))) if weights <= room else 1  # the first shows what one takes
    while start < len(held):
        yield held[start : start + size], False
        start += size
        each = max(1.0, found[-1][1].each)
        if each > room:
            raise too_much("the gradients of a sample that is held and of one that goes by", 2 * each)
        size = int(room // each)


class _Here(Reducer):
    """Held gradients stay in their process: models are spread over workers, and not the samples of one."""

    def merge(self, other: Self, start: int) -> None:
        raise TypeError(f"{type(self).__name__} is of all samples")


class Held(_Here):
    """The gradients of some samples, in the form that takes the least memory (``whole``: made, but where that saves nothing)."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.losses = Losses()
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.losses.begin(n)
        self.kept: dict[str, list[Gradients]] = {}
        self.taken = 0  # bytes

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return ("each", "total")  # of what is no finite number the total is none either

    def hold(self, parameter: Parameter, gradients: Gradients) -> None:
        by_position = positions_pay(gradients, gradients.of(slice(0, min(SAMPLES, gradients.n))))
        form = gradients.whole() if self.whole and not by_position else gradients.compact()
        self.kept.setdefault(parameter.name, []).append(form)
        self.taken += form.size * form.n * form.dtype.itemsize

    @property
    def each(self) -> float:
        """Bytes of one sample, of those that are held."""
        return self.taken / self.n

    def see(self, chunk: Any, start: int) -> None:
        self.losses.see(chunk, start)


class Passing(_Here):
    """Inner products with what is held, and the squared norms."""

    def __init__(self, held: Held, squares: bool, by_module: bool) -> None:
        self.squares, self.by_module = squares, by_module
        self.held = {name: Against(joined(parts)) for name, parts in held.kept.items()}
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        self.products: dict[str, Tensor] = {}
        self.total = torch.zeros(n, dtype=torch.float64)

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return (self.held[parameter.name], *(("total",) if self.squares else ()))

    def update(self, parameter: Parameter, found: Found, start: int) -> None:
        against = self.held[parameter.name]
        module = parameter.module if self.by_module else ""
        if module not in self.products:
            self.products[module] = torch.zeros(self.n, against.held.n, dtype=torch.float64)
        one = self.products[module]
        one[start : start + len(found[against])] += found[against]
        if self.squares:
            self.total[start : start + len(found["total"])] += found["total"].cpu()
