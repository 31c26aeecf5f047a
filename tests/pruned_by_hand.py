"""Iterative magnitude pruning written out in plain torch, for one replicate, and small tasks to prune on."""

import copy

import torch
from torch import nn

import tensorscope_nb as ts


def task(n=96, dropout=0.0, norm=False, seed=0):
    """A small classifier as it is initialised, and samples of three classes that it can learn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        extra = [nn.BatchNorm1d(12)] if norm else []
        model = nn.Sequential(nn.Linear(6, 12), *extra, nn.Tanh(), nn.Dropout(dropout), nn.Linear(12, 3))
        x = torch.randn(n, 6)
        y = (x[:, :3] + 0.3 * torch.randn(n, 3)).argmax(1)
    return ts.Scope(model.eval()), ts.Samples.tensors(x, y)


def by_hand(scope, samples, counts, batches, optimizer, test=None):
    """[(loss, accuracy, masks, weights)] of round 0, 1, …: train, mask after each step, prune, rewind."""
    start, n = copy.deepcopy(scope.model.state_dict()), counts[0]
    model = copy.deepcopy(scope.model)
    weights = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    masks = {name: torch.ones_like(p) for name, p in weights.items()}
    x, y = (test or samples).inputs["x"], (test or samples).labels
    found = []
    for count in counts:
        if count < n:
            size = torch.cat([torch.where(masks[name] > 0, p.detach().abs(), -1.0).flatten() for name, p in weights.items()])
            flat = torch.ones(n)
            flat[torch.argsort(size, stable=True)[: n - count]] = 0
            pieces = flat.split([p.nelement() for p in weights.values()])
            masks = {name: piece.view(p.shape) for (name, p), piece in zip(weights.items(), pieces)}
        model.load_state_dict(start)
        for name, p in weights.items():
            p.data.mul_(masks[name])
        made = optimizer(model.parameters())
        model.train()
        for rows in batches:
            losses = nn.functional.cross_entropy(model(samples.inputs["x"][rows]), samples.labels[rows], reduction="none")
            made.zero_grad()
            (losses @ torch.full((len(rows),), 1 / len(rows))).backward()
            made.step()
            for name, p in weights.items():
                p.data.mul_(masks[name])
        model.eval()
        with torch.no_grad():
            output = model(x)
        loss = nn.functional.cross_entropy(output.double(), y)
        found.append(
            (
                float(loss),
                float((output.argmax(1) == y).float().mean()),
                {k: m.bool() for k, m in masks.items()},
                [p.detach().clone() for p in model.parameters()],
            )
        )
    return found
