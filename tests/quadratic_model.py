"""A model whose loss is a quadratic in its one weight vector, so that everything about it is known."""

import torch

import tensorscope_nb as ts


class Quadratic(torch.nn.Module):
    def __init__(self, at):
        super().__init__()
        self.weight = torch.nn.Parameter(at[None].clone())  # two axes: a weight, and no bias

    def forward(self, x):
        return self.weight.expand(len(x), -1) + 0 * x


def half_waw(w, a):
    """ℓᵢ = ½ wᵀ Aᵢ w."""
    return torch.einsum("ni,nij,nj->n", w, a, w) / 2


def quadratic(d=6, n=5, seed=0, convex=True, dtype=torch.float64):
    """A scope, its samples (one Aᵢ each), the mean A, and w."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, d, d, generator=generator, dtype=dtype)
    a = root @ root.mT / d if convex else root + root.mT
    w = torch.randn(d, generator=generator, dtype=dtype)
    scope = ts.Scope(Quadratic(w), loss=half_waw)
    return scope, ts.Samples.tensors(torch.zeros(n, 1), a), a.mean(0), w
