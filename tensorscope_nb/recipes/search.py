"""The search for extreme eigenpairs of a curvature: Lanczos steps, which a recipe asks time for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from tensorscope_nb.numerics.lanczos import Lanczos, Pairs, basis_for
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.curvature import Curvature

Which = Literal["LA", "SA", "LM", "BE"]
ROOMY = 4  # times k: with a basis of so many vectors restarts are rare, and more would only make each step longer


@dataclass(frozen=True)
class Found:
    """What a search has found."""

    pairs: Pairs
    lowest: float  # the curvature of some direction, and so no less than the smallest eigenvalue
    n_products: int
    asymmetry: float  # how far ⟨u, C v⟩ and ⟨v, C u⟩ differed
    unresolved: bool  # and whether that is why some have not converged


class Search:
    """What is found so far can be read after each step."""

    def __init__(
        self, curvature: Curvature, k: int, which: Which, tolerance: float, max_products: int | None, seed: int | None
    ) -> None:
        check_k(k, curvature.size)
        if which not in ("LA", "SA", "LM", "BE"):
            raise ValueError(f"which is {which!r}: choose 'LA' (the largest), 'SA', 'LM' (by size) or 'BE' (both ends)")
        if max_products is not None and max_products < 1:
            raise ValueError(f"max_products is {max_products}: give at least 1")
        self.curvature, self.k, self.which, self.tolerance = curvature, int(k), which, tolerance
        self.most = 100 + 10 * self.k if max_products is None else max_products
        self.seed = current().seed if seed is None else seed
        fits = basis_for(curvature.size, self.k, current().memory, curvature.dtype.itemsize)
        self.basis = min(fits, max(100, ROOMY * self.k))
        self._lanczos: Lanczos | None = None

    @property
    def lanczos(self) -> Lanczos:
        """Made when it is first needed: its basis is large."""
        if self._lanczos is None:
            c = self.curvature
            options: dict[str, Any] = {"basis": self.basis, "most_products": self.most, "seed": self.seed}
            options |= {"which": self.which, "tolerance": self.tolerance, "dtype": c.dtype, "device": c.device}
            self._lanczos = Lanczos(c, c.size, self.k, **options)
        return self._lanczos

    @property
    def total(self) -> float:
        """Products: three to four per eigenvalue are usual."""
        return min(self.most, self.curvature.size, 10 + 3.5 * self.k)

    @property
    def nbytes(self) -> float:
        return self.curvature.nbytes + self.basis * self.curvature.size * self.curvature.dtype.itemsize

    def steps(self) -> Iterator[None]:
        return self.lanczos.steps()

    @property
    def found(self) -> Found:
        """What there is so far, and NaN for what is missing of the k."""
        pairs, basis = self.lanczos.pairs(), self.lanczos.basis
        missing = self.k - len(pairs.values)
        nan = np.full(missing, np.nan)
        filled = Pairs(np.r_[pairs.values, nan], np.r_[pairs.residuals, nan], np.r_[pairs.converged, np.zeros(missing, bool)])
        unresolved = bool((pairs.residuals == basis.asymmetry).any()) and not pairs.converged.all()
        return Found(filled, self.lanczos.lowest.value, self.lanczos.n_products, basis.asymmetry, unresolved)

    @property
    def vectors(self) -> Tensor:
        """(found, size), in their order."""
        return self.lanczos.vectors()


def check_k(k: int, size: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k is {k!r}: ask for at least 1 eigenvalue, a whole number")
    if k > size:
        raise ValueError(f"k is {k} and there are {size} weights, which have as many eigenvalues: ask for no more")
