"""Extreme eigenpairs of a large symmetric operator that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensorscope_nb.numerics.krylov import ROUNDING, Array, Basis
from tensorscope_nb.numerics.missed import Check

SPARE = 8  # vectors beside the k wanted ones, below which restarts undo most of what a product gains
CHEAP = 32  # done vectors beyond which the projected problem, m³, is solved only every few products


@dataclass(frozen=True)
class Pairs:
    """Ritz values, descending; ‖A v − θ v‖ of each; and whether that is within the tolerance."""

    values: Array
    residuals: Array
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class End:
    """The outermost Ritz value seen: at this end A has an eigenvalue there or further out, up to ``Lanczos.rounding``."""

    value: float
    residual: float


class Lanczos:
    """The k extreme eigenpairs of a symmetric operator, from products with it, one product at a time.

    Thick-restart Lanczos with full orthogonalisation (Wu and Simon 2000). ``which``: the k largest values (LA), the smallest
    (SA), the largest by magnitude (LM), or half from each end, the odd one from the top (BE). A pair is converged when
    ‖A v − θ v‖ ≤ tolerance · max |θ|; all residuals come from the projected problem, without a further product.

    One start vector never sees the second copy of a repeated eigenvalue: its products have one direction in each eigenspace.
    So once the wanted pairs are converged, and no other Ritz value may be one of them by its residual, fresh random vectors are
    multiplied until an eigenvalue that was missed would have shown, see ``missed``. If one does show, all that is repeated.

    >>> diagonal = torch.tensor([3.0, 3.0, 1.0, 0.0])
    >>> lanczos = Lanczos(lambda v: diagonal * v, 4, 2, basis=4, most_products=20, seed=0)
    >>> for _ in lanczos.steps(): pass
    >>> lanczos.pairs().values.round(4), lanczos.n_products
    (array([3., 3.]), 4)
    """

    def __init__(
        self,
        multiply: Callable[[Tensor], Tensor],
        size: int,
        k: int,
        *,
        which: Literal["LA", "SA", "LM", "BE"] = "LA",
        tolerance: float = 1e-4,
        basis: int,
        most_products: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        if which not in ("LA", "SA", "LM", "BE"):
            raise ValueError(f"which is {which!r}: give LA, SA, LM or BE")
        if not 1 <= k <= size:
            raise ValueError(f"k is {k}, the operator has size {size}: give k from 1 to {size}")
        if basis < min(size, k + SPARE):
            raise ValueError(f"basis is {basis}: {k} pairs of an operator of size {size} need {min(size, k + SPARE)} vectors")
        least = ROUNDING * torch.finfo(dtype).eps
        if not tolerance >= least:
            raise ValueError(f"tolerance is {tolerance}: {dtype} resolves no less than {least:.1g} of the largest eigenvalue")
        self.multiply, self.k, self.which, self.tolerance, self.most_products = multiply, k, which, tolerance, most_products
        # Each product needs a row, and so does each random vector: rows beyond that would never be used.
        capacity = min(basis, size, max(2 * most_products, k + SPARE))
        self.basis = Basis(size, capacity, seed, dtype, device)
        self.n_products, self.finished = 0, False
        self.lowest, self.highest = End(np.inf, np.inf), End(-np.inf, np.inf)
        self._check: Check | None = None
        self._checked: Array = np.full(k, np.inf)  # the wanted values at the last check
        self._tried = False  # whether a check has begun with these values
        self._due = 0  # vectors to multiply before it
        self._scale = 0.0  # the largest |θ| seen
        self._solution: tuple[Array, Array, Array] | None = None

    def steps(self) -> Iterator[None]:
        """One product per step, until all pairs are converged and checked, or ``most_products`` are spent.

        When a product fails, what came before it can still be read, and further ``steps`` go on from there.
        """
        while not self.finished and self.n_products < self.most_products:
            if not self.basis.waiting:  # an invariant subspace: the rest of the operator is decoupled from it
                self._make_room()
                self.basis.add_random()
            i = self._next()
            product = self.multiply(self.basis.rows[i])
            self.n_products += 1
            goes_on = self.basis.absorb(i, product)
            self._solution = None
            if self._check is not None and goes_on:
                self._check.follow(self.basis, i)
            self._judge(goes_on)
            if self.basis.full:
                self._restart()
            yield

    def pairs(self) -> Pairs:
        """The wanted pairs as they are known so far, at most k."""
        if not self.basis.done:
            return Pairs(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool))
        values, residuals, _ = self._solve()
        wanted = self._outermost(values, self.k)
        bounds = np.maximum(residuals[wanted], self.basis.asymmetry)  # no product is known better than that
        return Pairs(values[wanted], bounds, bounds <= self.tolerance * self._scale)

    def vectors(self) -> Tensor:
        """The Ritz vectors of ``pairs``, (k, size): rows of the basis, turned in place; the next step may overwrite them."""
        if not self.basis.done:
            return self.basis.rows[:0]
        values = self._solve()[0]
        wanted = self._outermost(values, self.k)
        others = [] if self.finished else sorted(set(range(len(values))) - set(wanted))
        self._keep([*wanted, *others])
        return self.basis.rows[: len(wanted)]

    @property
    def rounding(self) -> float:
        """How far off the rounding of the basis leaves any value or residual; what the products round comes on top."""
        return ROUNDING * self.basis.eps * self._scale

    def _judge(self, goes_on: bool) -> None:
        """Whether all is done, or a check is due, or over."""
        m = len(self.basis.done)
        if m == self.basis.size:
            self._solve()
            self.finished = True
        elif 4 * m >= 3 * self.basis.size and self.basis.size == self.basis.capacity:
            return  # so little is left that all of it is taken: no random vector can say much of so few dimensions
        elif m >= self.k and (self._check is not None or m % (1 + m // CHEAP) == 0):
            pairs = self.pairs()
            changed = not np.allclose(self._checked, pairs.values, rtol=0, atol=self.tolerance * self._scale)
            if self._check is not None and not changed and goes_on and not self._check.passed:
                return
            self._check = None
            if self._open():
                return
            if changed:
                self._checked, self._tried, self._due = pairs.values, False, len(self._hanging())
            if self._due and self._hanging():
                return
            if self._tried:
                self.finished = True
            elif self.basis.used < self.basis.size:
                self._tried = True
                self._make_room()
                self._check = Check(self.basis, self._limits())

    def _hanging(self) -> list[int]:
        """Waiting vectors that hang on the others by less than the tolerance, the loosest first.

        Nothing says what the operator does with them: an eigenvector that was missed may be one, and a random vector, which is
        orthogonal to all of the basis, would not show it.
        """
        held = np.linalg.norm(self.basis.projected[np.ix_(self.basis.waiting, self.basis.done)], axis=1)
        loose = held <= self.tolerance * self._scale
        return [self.basis.waiting[i] for i in np.argsort(held, kind="stable") if loose[i]]

    def _open(self) -> list[int]:
        """The wanted pairs that are not converged, and others that would be wanted if they were off by their residual."""
        values, residuals, _ = self._solve()
        wanted, tolerance = self._outermost(values, self.k), self.tolerance * self._scale
        reach = np.maximum(residuals - tolerance, 0)
        reach[wanted] = 0
        reaching = {i for sign in (1, -1) for i in self._outermost(values + sign * reach, self.k)} - set(wanted)
        return [*(i for i in wanted if residuals[i] > tolerance), *sorted(reaching)]

    def _limits(self) -> Array:
        """Beyond which an eigenvalue that was missed would be among the wanted ones."""
        margin = self.tolerance * self._scale
        if self.which == "LM":
            least = np.abs(self._checked).min() + margin
            return np.array([least, -least])
        top = self._top(self.k)
        return np.array([*(self._checked[:top][-1:] + margin), *(self._checked[top:][:1] - margin)])

    def _next(self) -> int:
        """Which vector to multiply: a fresh random one and its successors, or else what the open pairs lack most."""
        waiting = self.basis.waiting
        if self._check is None and self._due and (hanging := self._hanging()):
            self._due -= 1
            return hanging[0]
        if len(waiting) == 1 or self._check is not None:
            return waiting[-1]
        values, _, mix = self._solve()
        couplings = self.basis.couplings(mix[:, self._open() or self._outermost(values, self.k)])[: len(waiting)]
        return waiting[int(np.linalg.norm(couplings, axis=1).argmax())]

    def _make_room(self) -> None:
        """For a random vector."""
        if self.basis.used >= self.basis.capacity:
            self._restart()

    def _restart(self) -> None:
        """Keep the wanted Ritz vectors and half as many more as there is room for, so that the next ones are not lost."""
        waiting, k = self.basis.waiting, self.k
        values, _, mix = self._solve()
        forget: list[int] = []
        if k + len(waiting) > self.basis.capacity - SPARE // 2:
            # Each repeated eigenvalue that a check has found leaves a chain of its own.
            couplings = self.basis.couplings(mix[:, self._outermost(values, k)])[: len(waiting) - 1]
            forget = [waiting[int(np.linalg.norm(couplings, axis=1).argmin())]]
        room = self.basis.capacity - len(waiting) + len(forget) - k
        self._keep(self._outermost(values, k + room // 2), forget)

    def _keep(self, which: list[int], forget: Sequence[int] = ()) -> None:
        values, residuals, mix = self._solve()
        if self._check is not None:
            self._check.turn(self.basis, mix[:, which], forget)
        self.basis.compress(mix[:, which], values[which], forget)
        self._solution = values[which], residuals[which], np.eye(len(which))

    def _solve(self) -> tuple[Array, Array, Array]:
        """Ritz values, their residuals, and their vectors in the basis as columns."""
        if self._solution is None:
            values, mix = self.basis.ritz()
            self._scale = max(self._scale, float(np.abs(values).max()))
            residuals = np.maximum(np.linalg.norm(self.basis.couplings(mix), axis=0), self.rounding)
            if values[0] < self.lowest.value:
                self.lowest = End(float(values[0]), float(residuals[0]))
            if values[-1] > self.highest.value:
                self.highest = End(float(values[-1]), float(residuals[-1]))
            self._solution = values, residuals, mix
        return self._solution

    def _outermost(self, values: Array, n: int) -> list[int]:
        """Which n values, or all if they are fewer, are outermost by ``which``; in descending order."""
        order, n = np.argsort(-values, kind="stable"), min(n, len(values))
        if self.which == "LM":
            chosen = np.sort(np.argsort(-np.abs(values[order]), kind="stable")[:n])
            return [int(i) for i in order[chosen]]
        top = self._top(n)
        return [int(i) for i in [*order[:top], *order[len(order) - (n - top) :]]]

    def _top(self, n: int) -> int:
        """How many of n values come from the top."""
        return {"LA": n, "SA": 0}.get(self.which, n - n // 2)


def basis_for(size: int, k: int, memory: float, itemsize: int) -> int:
    """How many vectors of ``size`` entries the memory holds, when they are enough for k pairs.

    >>> basis_for(124_000_000, 8, 8 * 2**30, itemsize=4)
    17
    """
    if not 1 <= k <= size:
        raise ValueError(f"k is {k}, the operator has size {size}: give k from 1 to {size}")
    rows, needed = int(memory // (size * itemsize)), min(size, k + SPARE)
    if rows >= needed:
        return min(rows, size)
    size_needed = needed * size * itemsize
    fits = f", which holds k={rows - SPARE}" if rows > SPARE else ""
    raise ValueError(
        f"k={k} of {size:,} weights takes a basis of {needed} vectors, {size_needed / 2**30:.2g} GiB, and the memory option "
        f"allows {memory / 2**30:.2g} GiB{fits}: use ts.options(memory={size_needed}), or fewer weights with layer= or modules="
    )
