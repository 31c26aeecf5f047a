"""Two tasks whose gradients are known, and the dense way to everything that is made of them."""

import numpy as np
import torch
from model_zoo import build

import tensorscope_nb as ts

KNOWN = ("gpt2", "llama", "llama tied", "qwen3", "phi3", "gpt_neox", "gpt_neox sequential")


class Point(torch.nn.Module):
    """ℓᵢ = ½‖w − xᵢ‖² with w in two layers, at zero: gᵢ = −xᵢ, cut in two."""

    def __init__(self, d, split):
        super().__init__()
        self.first, self.second = torch.nn.Linear(1, split, bias=False), torch.nn.Linear(1, d - split, bias=False)
        torch.nn.init.zeros_(self.first.weight)
        torch.nn.init.zeros_(self.second.weight)

    def forward(self, x):
        one = x.new_ones(len(x), 1)
        return torch.cat([self.first(one), self.second(one)], 1) - x


def half_square(output, _):
    return 0.5 * (output**2).sum(1)


def known_gradients(g_a, g_b, split=None, scale=1.0):
    """A scope and two tasks whose per-sample gradients are these rows (times ``scale``), in two modules."""
    g_a, g_b = (torch.as_tensor(np.asarray(g), dtype=torch.float64) for g in (g_a, g_b))
    scope = ts.Scope(Point(g_a.shape[1], split or g_a.shape[1] // 2).double(), loss=lambda out, y: scale * half_square(out, y))
    one, other = (ts.Samples.tensors(-g, torch.zeros(len(g)), task=task) for g, task in ((g_a, "one"), (g_b, "other")))
    return scope, one, other


def texts(name="gpt2", n=5, m=4, length=10, dtype=torch.float64):
    """A tiny model of a family and two tasks of random tokens, the second with padding."""
    scope = ts.Scope(build(name).to(dtype))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (n + m, length), generator=generator)
    mask = torch.ones(m, length, dtype=torch.long)
    mask[1:, length - 3 :] = 0
    return scope, ts.Samples.tokens(ids[:n], task="one"), ts.Samples.tokens(ids[n:], mask, task="other")


def dense(scope, samples):
    """{parameter: (n, weights)} in double precision."""
    return {name: g.flatten(1).double().numpy() for name, g in scope.per_sample_gradients(samples).items()}


def by_module(gradients):
    modules = {}
    for name, g in gradients.items():
        modules.setdefault(name.rpartition(".")[0], []).append(g)
    return {name: np.concatenate(parts, 1) for name, parts in modules.items()}
