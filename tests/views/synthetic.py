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


def layers(n: int = 6) -> xr.Dataset:
    """A score by layer with an interval, a test, and the same by head."""
    rng = np.random.default_rng(0)
    cosine = np.linspace(-0.3, 0.5, n)
    return xr.Dataset(
        {
            "cosine": ("layer", cosine, {"long_name": "gradient cosine"}),
            "ci_low": ("layer", cosine - 0.12),
            "ci_high": ("layer", cosine + 0.12),
            "q_value": ("layer", np.abs(0.5 - np.abs(cosine))),
            "significant": ("layer", np.abs(cosine) > 0.15),
            "importance": (("layer", "head"), rng.gamma(2, 1, (n, 4)), {"long_name": "Fisher importance", "units": "nats²"}),
        },
        {"layer": range(n), "head": range(4)},
    )


def eigenvalues(n: int = 20) -> xr.Dataset:
    """A spectrum over five decades with a negative end, the last of it not converged."""
    values = 40 * 0.5 ** np.arange(n)
    values[-4:] *= -300
    residual = np.geomspace(1e-6, 1e-2, n)
    return xr.Dataset(
        {
            "eigenvalue": ("component", values, {"long_name": "Hessian eigenvalue", "units": "nats"}),
            "residual": ("component", residual),
            "converged": ("component", residual < 3e-3),
        },
        {"component": range(n)},
    )


def similarity(n: int = 12) -> xr.Dataset:
    """CKA of the layers of two models."""
    a, b = np.arange(n)[:, None], np.arange(n)[None]
    return xr.Dataset(
        {"cka": (("layer_a", "layer_b"), np.exp(-((a - b) ** 2) / 20), {"long_name": "linear CKA"})},
        {"layer_a": range(n), "layer_b": range(n)},
    )


def circuits() -> xr.Dataset:
    """Signed composition of heads with heads; nothing composes with an earlier layer."""
    rng = np.random.default_rng(1)
    names = [f"{layer}.{head}" for layer in range(2) for head in range(4)]
    values = rng.normal(0, 0.1, (3, 8, 8))
    values[1, 1, 6] = 0.8
    layer = np.array([int(n[0]) for n in names])
    values[:, layer[:, None] >= layer[None]] = np.nan
    coords = {
        "kind": ["Q", "K", "V"],
        "source": names,
        "target": names,
        "source_layer": ("source", layer),
        "source_head": ("source", [int(n[2]) for n in names]),
        "target_layer": ("target", layer),
        "target_head": ("target", [int(n[2]) for n in names]),
    }
    return xr.Dataset({"composition": (("kind", "source", "target"), values)}, coords)


def samples(n: int = 200) -> xr.Dataset:
    """Losses of samples with their texts, and by head."""
    rng = np.random.default_rng(2)
    texts = ["To be, or not to be: that is <b>the question</b>", "def f(x):\n\treturn x", "שלום עולם", "x = 3 + 4"]
    return xr.Dataset(
        {
            "loss": ("sample", rng.gamma(4, 0.8, n), {"long_name": "loss", "units": "nats per token"}),
            "influence": ("sample", rng.normal(0, 1, n), {"long_name": "self-influence"}),
            "loss_increase": (("sample", "layer", "head"), rng.normal(0, 0.2, (n, 2, 4)), {"long_name": "loss increase"}),
        },
        {
            "sample": [f"s-{i}" for i in range(n)],
            "text": ("sample", [texts[i % 4] for i in range(n)]),
            "task": ("sample", ["prose", "code", "hebrew", "maths"] * (n // 4) + ["prose"] * (n % 4)),
            "layer": [0, 1],
            "head": range(4),
        },
    )


def token_losses(n: int = 3, length: int = 16) -> xr.Dataset:
    """A loss for each token; the first of a sequence has none."""
    rng = np.random.default_rng(3)
    loss = rng.gamma(1.5, 1.2, (n, length))
    loss[:, 0] = np.nan
    return patterns(n, length=length)[["token"]].assign(
        loss=(("sample", "position"), loss, {"long_name": "loss", "units": "nats"}),
        surprise=(("sample", "position"), loss - 2, {"long_name": "loss against the unigram model", "units": "nats"}),
    )


def weights(n: int = 60) -> xr.Dataset:
    """Single weights in rank order."""
    rng = np.random.default_rng(4)
    return xr.Dataset(
        {
            "sensitivity": (
                "weight",
                np.sort(rng.normal(0, 1, n) ** 3)[::-1],
                {"long_name": "gradient × weight", "units": "nats"},
            ),
            "parameter_name": ("weight", [f"layers.{i % 2}.attn.c_attn.weight" for i in range(n)]),
            "index": ("weight", rng.integers(0, 4096, n)),
        },
        {"weight": range(n)},
    )
