"""Whether a Krylov basis has missed an eigenvalue beyond some limits, such as the second copy of a repeated one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorscope_nb.numerics.krylov import Array, Basis

RISK = 0.01  # of passing over an eigenvector just beyond a limit; further beyond it falls as the shares grow


class Check:
    """Multiplies a random vector, orthogonal to the basis, until what was missed would have shown.

    Let A u = λ u with u orthogonal to the basis, which is how the products of one start vector leave all but one direction of
    each eigenspace. A random vector x has ⟨u, x⟩² = δ² ~ χ²₁ / size. When x is multiplied on, the share of u in each new vector
    v′ follows from its shares in the others, since A vᵢ = Σⱼ Tⱼᵢ vⱼ + β v′ and ⟨u, A vᵢ⟩ = λ ⟨u, vᵢ⟩. In units of δ

        s′ = (λ sᵢ − Σⱼ Tⱼᵢ sⱼ) / β,    and δ² Σ s² ≤ 1, for the vectors are orthonormal.

    So u is excluded once Σ s² > size / q, with q the quantile of χ²₁ at RISK. Beyond the Ritz values of the fresh vectors Σ s²
    grows with λ, and one limit stands for all that is beyond it (van Dorsselaer, Hochstenbach and van der Vorst 2000). It
    grows about as fast as a Chebyshev polynomial: 6 to 10 products where the limit stands off from the bulk, more where it
    does not.
    """

    def __init__(self, basis: Basis, limits: Array) -> None:
        from scipy.stats import chi2

        basis.add_random()
        self.limits, self.enough = limits, basis.size / chi2.ppf(RISK, 1)
        self.shares: Array = np.zeros((len(limits), basis.capacity + 1))
        self.shares[:, basis.waiting[-1]] = 1
        self.excluded = np.zeros(len(limits), dtype=bool)

    def follow(self, basis: Basis, i: int) -> None:
        """The shares in the newest vector, which is what the product with vector ``i`` has left."""
        *others, new = sorted([*basis.done, *basis.waiting])
        known = self.shares[:, others] @ basis.projected[others, i]
        self.shares[:, new] = (self.limits * self.shares[:, i] - known) / basis.projected[new, i]
        self.excluded |= (self.shares**2).sum(1) > self.enough
        self.shares[self.excluded] = 0  # while another limit is waited for they would overflow

    def turn(self, basis: Basis, mix: Array, forget: Sequence[int]) -> None:
        """The shares in the basis that ``compress`` is about to make."""
        waiting = [i for i in basis.waiting if i not in forget]
        shares = np.concatenate([self.shares[:, basis.done] @ mix, self.shares[:, waiting]], axis=1)
        self.shares = np.pad(shares, ((0, 0), (0, basis.capacity + 1 - shares.shape[1])))

    @property
    def passed(self) -> bool:
        """Whether an eigenvector at any of the limits is excluded."""
        return bool(self.excluded.all())
