"""Models whose curvature is known."""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev

import tensorscope_nb as ts


class Point(nn.Module):
    """A model that puts out its own weights."""

    def __init__(self, at):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(at).clone())

    def forward(self, x):
        return self.w.expand(len(x), -1)


def quadratic(a, at=None, n=4):
    """Scope and samples with the mean loss ½ wᵀAw + const: sample i has ½ (w − cᵢ)ᵀA(w − cᵢ), and the cᵢ sum to zero."""
    a = torch.as_tensor(a)
    centres = torch.randn(n, len(a), generator=torch.Generator().manual_seed(1)).to(a)
    centres -= centres.mean(0)

    def loss(output, target):
        return 0.5 * ((output - target) @ a * (output - target)).sum(1)

    scope = ts.Scope(Point(torch.ones(len(a)).to(a) if at is None else at), loss=loss)
    return scope, ts.Samples.tensors(torch.zeros(n, 1).to(a), centres)


def with_spectrum(values, seed=0):
    """A symmetric matrix with these eigenvalues, in no one's axes."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return torch.as_tensor(q * np.asarray(values, dtype=float) @ q.T)


def perceptron(activation=nn.Tanh, norm=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 8), activation(), *([nn.LayerNorm(8)] if norm else []), nn.Linear(8, 5)]
        model = nn.Sequential(*layers).double()
        for p in model.parameters():
            p.data.add_(0.2 * torch.randn(p.shape))
        x, y = torch.randn(30, 6).double(), torch.randint(5, (30,))
    return ts.Scope(model), ts.Samples.tensors(x, y)


def flat_weights(scope):
    return torch.cat([p.detach().flatten() for p in scope.model.parameters()])


def at_weights(scope, flat):
    found, start = {}, 0
    for name, p in scope.model.named_parameters():
        found[name] = flat[start : start + p.nelement()].view(p.shape)
        start += p.nelement()
    return found


def dense_hessian(loss, scope):
    """By reverse over reverse, an entry at a time, of ``loss(weights)``."""
    return torch.autograd.functional.hessian(lambda flat: loss(at_weights(scope, flat)), flat_weights(scope))


def dense_ggn(scope, samples):
    """mean Jᵢᵀ (diag p − ppᵀ) Jᵢ of a classifier, from whole Jacobians."""
    x = samples.inputs["x"]
    outputs = lambda flat: functional_call(scope.model, at_weights(scope, flat), (x,))
    j, z = jacrev(outputs)(flat_weights(scope)), scope.model(x).detach()
    p = z.softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nap,nab,nbq->pq", j, inner, j) / len(x)


def dense(operator):
    """The matrix of an operator, column by column."""
    return torch.stack([operator(row) for row in torch.eye(operator.size, dtype=operator.dtype)], 1)
