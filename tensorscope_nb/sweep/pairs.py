"""Inner products of all pairs of samples, and whatever else takes the gradients of all of them.

The gradients of a chunk are kept, in the form that takes the least memory, until all are there. Where that is more than the
memory option allows, the samples are gone through in pieces: each piece is held, and those before it are run again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tensorscope_nb.scope.interrupts import held_interrupts
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import not_finite, too_much
from tensorscope_nb.sweep.forms import Gradients, joined
from tensorscope_nb.sweep.paired import Part, Place, part_by_part, products
from tensorscope_nb.sweep.parameters import Parameter
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.sweep.gradients import Source

Held = dict[str, list[Gradients]]


def passes(each: float, n: int) -> float:
    """How often the samples are gone through, where one takes so many bytes."""
    if not each or each * n <= current().memory:
        return 1.0
    pieces = -(-n // max(1, int(current().memory / each / 2)))
    return 1 + (pieces + 1) / 2


class Pairs:
    """Holds what pairs are made of, and gives each reducer what it wants of all pairs."""

    def __init__(self, source: Source, n: int, reducers: Sequence[Reducer], names: Collection[str]) -> None:
        self.source, self.n, self.reducers = source, n, reducers
        self.wanted = {p.name: p for p in source.parameters if p.name in names}
        self.apart = {name for name, p in self.wanted.items() if any("factors" in r.wants(p) for r in reducers)}
        self.held: Held = {}
        self.each = 0.0  # bytes per sample
        self.fits = True
        self.finished = 0  # samples whose pairs are known, where they are gone through in pieces

    def keep(self, parameter: Parameter, gradients: Gradients) -> Gradients:
        compact = gradients if parameter.name in self.apart else gradients.compact()
        if self.fits:
            self.held.setdefault(parameter.name, []).append(compact)
        return compact

    def chunk_ends(self, size: int) -> None:
        """Once the first chunk has shown what a sample takes: all, or piece by piece later."""
        if not self.each:
            self.each = sum(g.size * g.dtype.itemsize for kept in self.held.values() for g in kept)
            if self.each > current().memory / 2:
                raise too_much("the gradients of two samples", 2 * self.each)
            self.fits = self.each * self.n <= current().memory
        if not self.fits:
            self.held = {}

    def finish(self, done: int, ticks: Any, *, interrupted: bool = False) -> int:
        """All pairs of the first ``done`` samples; returns of how many, fewer where an interrupt ends it."""
        if self.fits:
            with held_interrupts():
                for name in list(self.held):  # what is given is held no more: it may be called again
                    whole = joined(self.held.pop(name))
                    self._give(self.wanted[name], whole, whole, 0, 0)
            return done
        if interrupted:  # the samples would have to be gone through once more
            return self.finished
        size = int(current().memory / self.each / 2)
        starts = range(0, done, size)
        ticks.total += sum(min(start + size, done) for start in starts)
        for start in starts:
            self._piece(start, range(0, start, size), size, done, ticks)
            self.finished = min(start + size, done)
        return done

    def _piece(self, start: int, before: Sequence[int], size: int, done: int, ticks: Any) -> None:
        """The pairs of a piece with itself and with each of those before it."""
        piece = self._run(start, min(start + size, done))
        self._cross(piece, piece, start, start)
        ticks.update(min(size, done - start))
        for earlier in before:
            self._cross(piece, self._run(earlier, earlier + size), start, earlier)
            ticks.update(size)

    def _run(self, start: int, stop: int) -> dict[str, Gradients]:
        found: dict[str, Gradients] = {}

        def use(parameter: Parameter, gradients: Gradients) -> None:
            if parameter.name in self.wanted:
                gradients = gradients.wide()
                found[parameter.name] = gradients if parameter.name in self.apart else gradients.compact()

        with held_interrupts():
            self.source.gradients(slice(start, stop), use)
        return found

    def _cross(self, piece: dict[str, Gradients], other: dict[str, Gradients], i: int, j: int) -> None:
        for name, gradients in piece.items():
            self._give(self.wanted[name], gradients, other[name], i, j)

    def _give(self, parameter: Parameter, a: Gradients, b: Gradients, i: int, j: int) -> None:
        wants = {reducer: set(reducer.wants(parameter)) for reducer in self.reducers}
        by_parts: dict[tuple, list[Reducer]] = {}
        for reducer in self.reducers:
            if "parts" in wants[reducer]:
                by_parts.setdefault(tuple(reducer.parts(parameter)), []).append(reducer)
        found: Tensor | None = None
        for parts, takers in by_parts.items():
            take = [partial(_take, reducer, parameter, i, j) for reducer in takers]
            found = part_by_part(a, b, parts, take)
        if found is None and any("gram" in each for each in wants.values()):
            found = products(a, b)
        if found is not None and not bool(found.sum().isfinite()):
            raise not_finite(parameter, a, self.source.samples[i : i + a.n])
        for reducer in self.reducers:
            if "gram" in wants[reducer] and found is not None:
                reducer.pair(parameter, found, i, j)
            if "factors" in wants[reducer]:
                reducer.cross(parameter, a, b, i, j)


def _take(reducer: Reducer, parameter: Parameter, i: int, j: int, part: Part, place: Place, one: Tensor, other: Tensor) -> None:
    reducer.take(parameter, part, place, one, other, i, j)
