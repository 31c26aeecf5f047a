"""The density of the eigenvalues of a large symmetric operator that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.krylov import Array, Basis

GRID = 512  # points of a curve
WIDTH = 0.01  # of a curve's Gaussians, of the range of the nodes


class Density:
    """Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019), one product at a time.

    For a random unit vector x, E ⟨x, f(A) x⟩ = Σᵢ f(λᵢ) / size. The products of x, orthogonalised, give a tridiagonal matrix
    whose eigenvalues θ, the ``nodes``, and first components τ of its eigenvectors make ⟨x, f(A) x⟩ = Σ τ² f(θ), with the
    ``weights`` τ² of sum 1: exact for polynomials f of degree 2m − 1 after m products. Each of ``n_probes`` vectors takes
    ``m`` products, or fewer where they span an invariant subspace, and is an independent sample: their spread is the error.

    >>> diagonal = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    >>> density = Density(lambda v: diagonal * v, 4, n_probes=500, m=4, seed=0, dtype=torch.float64)
    >>> for _ in density.steps(): pass
    >>> mean, error = density.mean(lambda x: x)
    >>> density.nodes[0].round(4) + 0.0, bool(abs(mean - 1) < 3 * error)
    (array([0., 1., 2.]), True)
    """

    def __init__(
        self,
        multiply: Callable[[Tensor], Tensor],
        size: int,
        *,
        n_probes: int,
        m: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        if n_probes < 1 or m < 1:
            raise ValueError(f"n_probes is {n_probes} and m is {m}: give at least 1 of each")
        self.multiply, self.n_probes, self.m = multiply, n_probes, m
        self.basis = Basis(size, min(m, size), seed, dtype, device)
        self.n_products = 0
        self.nodes: list[Array] = []  # of each finished probe
        self.weights: list[Array] = []

    def steps(self) -> Iterator[None]:
        """One product per step. When a product fails the finished probes can still be read, and further ``steps`` go on."""
        while not self.finished:
            if not self.basis.used:
                self.basis.add_random()
            i = self.basis.waiting[-1]
            product = self.multiply(self.basis.rows[i])
            self.n_products += 1
            if not self.basis.absorb(i, product) or len(self.basis.done) == self.m:
                nodes, mix = self.basis.ritz()
                self.nodes.append(nodes)
                self.weights.append(mix[0] ** 2)
                self.basis.clear()
            yield

    @property
    def finished(self) -> bool:
        return len(self.nodes) == self.n_probes

    def mean(self, f: Callable[[Array], Array]) -> tuple[Array, Array]:
        """Σᵢ f(λᵢ) / size and its standard error over the finished probes, NaN below two; ``f`` may add axes before the last."""
        if not self.nodes:
            raise ValueError("no probe is finished yet: take more steps")
        probes = np.stack([(f(nodes) * weights).sum(-1) for nodes, weights in zip(self.nodes, self.weights)])
        n = len(probes)
        error = probes.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(probes.shape[1:], np.nan)
        return probes.mean(0), error

    def trace(self) -> tuple[float, float]:
        """Σᵢ λᵢ = size · E Σ τ²θ, and its standard error over the finished probes."""
        value, error = self.mean(lambda nodes: nodes)
        return float(value) * self.basis.size, float(error) * self.basis.size

    def curve(self, grid: Array | None = None, width: float | None = None) -> tuple[Array, Array, Array]:
        """Grid, density of the eigenvalues with integral 1, and its standard error over the finished probes.

        Each eigenvalue is drawn as a Gaussian of standard deviation ``width``, by default a hundredth of the nodes' range; the
        grid by default reaches four of them beyond the nodes. An eigenvalue of multiplicity 1 has the mass 1 / size only.
        """
        nodes = np.concatenate(self.nodes) if self.nodes else np.zeros(1)
        if width is None:
            width = WIDTH * (float(np.ptp(nodes)) or float(np.abs(nodes).max()) or 1.0)
        if not width > 0:
            raise ValueError(f"width is {width}: give a positive number")
        if grid is None:
            grid = np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, GRID)
        points = np.asarray(grid, dtype=np.float64)
        value, error = self.mean(lambda x: np.exp(-(((points[:, None] - x) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi)))
        return points, value, error
