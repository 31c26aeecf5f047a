"""An orthonormal basis that grows by products with a symmetric operator, and the operator projected onto it.

What Lanczos (eigenpairs) and Lanczos quadrature (density) share. With vⱼ the vectors of the basis and r what is left over,

    A vᵢ = Σⱼ Tⱼᵢ vⱼ + β r,    Tⱼᵢ = ⟨vⱼ, A vᵢ⟩.

The orthogonalisation computes every Tⱼᵢ anyway. So nothing here takes T to be tridiagonal: the couplings of a restarted basis,
those of a second start vector and what rounding leaves come in alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

BLOCK = 1 << 17  # entries of a vector taken at once, so that sums in float32 stay short
COPIED = 1 << 20  # entries of the basis copied at once to compress it in place
ASYMMETRY = 1e-2  # of ‖A v‖: no rounding of products comes near it
# Roundings of ‖A‖ within which a rest is no direction of its own: the basis spans an invariant subspace. Thousands of products
# with restarts leave true residuals of up to 4 in float32, and up to 50 in float64, where the projected problem rounds too.
ROUNDING = 40


class Basis:
    """Orthonormal vectors, of which some are multiplied (``done``) and others, the newest last, are not yet (``waiting``).

    The newest may have no row yet (``full``): it is kept beside the rows until ``compress`` makes room, so that a row is never
    idle. Beside the rows this holds at most two vectors at a time, a product and what is left of one.
    """

    def __init__(self, size: int, capacity: int, seed: int, dtype: torch.dtype, device: str | torch.device) -> None:
        self.size, self.capacity = size, capacity
        self.rows = torch.empty(capacity, size, dtype=dtype, device=device)
        self.generator = torch.Generator().manual_seed(seed)
        self.eps = float(torch.finfo(dtype).eps)
        self.clear()

    def clear(self) -> None:
        """Without vectors; the random numbers go on."""
        self.done: list[int] = []
        self.waiting: list[int] = []
        self.projected: Array = np.zeros((self.capacity + 1, self.capacity + 1))
        self.forgotten: Array = np.zeros((0, self.capacity + 1))  # couplings of done vectors to vectors that are gone
        self.length = 0.0  # the largest ‖A vᵢ‖, at most ‖A‖
        self.asymmetry = 0.0  # the largest |⟨vⱼ, A vᵢ⟩ − ⟨vᵢ, A vⱼ⟩|: rounding of the products, or an operator that is off

    @property
    def used(self) -> int:
        return len(self.done) + len(self.waiting)

    @property
    def full(self) -> bool:
        return self.used > self.capacity

    def absorb(self, i: int, product: Tensor) -> bool:
        """Take in A vᵢ: its coefficients, and what is left of it as a vector that waits; False where that is rounding alone."""
        if product.shape != (self.size,):
            raise ValueError(f"a product has the shape {tuple(product.shape)}: give one vector of {self.size} entries")
        rest = product.detach().to(self.rows, copy=True)
        length = self._norm(rest)
        if not np.isfinite(length):
            raise ValueError("a product with the operator is not finite: look for overflow or NaN in what it is made of")
        self.length, n = max(self.length, length), self.used
        coefficients, beta = self._orthogonalise(rest)
        self._check_symmetry(i, coefficients)
        self.projected[:n, i] = self.projected[i, :n] = coefficients
        self.waiting.remove(i)
        self.done.append(i)
        if beta <= ROUNDING * self.eps * self.length or n == self.size:
            return False
        self._append(rest, beta)
        self.projected[n, i] = self.projected[i, n] = beta
        return True

    def _check_symmetry(self, i: int, coefficients: Array) -> None:
        """⟨vⱼ, A vᵢ⟩ was computed once already, as ⟨vᵢ, A vⱼ⟩, for each vⱼ that is done: where the two part, A has no such T.

        Of a direction that is gone and comes back with vᵢ no more is known than how far A vⱼ reaches into those that are gone.
        """
        differences = np.abs(coefficients[self.done] - self.projected[i, self.done])
        apart = (differences - np.linalg.norm(self.forgotten[:, self.done], axis=0)).max(initial=0.0)
        self.asymmetry = max(self.asymmetry, float(apart))
        if apart > ASYMMETRY * self.length:
            raise ValueError(
                f"the operator is not symmetric: ⟨u, A v⟩ and ⟨v, A u⟩ differ by {apart / self.length:.1g} of ‖A v‖; a "
                "derivative that it is made of is wrong"
            )

    def add_random(self) -> None:
        """A random vector orthogonal to all that are here, to be multiplied next."""
        share = 0.0
        while share <= 25 * ROUNDING * self.eps:  # a vector of the span, by bad luck
            start = torch.randn(self.size, generator=self.generator, dtype=self.rows.dtype).to(self.rows.device)
            start /= self._norm(start)
            share = self._orthogonalise(start)[1]
        self._append(start, share)

    def ritz(self) -> tuple[Array, Array]:
        """Eigenvalues of A on the span of the done vectors, ascending, and their eigenvectors in it as columns."""
        values, mix = np.linalg.eigh(self.projected[np.ix_(self.done, self.done)])
        return values, mix

    def couplings(self, mix: Array) -> Array:
        """A V mix − V (VᵀAV) mix on the directions outside of the span V, in rows: first those that wait, then those gone."""
        return np.concatenate([self.projected[self.waiting], self.forgotten])[:, self.done] @ mix

    def compress(self, mix: Array, values: Array, forget: Sequence[int] = ()) -> None:
        """Of the done vectors keep Ritz vectors alone, the thick restart of Wu and Simon (2000); ``forget`` some that wait.

        What the kept ones lose with a forgotten direction stays in their residuals.
        """
        lost = np.concatenate([self.forgotten, self.projected[list(forget)]])[:, self.done] @ mix
        self.waiting = [i for i in self.waiting if i not in forget]
        couplings, kept = self.projected[np.ix_(self.waiting, self.done)] @ mix, mix.shape[1]
        stored = [i for i in self.waiting if i < self.capacity]
        turn = torch.as_tensor(mix.T.copy()).to(self.rows)
        for columns in self._blocks(COPIED // self.capacity + 1):
            block = self.rows[:, columns]
            block[: kept + len(stored)] = torch.cat([turn @ block[self.done], block[stored]])
        if len(stored) < len(self.waiting):
            self.rows[kept + len(stored)] = self.beside
        self.done = list(range(kept))
        self.waiting = list(range(kept, kept + len(self.waiting)))
        self.projected[:] = 0
        self.projected[self.done, self.done] = values
        self.projected[np.ix_(self.waiting, self.done)] = couplings
        self.projected[np.ix_(self.done, self.waiting)] = couplings.T
        self.forgotten = np.pad(lost, ((0, 0), (0, self.capacity + 1 - kept)))

    def _append(self, vector: Tensor, length: float) -> None:
        vector /= length
        n = self.used
        if n < self.capacity:
            self.rows[n] = vector
        else:
            self.beside = vector
        self.projected[n] = self.projected[:, n] = 0
        self.waiting.append(n)

    def _orthogonalise(self, vector: Tensor) -> tuple[Array, float]:
        """Take the basis out of a vector, in place: the coefficients, and the length of the rest.

        Gram–Schmidt against all vectors, twice, which is enough (Parlett 1980, Giraud et al. 2005). A window of the last few
        vectors, or one pass, lets the eigenvectors that have converged come back as copies.
        """
        n, total = self.used, np.zeros(self.used)
        for _ in range(2):
            coefficients = self._sum([self.rows[:n, columns] @ vector[columns] for columns in self._blocks(BLOCK)])
            subtract = torch.as_tensor(coefficients).to(self.rows)
            for columns in self._blocks(BLOCK):
                vector[columns].addmv_(self.rows[:n, columns].T, subtract, alpha=-1)
            total += coefficients
        return total, self._norm(vector)

    def _norm(self, vector: Tensor) -> float:
        """By its largest entry, since the squares of small numbers vanish in float32, and those of large ones overflow.

        The sum is torch's own, which halves; ``vector_norm`` adds one after another and is off by 2e-5 at a million entries.
        """
        largest = float(torch.linalg.vector_norm(vector, ord=torch.inf))
        if largest == 0 or not np.isfinite(largest):
            return largest
        squares = self._sum([(vector[columns] / largest).square().sum() for columns in self._blocks(BLOCK)])
        return largest * float(np.sqrt(squares))

    def _blocks(self, width: int) -> list[slice]:
        return [slice(start, start + width) for start in range(0, self.size, width)]

    @staticmethod
    def _sum(parts: list[Tensor]) -> Array:
        """Σ in float64 of what blocks give."""
        return torch.stack(parts).cpu().double().sum(0).numpy()
