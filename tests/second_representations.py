"""Similarities of representations by other libraries: run as a program, it prints them as JSON.

In a process of its own, like the eigenvalues: what the libraries bring along is noticed by transformers.
"""

import json

import numpy as np
import torch
from tiny_models import random_gpt2
from torch import nn

LIBRARIES = {"pytorch-cka": "cka", "repsim": "repsim", "rsatoolbox": "rsatoolbox"}
X = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(1, 50, (20, 12), generator=torch.Generator().manual_seed(1))


def perceptron(*widths, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [[nn.Linear(a, b), nn.Tanh()] for a, b in zip((10, *widths), widths)]
    return nn.Sequential(*(part for both in parts for part in both))


def models():
    """Two kinds, each of two models with different depths and widths."""
    return {
        "perceptrons": (perceptron(8, 6, seed=0), perceptron(12, 9, 7, seed=1)),
        "language models": (random_gpt2(seed=0), random_gpt2(seed=1, n_layer=3, n_embd=18)),
    }


def given(name):
    return {"perceptrons": X, "language models": IDS}[name]


def modules(model):
    return [f"transformer.h.{i}" for i in range(len(model.transformer.h))] if hasattr(model, "transformer") else [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    ]  # fmt: skip


def rows(model, inputs):
    """What each layer puts out, the mean over tokens where there are some, by hooks and nothing else."""
    found, handles = {}, []
    for name in modules(model):

        def keep(module, args, output, name=name):
            found[name] = output[0] if isinstance(output, tuple) else output

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return [(x.double().mean(1) if x.ndim > 2 else x.double()).numpy() for x in found.values()]


def main():
    import repsim
    import rsatoolbox
    from cka import compute_cka

    found = {}
    for name, (one, other) in models().items():
        a, b = rows(one, given(name)), rows(other, given(name))
        here, there = slice(len(a)), slice(len(a), None)
        found[f"repsim: {name}: biased"] = repsim.cka(a + b, "linear", "gretton")[here, there].tolist()
        # its own cka by this estimator divides by the biased one
        hsic = repsim.hsic(a + b, "linear", "song")
        size = np.sqrt(np.diag(hsic))
        found[f"repsim: {name}: unbiased"] = (hsic / np.outer(size, size))[here, there].tolist()
        for distance in ("correlation", "euclidean"):
            tables = [rsatoolbox.rdm.calc_rdm([rsatoolbox.data.Dataset(x) for x in side], method=distance) for side in (a, b)]
            found[f"rsatoolbox: {name}: {distance}"] = rsatoolbox.rdm.compare(*tables, method="spearman").tolist()
            if distance == "correlation":
                found[f"rsatoolbox: {name}: pearson"] = rsatoolbox.rdm.compare(*tables, method="corr").tolist()
    one, other = (model.double() for model in models()["perceptrons"])
    loader = torch.utils.data.DataLoader(X.double(), batch_size=len(X))
    layers = {"layers": modules(one), "model2_layers": modules(other)}
    found["pytorch-cka: perceptrons: unbiased"] = compute_cka(one, other, loader, **layers, progress=False, device="cpu")[
        0
    ].tolist()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
