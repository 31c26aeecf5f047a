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


def landscape(n: int = 25) -> xr.Dataset:
    """A loss that explodes at the rim, with its increase over the centre; an interrupt came before the last rows."""
    a = np.linspace(-1, 1, n)
    x, y = np.meshgrid(a, a)
    loss = 3.2 + 0.05 * np.expm1(4 * (0.7 * (x - 0.1) ** 2 + 1.2 * y**2 + 0.3 * x * y))
    loss[-3:, n // 2 :] = np.nan
    increase = loss - loss[n // 2, n // 2]
    half = 0.1 * np.abs(increase) + 0.02 * np.hypot(x, y)
    nats = {"units": "nats per token"}
    return xr.Dataset(
        {
            "loss": (("y", "x"), loss, {"long_name": "loss", **nats}),
            "increase": (
                ("y", "x"), increase,
                {"long_name": "loss minus the loss at the centre", "interval": "95 % interval over 32 samples", **nats},
            ),
            "increase_ci_low": (("y", "x"), increase - half),
            "increase_ci_high": (("y", "x"), increase + half),
        },
        {
            "x": ("x", a, {"long_name": "along direction 1", "units": "filter norms"}),
            "y": ("y", a, {"long_name": "along direction 2", "units": "filter norms"}),
        },
    )  # fmt: skip


def pruning() -> xr.Dataset:
    """What pruning costs: predicted twice, measured with an interval; and something in another unit."""
    share = np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    measured = 3 * share**3 + 0.02 * share
    nats = {"units": "nats per token"}
    return xr.Dataset(
        {
            "predicted_increase": ("sparsity", 2.2 * share**2.5, {"long_name": "increase predicted from the curvature", **nats}),
            "first_order": ("sparsity", 0.1 * share, {"long_name": "increase predicted from the gradient", **nats}),
            "measured_increase": ("sparsity", measured, {"long_name": "increase measured", "interval": "95 % interval", **nats}),
            "measured_increase_ci_low": ("sparsity", 0.8 * measured - 0.02),
            "measured_increase_ci_high": ("sparsity", 1.2 * measured + 0.02),
            "kept": ("sparsity", 1 - share, {"long_name": "weights kept", "units": "share of weights"}),
        },
        {"sparsity": ("sparsity", share, {"long_name": "share of weights set to zero"})},
    )


def density(n: int = 1000) -> xr.Dataset:
    """A spectral density: nearly all of it at 0, a hundred thousandth at the largest eigenvalue."""
    at = np.linspace(-5, 120, n)
    peaks = [(0, 0.99), (8, 3e-3), (40, 1e-4), (110, 1e-5)]
    value = sum(w * np.exp(-((at - m) ** 2) / 0.5) for m, w in peaks)
    return xr.Dataset(
        {"density": ("curvature", value, {"long_name": "spectral density", "units": "share per nat"})},
        {"curvature": ("curvature", at, {"long_name": "Hessian eigenvalue", "units": "nats"})},
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


PROSE, CODE = [f"prose-{i}" for i in range(12)], [f"code-{i}" for i in range(10)]


def conflicts(pairs: int = 20, length: int = 24) -> xr.Dataset:
    """Samples of two tasks against each other, and the tokens of the pairs that conflict most."""
    rng = np.random.default_rng(5)
    cosine = rng.normal(0.02, 0.06, (12, 10))
    cosine[3, 5], cosine[7, 2], cosine[3, 8] = -0.42, -0.35, -0.28
    p = np.clip(0.5 + cosine * 3 + rng.normal(0, 0.1, cosine.shape), 0.001, 1)
    worst = np.column_stack(np.unravel_index(np.argsort(cosine, axis=None)[:pairs], cosine.shape))
    prose = [
        "To",
        "be,",
        "or",
        "not",
        "to",
        "be:",
        "that",
        "is",
        "the",
        "question",
        ".",
        "Whether",
        "tis",
        "nobler",
        "in",
        "the",
        "mind",
        "to",
        "suffer",
        "the",
        "slings",
    ]
    code = [
        "def",
        "forward",
        "(",
        "self",
        ",",
        "x",
        ")",
        ":\n",
        "return",
        "self",
        ".",
        "proj",
        "(",
        "x",
        ")",
        "+",
        "x",
        "#",
        "residual",
    ]
    words = {"a": prose, "b": code}
    ids = {"a": PROSE, "b": CODE}
    shape = (pairs, length)
    contribution = {side: rng.normal(0, 1, shape) * np.geomspace(3, 0.1, pairs)[:, None] for side in words}
    texts = {side: np.full(shape, "", dtype=object) for side in words}
    for side, (w, k) in zip(words, ((prose, 0), (code, 1)), strict=True):
        for row, pair in enumerate(worst):
            n = min(length, len(w) - int(pair[k]) % 4)
            texts[side][row, :n] = [f" {token}" if i else token for i, token in enumerate(np.roll(w, -int(pair[k]))[:n])]
            contribution[side][row, n:] = np.nan
    both = ("sample_a", "sample_b")
    return xr.Dataset(
        {
            "cosine": (both, cosine, {"long_name": "gradient cosine"}),
            "dot": (
                both,
                cosine * rng.gamma(4, 1, cosine.shape),
                {"long_name": "dot product of the gradients", "units": "nats²"},
            ),
            "p_value": (both, p),
            "q_value": (both, np.minimum(1, p * 4)),
            "effect_size": (both, -cosine / 0.06),
            "significant": (both, cosine < -0.2, {"long_name": "significant", "rule": "q ≤ 0.05 and a cosine below 0"}),
            "token_a": (both, rng.integers(0, 20, cosine.shape), {"long_name": "strongest token of a"}),
            "token_b": (both, rng.integers(0, 20, cosine.shape), {"long_name": "strongest token of b"}),
            "loss_a": ("sample_a", rng.gamma(9, 0.4, 12), {"long_name": "loss", "units": "nats per token"}),
            "loss_b": ("sample_b", rng.gamma(9, 0.4, 10), {"long_name": "loss", "units": "nats per token"}),
            **{
                f"contribution_{side}": (
                    ("pair", f"position_{side}"),
                    contribution[side],
                    {"long_name": "contribution to the dot product", "units": "nats²"},
                )
                for side in words
            },
            **{f"token_text_{side}": (("pair", f"position_{side}"), texts[side]) for side in words},
            "pair_cosine": ("pair", [cosine[i, j] for i, j in worst], {"long_name": "gradient cosine"}),
            "pair_p_value": ("pair", [p[i, j] for i, j in worst], {"long_name": "p"}),
            "pair_significant": ("pair", [bool(cosine[i, j] < -0.2) for i, j in worst]),
        },
        {
            "sample_a": PROSE,
            "sample_b": CODE,
            "task_a": ("sample_a", ["prose"] * 12),
            "task_b": ("sample_b", ["code"] * 10),
            **{f"text_{s}": (f"sample_{s}", [" ".join(np.roll(words[s], -i)) for i in range(len(ids[s]))]) for s in words},
            "pair": ("pair", [f"{PROSE[i]} × {CODE[j]}" for i, j in worst], {"order": "most conflicting first"}),
            "pair_sample_a": ("pair", [PROSE[i] for i, _ in worst]),
            "pair_sample_b": ("pair", [CODE[j] for _, j in worst]),
        },
    )


def module_conflicts() -> xr.Dataset:
    """The cosine of two tasks' gradients by module, and the dot products of their samples."""
    rng = np.random.default_rng(6)
    modules = [f"layers.{i}.{m}" for i in range(2) for m in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.in", "mlp.out")]
    dots = rng.normal(0.2, 1, (12, 12, 10))
    dots[7] -= 1.2
    cosine = dots.mean((1, 2)) / 2
    return xr.Dataset(
        {
            "cosine_corrected": ("module", cosine, {"long_name": "gradient cosine, corrected for noise"}),
            "ci_low": ("module", cosine - 0.1),
            "ci_high": ("module", cosine + 0.1),
            "pair_dot": (
                ("module", "sample_a", "sample_b"),
                dots,
                {"long_name": "dot product of two samples' gradients", "units": "nats²", "reduce": "sum"},
            ),
        },
        {
            "module": modules,
            "module_layer": ("module", [int(m[7]) for m in modules]),
            "module_block": ("module", ["Q", "K", "V", "O", "mlp_in", "mlp_out"] * 2),
            "sample_a": PROSE,
            "sample_b": CODE,
        },
    )


def head_conflicts() -> xr.Dataset:
    """Interference by block and head, of the tasks and of their samples."""
    rng = np.random.default_rng(7)
    pairs = rng.normal(0, 0.2, (4, 2, 4, 12, 10))
    pairs[2, 1, 2] += 0.5
    score = pairs.mean((3, 4))
    dims = ("block", "layer", "head")
    return xr.Dataset(
        {
            "score": (dims, score, {"long_name": "interference", "units": "nats"}),
            "p_value": (dims, np.clip(0.5 - score, 0.001, 1)),
            "q_value": (dims, np.clip(0.6 - score, 0.001, 1)),
            "pair_score": ((*dims, "sample_a", "sample_b"), pairs, {"long_name": "interference of two samples", "units": "nats"}),
        },
        {"block": ["Q", "K", "V", "O"], "layer": [0, 1], "head": range(4), "sample_a": PROSE, "sample_b": CODE},
    )


def head_names(layers: int, n_heads: int) -> dict[str, tuple[str, list[int]] | list[str]]:
    """Heads called "layer.head" along source and target, with what they are called after."""
    names = [f"{layer}.{head}" for layer in range(layers) for head in range(n_heads)]
    coords: dict[str, tuple[str, list[int]] | list[str]] = {}
    for side in ("source", "target"):
        coords |= {side: names}
        coords |= {f"{side}_{part}": (side, [int(n.split(".")[i]) for n in names]) for i, part in enumerate(("layer", "head"))}
    return coords


def composition(layers: int = 3, n_heads: int = 4) -> xr.Dataset:
    """Which heads read what other heads write, and whether a head copies: K-composition of 0.1 with 1.2 stands out."""
    rng = np.random.default_rng(8)
    names, n = head_names(layers, n_heads), layers * n_heads
    layer = np.arange(n) // n_heads
    values = rng.gamma(20, 0.004, (3, n, n))
    values[1, PREVIOUS[0] * n_heads + PREVIOUS[1], INDUCTION[0] * n_heads + INDUCTION[1]] = 0.42
    possible = layer[:, None] < layer[None]
    values[:, ~possible] = np.nan
    share = {"units": "share of the largest possible", "nan": "a head reads only what earlier layers write"}
    copying = rng.normal(0, 0.2, (layers, n_heads))
    copying[INDUCTION] = 0.9
    return xr.Dataset(
        {
            "composition": (("kind", "source", "target"), values, {"long_name": "composition", **share}),
            "null": (("kind", "source", "target"), np.where(possible, 0.08, np.nan)[None].repeat(3, 0)),
            "copying_eigen": (("layer", "head"), copying, {"long_name": "copying score", "bounds": [-1, 1]}),
            "qk_ov_correlation": (("layer", "head"), copying / 2, {"long_name": "QK–OV correlation"}),
            "qk_ov_correlation_ci_low": (("layer", "head"), copying / 2 - 0.1),
            "qk_ov_correlation_ci_high": (("layer", "head"), copying / 2 + 0.1),
        },
        {"kind": ["Q", "K", "V"], "layer": range(layers), "head": range(n_heads), **names},
    )


def circuit_rows(pairs: xr.Dataset | None = None, n: int = 12) -> xr.Dataset:
    """The pairs of heads that compose most, one row each."""
    ds = composition() if pairs is None else pairs
    found = ds["composition"].stack(circuit=("kind", "source", "target")).dropna("circuit")
    found = found.sortby(found, ascending=False)[:n]
    rows = [(str(k), str(a), str(b)) for k, a, b in found["circuit"].values]
    value = found.values
    return xr.Dataset(
        {
            "composition": ("circuit", value, {"long_name": "composition"}),
            "null": ("circuit", np.full(n, 0.08)),
            "excess": ("circuit", value - 0.08, {"long_name": "composition above chance"}),
            "z": ("circuit", (value - 0.08) / 0.02, {"long_name": "z"}),
        },
        {
            "circuit": [f"{k} {a} → {b}" for k, a, b in rows],
            "circuit_kind": ("circuit", [k for k, _, _ in rows]),
            "circuit_source": ("circuit", [a for _, a, _ in rows]),
            "circuit_target": ("circuit", [b for _, _, b in rows]),
        },
    )


def attribution(samples: int = 2, layers: int = 2, n_heads: int = 4, length: int = 16) -> xr.Dataset:
    """What the scores of attention are made of: the induction head's of what the previous-token head writes into the key."""
    rng = np.random.default_rng(9)
    ds = patterns(samples, layers, n_heads, length)
    sources = ["embed"]
    for layer in range(layers):
        sources += [f"{layer}.{head}" for head in range(n_heads)] + [f"mlp {layer}"]
    shape = (samples, layers, n_heads, length, length, len(sources))
    parts = {side: rng.normal(0, 0.1, shape) for side in ("key", "query")}
    parts["key"][:, INDUCTION[0], INDUCTION[1], ..., sources.index("0.1")] += 4 * np.nan_to_num(ds["pattern"].values[:, 1, 2])
    below = {"embed": -1} | {s: int(s.split(".")[0].removeprefix("mlp ")) for s in sources[1:]}
    for values in parts.values():
        for i, source in enumerate(sources):
            for layer in range(layers):
                if below[source] >= layer:
                    values[:, layer, ..., i] = np.nan
        values[:, :, :, np.triu(np.ones((length, length), dtype=bool), 1)] = np.nan
    dims = ("sample", "layer", "head", "query", "key")
    words = {"key": "contribution through the key", "query": "contribution through the query"}
    return xr.Dataset(
        {
            **{
                f"by_{side}": ((*dims, "source"), parts[side], {"long_name": words[side], "units": "score", "signed": "yes"})
                for side in parts
            },
            "score": (dims, np.nansum(parts["key"], -1), {"long_name": "attention score"}),
            "pattern": ds["pattern"],
            "token": ds["token"],
        },
        {**{str(k): v for k, v in ds.coords.items()}, "source": sources},
    )


def tokens(n: int = 512) -> xr.Dataset:
    """Numbers and flags of the tokens of a vocabulary; some are whitespace, and some look like markup."""
    rng = np.random.default_rng(10)
    odd = ["\n", " ", "\t", "<b>", " the", "the", "שלום", "<script>alert(1)</script>"]
    small = rng.gamma(4, 2, n)
    return xr.Dataset(
        {
            "violates_manifold": ("token_id", rng.random(n) < 0.1, {"long_name": "violates the manifold hypothesis"}),
            "p_manifold": ("token_id", rng.random(n), {"long_name": "p, manifold"}),
            "dim_small": ("token_id", small, {"long_name": "dimension within the radius"}),
            "dim_large": ("token_id", small * rng.normal(1.4, 0.2, n), {"long_name": "dimension beyond the radius"}),
            "transition_radius": ("token_id", rng.gamma(9, 0.1, n), {"long_name": "radius of the transition"}),
            "density": ("token_id", rng.gamma(2, 3, n), {"long_name": "density"}),
        },
        {"token_id": range(n), "token": ("token_id", [odd[i] if i < len(odd) else f" w{i}" for i in range(n)])},
    )


def lens(samples: int = 2, length: int = 12, layers: int = 3) -> xr.Dataset:
    """What the model would say after each layer."""
    rng = np.random.default_rng(11)
    words = np.array([" the", " cat", " sat", "\n", " on", " mat", ".", " and", " extraordinarily"], dtype=object)
    dims = ("sample", "position", "layer")
    shape = (samples, length, layers)
    return xr.Dataset(
        {
            "top_token": (dims, words[rng.integers(0, len(words), shape)], {"long_name": "most probable token"}),
            "probability": (dims, rng.beta(2, 3, shape) * np.linspace(0.3, 1, layers), {"bounds": [0, 1]}),
            "entropy": (dims, rng.gamma(3, 1, shape), {"units": "nats"}),
            "token": (dims[:2], words[rng.integers(0, len(words), shape[:2])]),
        },
        {"sample": [f"s-{i}" for i in range(samples)], "position": range(length), "layer": range(layers)},
    )


def two_models() -> xr.Dataset:
    """CKA of the layers of two models of different depth, over training."""
    a, b = np.arange(6)[:, None] / 5, np.arange(4)[None] / 3
    cka = np.stack([np.exp(-((a - b) ** 2) * k) for k in (0.5, 3, 8)])
    dims = ("checkpoint", "layer_a", "layer_b")
    return xr.Dataset(
        {
            "cka": (dims, cka, {"long_name": "linear CKA", "bounds": [0, 1]}),
            "ci_low": (dims, cka - 0.02),
            "ci_high": (dims, cka + 0.02),
            "cka_without_first": (dims, cka * 0.8, {"long_name": "linear CKA without the first token", "bounds": [0, 1]}),
            "top_token_share_a": (dims[:2], np.linspace(0.1, 0.9, 18).reshape(3, 6), {"long_name": "share of the first token"}),
        },
        {
            "checkpoint": [0, 600, 3000],
            "layer_a": ("layer_a", range(6), {"long_name": "layer of induction-2l"}),
            "layer_b": ("layer_b", range(4), {"long_name": "layer of shakespeare"}),
        },
    )


def tracin(samples: int = 40, tests: int = 8, checkpoints: int = 6, length: int = 0, *, seed: int = 7) -> xr.Dataset:
    """What training samples taught: each test sample has a few proponents and an opponent, early or late; by token with a length."""
    rng = np.random.default_rng(seed)
    size = (checkpoints, samples, tests)
    when = np.exp(-((np.arange(checkpoints)[:, None, None] - rng.uniform(0, checkpoints, size[1:])) ** 2) / 3)
    strength = rng.normal(0, 0.02, size[1:])
    for k in range(tests):
        strength[(3 * k + np.arange(3)) % samples, k] = [0.9, 0.6, 0.35]
        strength[(3 * k + 5) % samples, k] = -0.5
    contribution = when * strength + rng.normal(0, 0.003, size)
    influence = contribution.sum(0)
    own = np.abs(when.sum(2)) * rng.gamma(3, 0.3, (1, samples))
    half = 2 * influence.std(1) / np.sqrt(tests)
    pair, nats, signed = ("sample", "test_sample"), {"units": "nats per token"}, {"signed": "taught it above 0"}
    both = nats | signed
    texts = [
        "To be, or not to be: that is <b>the question</b>",
        "Friends, Romans, countrymen,\nlend me your ears",
        "O Romeo, Romeo!",
    ]
    variables = {
        "influence": (pair, influence, {"long_name": "influence", **both}),
        "contribution": (("checkpoint", *pair), contribution, {"long_name": "influence at the checkpoint", **both}),
        "self_influence": ("sample", own.sum(0), {"long_name": "influence on itself", **nats}),
        "self_contribution": (("checkpoint", "sample"), own, {"long_name": "influence on itself at the checkpoint", **nats}),
        "learning_rate": ("checkpoint", np.full(checkpoints, 0.01), {"long_name": "learning rate"}),
        "train_loss": (("checkpoint", "sample"), rng.gamma(9, 0.3, size[:2]), {"long_name": "loss of the training sample", **nats}),
        "test_loss": (("checkpoint", "test_sample"), rng.gamma(9, 0.3, size[::2]), {"long_name": "loss", **nats}),
        "mean_influence": (
            "sample", influence.mean(1),
            {"long_name": "influence, mean over test samples", "interval": "95 % interval over test samples", **both},
        ),
        "ci_low": ("sample", influence.mean(1) - half),
        "ci_high": ("sample", influence.mean(1) + half),
    }  # fmt: skip
    if length:
        share = rng.dirichlet(np.full(length, 0.4), (samples, tests)) * length
        share[:, tests - 1, length // 2 :] = np.nan
        words = np.array([f" {w}" for t in texts for w in t.split()])
        where = ("test_sample", "test_position")
        by_token = {"long_name": "influence on the token", **both}
        tokens = words[rng.integers(0, len(words), (tests, length))].astype(object)
        tokens[tests - 1, length // 2 :] = ""
        variables |= {
            "token_influence": (("sample", *where), influence[..., None] * share, by_token),
            "token_contribution": (("checkpoint", "sample", *where), contribution[..., None] * share, by_token),
            "test_token": (where, tokens),
        }
    steps = np.linspace(0, 3000, checkpoints).astype(int).tolist()
    return xr.Dataset(
        variables,
        {
            "sample": [f"train-{i}" for i in range(samples)],
            "task": ("sample", [("verse", "prose")[i % 2] for i in range(samples)]),
            "text": ("sample", [texts[i % 3] for i in range(samples)]),
            "test_sample": [f"test-{i}" for i in range(tests)],
            "test_task": ("test_sample", ["verse"] * tests),
            "test_text": ("test_sample", [texts[i % 3] for i in range(tests)]),
            "checkpoint": ("checkpoint", steps, {"long_name": "training step"}),
        },
    )


def tickets(replicates: int = 5) -> xr.Dataset:
    """Lottery tickets: kept weights at their beginning do better than others, and lose at the end; one layer keeps most."""
    rng = np.random.default_rng(8)
    controls, sparsity = ["ticket", "reinit", "random", "dense"], np.array([0.5, 0.8, 0.9, 0.95, 0.99])
    fall = {"ticket": 0.6, "reinit": 1.1, "random": 1.6, "dense": 0.0}
    loss = np.stack([0.3 + fall[c] * sparsity**8 for c in controls])[..., None] + rng.normal(0, 0.02, (4, 5, replicates))
    # the dense model has no sparsity: it is one number for each replicate
    loss[3] = loss[3, :1]
    accuracy = np.clip(0.97 - 0.25 * (loss - 0.3), 0, 1)
    modules = ["layers.0", "layers.2", "layers.4"]
    kept = np.clip((1 - sparsity)[:, None] * np.array([0.8, 1.1, 3.0]), 0, 1)
    seeds = {"long_name": "", "interval": f"95 % interval over {replicates} replicates"}
    share = {"units": "share of images"}
    variables: dict[str, object] = {
        "loss": (("control", "sparsity", "replicate"), loss, {"long_name": "loss", "units": "nats"}),
        "accuracy": (("control", "sparsity", "replicate"), accuracy, {"long_name": "accuracy", "bounds": [0, 1], **share}),
    }
    for name, values, sign, units in (("loss", loss, -1, {"units": "nats"}), ("accuracy", accuracy, 1, share)):
        gain = sign * (values[:1] - values)
        # one replicate has no spread, and so no difference that says how sure it is
        error = gain.std(-1, ddof=1) / np.sqrt(replicates) if replicates > 1 else np.nan
        middle, half = gain.mean(-1) + 0 * error, 2.8 * error
        about = seeds | units | {"long_name": f"{name} gained by the ticket", "signed": "the ticket is better above 0"}
        dims = ("control", "sparsity")
        variables |= {
            f"{name}_advantage": (dims, middle, about),
            f"{name}_advantage_ci_low": (dims, middle - half),
            f"{name}_advantage_ci_high": (dims, middle + half),
        }
    mask = rng.random((len(sparsity), 60)) > sparsity[:, None]
    rounds = ("replicate", "round")
    variables |= {
        "mask": (("sparsity", "parameter"), mask, {"long_name": "weight kept"}),
        "density": (("sparsity", "module"), kept, {"long_name": "weights kept", "units": "share of weights"}),
        "initial": ("parameter", rng.normal(0, 0.1, 60), {"long_name": "weight at the beginning"}),
        "round_loss": (rounds, rng.gamma(3, 0.1, (replicates, 8)), {"long_name": "loss after the round", "units": "nats"}),
        "round_accuracy": (rounds, rng.beta(20, 2, (replicates, 8)), {"long_name": "accuracy after the round", **share}),
        "round_sparsity": (rounds, np.tile(1 - 0.7 ** np.arange(1, 9), (replicates, 1)), {"long_name": "share set to zero"}),
    }
    return xr.Dataset(
        variables,
        {
            "control": controls,
            "sparsity": ("sparsity", sparsity, {"long_name": "share of weights set to zero"}),
            "replicate": range(replicates),
            "module": modules,
            "module_layer": ("module", [0, 1, 2]),
            "parameter": range(60),
            "round": range(8),
        },
    )


def images(samples: int = 40, tests: int = 8, checkpoints: int = 6) -> xr.Dataset:
    """The same of images of 8 × 8: a bright ring, a bar or a cross."""
    y, x = np.mgrid[:8, :8]
    ring = np.exp(-((np.hypot(y - 3.5, x - 3.5) - 2.5) ** 2))
    shapes = np.stack([ring, np.exp(-((x - 3.5) ** 2)), np.maximum(np.exp(-((x - 3.5) ** 2)), np.exp(-((y - 3.5) ** 2)))])
    ds, names = tracin(samples, tests, checkpoints), np.array(["a 0", "a 1", "a 4"])
    of, test = np.arange(samples) % 3, np.arange(tests) % 3
    ds = ds.assign_coords(text=("sample", names[of]), test_text=("test_sample", names[test]))
    return ds.assign(
        pixels=(("sample", "row", "column"), shapes[of] * np.linspace(0.6, 1, samples)[:, None, None]),
        test_pixels=(("test_sample", "row", "column"), shapes[test]),
    )
