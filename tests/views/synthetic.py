"""Datasets of the shapes that recipes return, with an idealised circuit: a previous-token head and an induction head."""

import numpy as np
import xarray as xr

STEPS = [0, 200, 600, 900, 1000, 1200, 1800, 3000]
PREVIOUS, INDUCTION = (0, 1), (1, 2)


def heads(layers: int = 2, n_heads: int = 4) -> xr.Dataset:
    """Scores over training: the induction head appears around step 850."""
    rise = 1 / (1 + np.exp(-(np.array(STEPS)[:, None, None] - 850) / 80))
    induction, previous = np.zeros((layers, n_heads)), np.zeros((layers, n_heads))
    induction[INDUCTION], previous[PREVIOUS] = 0.8, 0.9
    prefix = 0.05 + induction * rise
    dims = ("checkpoint", "layer", "head")
    return xr.Dataset(
        {
            "prefix_matching": (dims, prefix, {"long_name": "prefix-matching score", "units": "attention weight"}),
            "previous_token": (dims, 0.04 + previous * rise, {"long_name": "previous-token score", "units": "attention weight"}),
            "copying": (dims, induction * rise - 0.1, {"long_name": "copying score", "units": "1"}),
            "null": (dims, np.full(prefix.shape, 0.06), {"long_name": "uniform attention"}),
            "ci_low": (dims, prefix - 0.03),
            "ci_high": (dims, prefix + 0.03),
            "is_induction": (dims, prefix > 0.3, {"long_name": "induction head"}),
        },
        {"checkpoint": STEPS, "layer": range(layers), "head": range(n_heads)},
    )


def patterns(samples: int = 3, layers: int = 2, n_heads: int = 4, length: int = 16) -> xr.Dataset:
    """Attention on a sequence that says everything twice; the last sample is shorter than its frame."""
    half = length // 2
    weights = np.full((samples, layers, n_heads, length, length), np.nan, dtype="float32")
    for sample in range(samples):
        n = length - 4 if sample == samples - 1 else length
        weights[sample, ..., :n, :n] = np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]
        for head, offset in ((PREVIOUS, 1), (INDUCTION, half - 1)):
            for query in range(offset, n):
                weights[sample][head][query, :n] = 0
                weights[sample][head][query, query - offset] = 1
    words = ["The", " cat", " sat", "<b>", "\n", " on", " mats", "."]
    tokens = [[f"{words[i % half % len(words)]}" for i in range(length)] for _ in range(samples)]
    return xr.Dataset(
        {
            "pattern": (("sample", "layer", "head", "query", "key"), weights, {"long_name": "attention weight"}),
            "token": (("sample", "position"), np.array(tokens)),
        },
        {"sample": [f"shakespeare-{i}" for i in range(samples)], "layer": range(layers), "head": range(n_heads)},
    )


def ablation() -> xr.Dataset:
    """Signed effects with intervals, and the same by sample."""
    effect = np.array([[0.01, 0.12, -0.02, 0.0], [0.02, 0.0, 0.3, -0.05]])
    by_sample = effect + np.array([-0.1, 0.1])[:, None, None]
    return xr.Dataset(
        {
            "loss_increase": (("layer", "head"), effect, {"long_name": "loss increase", "units": "nats per token"}),
            "ci_low": (("layer", "head"), effect - 0.03),
            "ci_high": (("layer", "head"), effect + 0.03),
            "loss_increase_by_sample": (("sample", "layer", "head"), by_sample, {"units": "nats per token"}),
        },
        {"sample": ["a", "b"], "layer": [0, 1], "head": range(4)},
    )
