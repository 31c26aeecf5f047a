"""Gradient recipes: the same numbers however the data is cut, padded, ordered and typed, and those of a stand-alone reference.

The reference is ``vmap(grad(functional_call))`` in double precision on samples whose padding is cut off, so that nothing of
the library, and no mask, stands in it.
"""

import copy
import functools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import build
from scipy import stats
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import tensorscope_nb as ts
from tensorscope_nb.numerics.intervals import log_t_interval

N, T = 9, 10
LENGTHS = [10, 7, 10, 3, 7, 10, 5, 10, 2]
TOKENS = ["gpt2", "llama", "gpt_neox", "bert"]
MODELS = [*TOKENS, "mlp", "cnn"]
LAYERS = {"mlp": ["0", "2", "4"], "cnn": ["0", "3", "6"]}
GRANULARITIES = ("module", "layer", "head", "channel")
recipes = ts.recipes


def model_of(name):
    """As the zoo has it, its batch norm as after training: with running statistics 0 and 1 it would do nothing."""
    model = build(name)
    if name == "cnn":
        model[1].running_mean.copy_(torch.tensor([0.5, -1.0, 0.2, 2.0]))
        model[1].running_var.copy_(torch.tensor([0.3, 2.0, 1.0, 4.0]))
    return model


@functools.cache
def rows(name):
    """Each sample alone, without padding: (x, target); of a language model (ids, labels)."""
    generator = torch.Generator().manual_seed(3)
    if name in ("mlp", "cnn"):
        x = torch.randn(N, *((10,) if name == "mlp" else (1, 8, 8)), generator=generator)
        return list(zip(x, torch.arange(N) % 3))
    pairs = []
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(1, 50, (length,), generator=generator)
        labels = ids.clone()
        if name == "bert":
            labels[torch.arange(length) % 3 != i % 2] = -100
        elif i == 2:
            labels[:6] = -100  # a prompt that is read and not predicted
        pairs.append((ids, labels))
    return pairs


def samples_of(name, order=range(N), side="right", extra=0, pad=0, dtype=torch.float32):
    """The rows as Samples: in some order, padded on one side, further than needed, and with any id."""
    x, y = zip(*rows(name))
    if name in ("mlp", "cnn"):
        samples = ts.Samples.tensors(torch.stack(x).to(dtype), torch.stack(y))
        return samples[list(order)]
    width = T + extra
    ids, labels, mask = torch.full((N, width), pad), torch.full((N, width), -100), torch.zeros(N, width, dtype=torch.long)
    for i, row in enumerate(x):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], labels[i, place], mask[i, place] = row, y[i], 1
    return ts.Samples.tokens(ids, mask, labels)[list(order)]


@functools.cache
def scope_of(name, dtype=torch.float32):
    return ts.Scope(model_of(name).to(dtype))


def plain(model):
    """A copy in double precision that vmap can go through."""
    model = copy.deepcopy(model).double()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("sdpa")  # the eager one takes its softmax in single precision
        model.config.pad_token_id = None  # looks for padding in the numbers, which vmap forbids
    return model


def loss_of(name, logits, target):
    """The mean negative log-likelihood of one sample; the label of a causal model is that of the next position."""
    logp = logits.log_softmax(-1)
    if name in ("mlp", "cnn"):
        return -logp.gather(0, target[None])[0]
    if name != "bert":
        logp, target = logp[:-1], target[1:]
    counted = (target >= 0).to(logp)
    picked = logp.gather(-1, target.clamp(min=0)[:, None])[:, 0]
    return -(picked * counted).sum() / counted.sum()


@functools.cache
def reference(name):
    """{parameter: (n, …)}: the gradient of each sample's own mean loss; tied weights once."""
    model, pairs = plain(model_of(name)), rows(name)
    weights = {n: p.detach() for n, p in model.named_parameters()}

    def loss(weights, x, target):
        out = functional_call(model, weights, (x[None].to(torch.float64) if x.is_floating_point() else x[None],))
        return loss_of(name, getattr(out, "logits", out)[0], target)

    found = {n: torch.zeros(N, *p.shape, dtype=torch.float64) for n, p in weights.items()}
    for shape in {x.shape for x, _ in pairs}:
        alike = [i for i, (x, _) in enumerate(pairs) if x.shape == shape]
        x, y = (torch.stack([pairs[i][k] for i in alike]) for k in (0, 1))
        with sdpa_kernel(SDPBackend.MATH):
            for n, g in vmap(grad(loss), (None, 0, 0))(weights, x, y).items():
                found[n][alike] = g
    return found


def terms(name):
    """How many tokens each sample predicts."""
    if name in ("mlp", "cnn"):
        return torch.ones(N, dtype=torch.float64)
    return torch.tensor([float((y[0 if name == "bert" else 1 :] >= 0).sum()) for _, y in rows(name)], dtype=torch.float64)


def layer_of(name, parameter):
    if name in LAYERS:
        owner = parameter.rpartition(".")[0]
        return LAYERS[name].index(owner) if owner in LAYERS[name] else -1
    found = re.search(r"\.(?:h|layers|layer)\.(\d+)\.", parameter)
    return int(found[1]) if found else -1


def flat(gradients, chosen=lambda parameter: True):
    return torch.cat([g.flatten(1) for n, g in gradients.items() if chosen(n)], 1)


def by_module(gradients):
    return {
        m: flat(gradients, lambda n, m=m: n.rpartition(".")[0] == m)
        for m in dict.fromkeys(n.rpartition(".")[0] for n in gradients)
    }


def head_slices(name, layer, head):
    """{block: [the head's part of each parameter's gradients]}, written out for every family."""
    d_head = {"gpt2": 8, "llama": 6, "gpt_neox": 8, "bert": 8}[name]
    g, a, b = reference(name), head * d_head, (head + 1) * d_head
    if name == "gpt2":  # (in, out), the three side by side
        path = f"transformer.h.{layer}.attn"
        fused = {
            block: [
                g[f"{path}.c_attn.weight"][:, :, 24 * i + a : 24 * i + b],
                g[f"{path}.c_attn.bias"][:, 24 * i + a : 24 * i + b],
            ]
            for i, block in enumerate("QKV")
        }
        return fused | {"O": [g[f"{path}.c_proj.weight"][:, a:b]]}
    if name == "gpt_neox":  # (out, in), head by head its three
        path = f"gpt_neox.layers.{layer}.attention"
        fused = {}
        for i, block in enumerate("QKV"):
            start = (3 * head + i) * d_head
            fused[block] = [g[f"{path}.query_key_value.{kind}"][:, start : start + d_head] for kind in ("weight", "bias")]
        return fused | {"O": [g[f"{path}.dense.weight"][:, :, a:b]]}
    if name == "llama":  # four query heads over two of K and V
        path, shared = f"model.layers.{layer}.self_attn", slice(head // 2 * d_head, (head // 2 + 1) * d_head)
        return {
            "Q": [g[f"{path}.q_proj.weight"][:, a:b]],
            "K": [g[f"{path}.k_proj.weight"][:, shared]],
            "V": [g[f"{path}.v_proj.weight"][:, shared]],
            "O": [g[f"{path}.o_proj.weight"][:, :, a:b]],
        }
    path = f"bert.encoder.layer.{layer}.attention"
    parts = {
        block: [g[f"{path}.self.{full}.{kind}"][:, a:b] for kind in ("weight", "bias")]
        for block, full in zip("QKV", ("query", "key", "value"))
    }
    return parts | {"O": [g[f"{path}.output.dense.weight"][:, :, a:b]]}


def channels_of(name, module, gradients):
    """{module: (n, channels)}: outputs, rows of an embedding, features of a norm."""
    outputs_last = name == "gpt2" and module.rpartition(".")[2] in ("c_attn", "c_proj", "c_fc")
    total = 0
    for parameter, g in gradients.items():
        if parameter.rpartition(".")[0] == module:
            squares = g**2
            total = total + (
                squares.sum(1) if outputs_last and g.ndim == 3 else squares.flatten(2).sum(-1) if g.ndim > 2 else squares
            )
    return total


def close(found, expected, rtol=1e-5, floor=1e-12):
    """Equal to ``rtol``; what is zero by symmetry may be rounding, ``floor`` of the largest."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape
    scale = np.max(np.abs(expected[~np.isnan(expected)]), initial=0.0)
    assert np.allclose(found, expected, rtol=rtol, atol=floor * scale, equal_nan=True)


def close_where_it_is_a_statistic(result, q):
    """The mean, variance and interval of masses ``q`` (n, …) by the book."""
    q = q.numpy()
    m, s = q.mean(0), q.std(0, ddof=1)
    close(result["importance"], m)
    close(result["variance"], s**2)
    half = stats.t.ppf(0.975, N - 1) * s / np.sqrt(N) / np.where(m > 1e-12 * m.max(), m, np.inf)
    real = m > 1e-12 * m.max()  # a relative error of rounding noise says nothing
    close(result["ci_low"].values[real], (m * np.exp(-half))[real])
    close(result["ci_high"].values[real], (m * np.exp(half))[real])


# --- against the reference -------------------------------------------------------------------------------------------------


def exact(name, recipe, **options):
    """A recipe on the double-precision model: what is compared are formulas, not roundings."""
    return recipe(scope_of(name, torch.float64), samples_of(name, dtype=torch.float64), chunk=4, **options)


@pytest.mark.parametrize("name", MODELS)
def test_masses_by_module_and_layer_are_those_of_the_reference(name):
    g = reference(name)
    found = exact(name, recipes.grouped_fisher, per_sample=True)
    expected = torch.stack([(v**2).sum(1) for v in by_module(g).values()], 1)
    assert found["module"].values.tolist() == list(by_module(g))
    close(found["importance_by_sample"], expected)
    close_where_it_is_a_statistic(found, expected)
    close(float(found["importance"].sum()), float((flat(g) ** 2).sum(1).mean()))  # trace = mean ‖gᵢ‖²
    layer = exact(name, recipes.grouped_fisher, granularity="layer")
    layers = sorted({layer_of(name, n) for n in g} - {-1})
    assert layer["layer"].values.tolist() == layers
    expected = torch.stack([(flat(g, lambda n, i=i: layer_of(name, n) == i) ** 2).sum(1) for i in layers], 1)
    close_where_it_is_a_statistic(layer, expected)


@pytest.mark.parametrize("name", TOKENS)
def test_masses_by_head_are_those_of_the_reference(name):
    found = exact(name, recipes.grouped_fisher, granularity="head", per_sample=True)
    n_heads = 4 if name == "llama" else 3
    assert dict(found.sizes) == {"sample": N, "layer": 2, "head": n_heads, "block": 4}
    assert found["n_sharing"].values.tolist() == ([1, 2, 2, 1] if name == "llama" else [1, 1, 1, 1])
    q = torch.zeros(N, 2, n_heads, 4, dtype=torch.float64)
    for layer in range(2):
        for head in range(n_heads):
            for i, pieces in enumerate(head_slices(name, layer, head).values()):
                q[:, layer, head, i] = sum((piece**2).flatten(1).sum(1) for piece in pieces)
                sizes = found["n_parameters"].sel(layer=layer, head=head).values[i]
                assert sizes == sum(piece[0].numel() for piece in pieces)
    close(found["importance_by_sample"], q)
    close_where_it_is_a_statistic(found, q)


@pytest.mark.parametrize("name", MODELS)
def test_masses_by_channel_are_those_of_the_reference(name):
    g = reference(name)
    found = exact(name, recipes.grouped_fisher, granularity="channel", per_sample=True)
    for module in found["module"].values:
        expected = channels_of(name, module, g)
        width = expected.shape[1]
        one = found.sel(module=module)
        close(one["importance_by_sample"].values[:, :width], expected, floor=1e-9)
        close_where_it_is_a_statistic(one.isel(channel=slice(width)), expected)
        assert np.isnan(one["importance"].values[width:]).all()


@pytest.mark.parametrize("name", MODELS)
def test_signal_and_noise_are_those_of_the_reference(name):
    found = exact(name, recipes.gradient_health)
    for module, g in by_module(reference(name)).items():
        mean, one = g.mean(0), found.sel(module=module)
        noise = float(((g - mean) ** 2).sum()) / (N - 1)
        off_diagonal = g @ g.T
        signal = float(off_diagonal.sum() - off_diagonal.trace()) / (N * (N - 1))
        close(one["grad_norm"], mean.norm())
        close(one["grad_rms"], mean.square().mean().sqrt())
        close(one["noise"], noise)
        # the signal is a difference of sums: on their scale
        assert abs(float(one["signal"]) - signal) < 1e-9 * float(off_diagonal.trace()) / N
        if abs(signal) > 1e-3 * noise:
            close(one["snr"], signal / noise)
            close(one["noise_scale"], noise / signal if signal > 0 else np.nan)
    squares, counts = backward_signal(name)
    rms = np.sqrt(squares / counts)
    close(found["backward_rms"], rms)
    close(found.attrs["depth_slope"], stats.linregress(np.arange(len(rms)), np.log(rms)).slope)


def backward_signal(name):
    """Σ (∂ℓ/∂ output)² of each layer, and the number of its entries, one sample at a time."""
    model = plain(model_of(name))
    path = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers", "bert": "bert.encoder.layer"}.get(
        name
    )
    layers = list(model.get_submodule(path)) if path else [model.get_submodule(n) for n in LAYERS[name]]
    squares, counts = np.zeros(len(layers)), np.zeros(len(layers))
    for x, y in rows(name):
        outputs = {}
        handles = [
            layer.register_forward_hook(
                lambda m, a, out, i=i, to=outputs: to.update({i: out[0] if isinstance(out, tuple) else out})
            )
            for i, layer in enumerate(layers)
        ]
        out = model(x[None].double() if x.is_floating_point() else x[None])
        [handle.remove() for handle in handles]
        deltas = torch.autograd.grad(loss_of(name, getattr(out, "logits", out)[0], y), [outputs[i] for i in range(len(layers))])
        squares += [float((d**2).sum()) for d in deltas]
        counts += [d.numel() for d in deltas]
    return squares, counts


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", MODELS)
def test_the_spectrum_is_that_of_the_reference(name, reduction):
    """By singular values of the gradients, not by a Gram matrix; of summed losses Σ nᵢ² gᵢ gᵢᵀ / Σ nᵢ."""
    weight = terms(name) if reduction == "sum" else torch.ones(N, dtype=torch.float64)

    def eigenvalues(g):
        return (torch.linalg.svdvals(g * weight[:, None]) ** 2 / weight.sum()).numpy()

    g, k = reference(name), 3
    found = exact(name, recipes.fisher_spectrum, k=k, reduction=reduction)
    whole = eigenvalues(flat(g))
    close(found["eigenvalue"], whole, floor=1e-10)
    close(found["total_concentration"], whole[:k].sum() / whole.sum())
    close(found["spectral_gap"], whole[0] - whole[1])
    assert np.isinf(found["condition_number"])
    for layer in found["layer"].values:
        block, one = eigenvalues(flat(g, lambda n, i=layer: layer_of(name, n) == i)), found.sel(layer=layer)
        share = block / block.sum()
        close(one["layer_eigenvalue"], block, floor=1e-10)
        close(one["top_eigenvalue"], block[0])
        close(one["concentration"], share[:k].sum())
        close(one["trace"], block.sum())
        close(one["effective_rank"], np.exp(stats.entropy(share)))


@pytest.mark.parametrize("name", MODELS)
def test_every_importance_is_that_of_the_reference(name):
    g = reference(name)
    weights = {n: p.detach() for n, p in plain(model_of(name)).named_parameters()}
    n_terms = terms(name)
    summed = {n: v * n_terms.reshape(-1, *[1] * (v.ndim - 1)) for n, v in g.items()}
    fisher = {n: (v**2).mean(0) for n, v in g.items()}
    expected = {
        "fisher": fisher,
        "fisher sum": {n: (v**2).sum(0) / n_terms.sum() for n, v in summed.items()},
        "saliency": {n: 0.5 * fisher[n] * weights[n] ** 2 for n in g},
        "first_order": {n: (v.mean(0) * weights[n]).abs() for n, v in g.items()},
        "absolute": {n: (v * weights[n]).abs().mean(0) for n, v in g.items()},
        "squared": {n: ((v * weights[n]) ** 2).mean(0) for n, v in g.items()},
    }
    found = {
        variant: exact(name, recipes.taylor_importance, variant=variant) for variant in ("first_order", "absolute", "squared")
    }
    found["fisher"] = exact(name, recipes.fisher_importance)
    found["fisher sum"] = exact(name, recipes.fisher_importance, reduction="sum")
    found["saliency"] = exact(name, recipes.fisher_importance, saliency=True)
    for kind, values in expected.items():
        assert list(found[kind]) == list(weights)
        largest = max(float(v.max()) for v in values.values())
        for n, value in values.items():
            floor = 1e-9 * largest  # a norm in single precision stands in some models
            assert torch.allclose(found[kind][n].double(), value, rtol=1e-5, atol=floor), (kind, n)
    magnitude = recipes.magnitude_importance(scope_of(name, torch.float64))
    assert all(torch.equal(magnitude[n], weights[n].abs()) for n in weights)


def test_the_hybrid_ranks_are_those_of_the_reference():
    g, weights = reference("mlp"), dict(plain(model_of("mlp")).named_parameters())
    parts = {"magnitude": lambda n: weights[n].detach().abs(), "fisher": lambda n: (g[n] ** 2).mean(0)}
    ranked = [stats.rankdata(torch.cat([part(n).flatten() for n in g]).float()) for part in parts.values()]
    expected = (0.3 * ranked[0] + 0.7 * ranked[1] - 1) / (len(ranked[0]) - 1)
    found = exact("mlp", recipes.hybrid_importance)
    close(torch.cat([found[n].flatten() for n in g]), expected, rtol=1e-4, floor=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_summed_losses_scale_each_sample_by_its_tokens_squared(name):
    """q̃ᵢ = nᵢ² qᵢ, their sum over all predicted tokens; where all samples are as long, that is n times the mean's."""
    n_terms = terms(name).numpy()
    mean = exact(name, recipes.grouped_fisher, per_sample=True)["importance_by_sample"].values
    found = exact(name, recipes.grouped_fisher, reduction="sum")["importance"]
    close(found, (n_terms[:, None] ** 2 * mean).sum(0) / n_terms.sum())
    alike = [i for i in range(N) if n_terms[i] == n_terms[0]]
    assert 1 < len(alike) < N
    pair = [
        recipes.grouped_fisher(scope_of(name, torch.float64), samples_of(name)[alike], reduction=r)["importance"]
        for r in ("mean", "sum")
    ]
    close(pair[1], n_terms[0] * pair[0])


# --- whatever the cut, the padding, the order and the type ---------------------------------------------------------------------


def everything(name, samples, chunk=None, dtype=torch.float32):
    """Every number of the recipes, by name; with the dimension that samples lie on where there is one."""
    scope = scope_of(name, dtype)
    kinds = [kind for kind in GRANULARITIES if kind != "head" or name in TOKENS]
    fisher = [recipes.grouped_fisher.using(name=kind, granularity=kind, per_sample=True, chunk=chunk) for kind in kinds]
    study = ts.Study(scope, samples).run(
        *fisher, recipes.gradient_health.using(chunk=chunk), recipes.fisher_spectrum.using(chunk=chunk)
    )
    found = {f"{recipe}.{variable}": values for recipe in study for variable, values in study[recipe].items()}
    for kind, importance in {
        "fisher": recipes.fisher_importance(scope, samples, chunk=chunk),
        **{v: recipes.taylor_importance(scope, samples, variant=v, chunk=chunk) for v in ("first_order", "absolute", "squared")},
    }.items():
        found[f"importance.{kind}"] = torch.cat([v.flatten().double() for v in importance.values()]).numpy()
    return found


@functools.cache
def baseline(name):
    return everything(name, samples_of(name))


def agree(found, expected, tolerance):
    """On the scale of the largest of each variable; judgements and counts exactly."""
    assert found.keys() == expected.keys()
    for variable, value in expected.items():
        if value.dtype == object:  # names
            continue
        a, b = np.asarray(found[variable], dtype=float), np.asarray(value, dtype=float)
        if variable.endswith("noise_scale"):  # its reciprocal: the signal may be near zero
            a, b = 1 / a, 1 / b
        assert a.shape == b.shape and (np.isnan(a) == np.isnan(b)).all(), variable
        differ = (a != b) & ~np.isnan(b)  # infinity equals itself
        scale = np.nanmax(np.abs(b), initial=0.0)
        assert np.abs(a[differ] - b[differ]).max(initial=0.0) <= tolerance * (scale if value.dtype.kind == "f" else 0), variable


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    chunk=st.integers(1, N + 2),
    order=st.permutations(range(N)),
    side=st.sampled_from(["left", "right"]),
    extra=st.integers(0, 3),
    pad=st.sampled_from([0, 7, 49]),
)
def test_nothing_depends_on_chunks_padding_or_order(name, chunk, order, side, extra, pad):
    samples = samples_of(name, order, side, extra, pad)
    found = everything(name, samples, chunk)
    for variable, value in found.items():
        if variable.endswith("importance_by_sample"):
            assert value["sample"].values.tolist() == [f"samples-{i}" for i in order]
            found[variable] = value.sel(sample=[f"samples-{i}" for i in range(N)])
    agree(found, baseline(name), 2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_is_right_to_five_digits(name):
    agree(baseline(name), everything(name, samples_of(name), dtype=torch.float64), 1e-5)


# Relative to the largest of each: bfloat16 keeps 8 bits (4e-3), squares double that, small groups average over less, and a
# unit near zero may be on in one precision and off in the other: single weights of the model's own gradients differ by 7 %.
BFLOAT16 = {
    "module.importance": 0.02, "layer.importance": 0.02, "channel.importance": 0.06, "head.importance": 0.05,
    "gradient_health.noise": 0.02, "gradient_health.backward_rms": 0.01, "gradient_health.grad_norm": 0.03,
    "fisher_spectrum.trace": 0.02, "fisher_spectrum.top_eigenvalue": 0.03, "fisher_spectrum.eigenvalue": 0.03,
    "fisher_spectrum.concentration": 0.01, "importance.fisher": 0.1, "importance.absolute": 0.06, "importance.squared": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_is_right_to_its_precision(name):
    found, expected = everything(name, samples_of(name), dtype=torch.bfloat16), baseline(name)
    for variable, tolerance in BFLOAT16.items():
        if variable in expected:
            agree({variable: found[variable]}, {variable: expected[variable]}, tolerance)


# --- closed forms ------------------------------------------------------------------------------------------------------------


class Bowl(torch.nn.Module):
    """ℓᵢ = ½ (w − aᵢ)ᵀ A (w − aᵢ): gᵢ = A (w − aᵢ)."""

    def __init__(self, w, curvature):
        super().__init__()
        self.w = torch.nn.Parameter(w)
        self.register_buffer("curvature", curvature)

    def forward(self, a):
        return 0.5 * ((self.w - a) @ self.curvature * (self.w - a)).sum(1)


def test_the_fisher_of_a_quadratic():
    generator = torch.Generator().manual_seed(5)
    half = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    curvature, w = half @ half.T, torch.randn(6, generator=generator, dtype=torch.float64)
    a = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    scope, samples = ts.Scope(Bowl(w, curvature), loss=lambda out, _: out), ts.Samples.tensors(a, torch.zeros(40))
    g = (w - a) @ curvature
    close(recipes.fisher_importance(scope, samples)["w"], (g**2).mean(0), rtol=1e-6)
    close(recipes.taylor_importance(scope, samples)["w"], (g.mean(0) * w).abs(), rtol=1e-6)
    close(recipes.taylor_importance(scope, samples, variant="absolute")["w"], (g * w).abs().mean(0), rtol=1e-6)
    found = recipes.fisher_spectrum(scope, samples)
    dense = torch.linalg.eigvalsh(g.T @ g / 40).flip(0)
    close(found["eigenvalue"].values[:6], dense)
    assert np.abs(found["eigenvalue"].values[6:]).max() < 1e-10 * float(dense[0])
    close(found["condition_number"], dense[0] / dense[-1])
    fisher = recipes.grouped_fisher(scope, samples)
    close(fisher["importance"].values, [float(dense.sum())])


def test_the_diagonal_fisher_of_linear_regression_is_the_input_power_times_the_noise():
    """y = wᵀx + ε at the true w: F_kk = E[x_k²] σ², within 4 standard errors of the mean of ε² x_k²."""
    n, sigma, scales = 4000, 0.7, torch.tensor([0.5, 1.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, -2.0, 0.5]])
    x = scales * torch.randn(n, 3, generator=generator)
    y = model(x).detach() + sigma * torch.randn(n, 1, generator=generator)
    scope = ts.Scope(model, loss=lambda out, target: 0.5 * ((out - target) ** 2)[:, 0])
    found = recipes.fisher_importance(scope, (x, y))["weight"][0].double()
    expected = scales.double() ** 2 * sigma**2
    error = expected * (3 * 3 - 1) ** 0.5 / n**0.5  # E[ε⁴] E[x⁴] = 9 (σ² E[x²])²
    assert ((found - expected).abs() < 4 * error).all()
    assert ((found - expected).abs() > 1e-3 * error).all()  # an estimate from samples, and not the formula itself


@pytest.mark.parametrize("name", ["gpt2", "cnn"])
def test_data_given_twice_change_no_share_and_no_mass(name):
    once, samples = scope_of(name, torch.float64), samples_of(name)
    twice = samples + samples.renamed([f"again-{i}" for i in range(N)])
    a, b = (recipes.fisher_spectrum(once, s, k=2) for s in (samples, twice))
    close(b["eigenvalue"].values[:N], a["eigenvalue"].values, floor=1e-9)
    assert np.abs(b["eigenvalue"].values[N:]).max() < 1e-9 * float(a["eigenvalue"][0])
    for variable in ("concentration", "top_eigenvalue", "effective_rank", "trace", "total_concentration", "spectral_gap"):
        close(b[variable], a[variable], rtol=1e-4)
    a, b = (recipes.grouped_fisher(once, s) for s in (samples, twice))
    close(b["importance"], a["importance"])
    close(b["variance"] * (2 * N - 1) / (2 * N), a["variance"] * (N - 1) / N)
    assert (b["ci_high"] - b["ci_low"] < a["ci_high"] - a["ci_low"]).all()  # as if it were more data: the caller must not


@pytest.mark.parametrize("draw", ["squared Gaussian", "gamma", "log-normal"])
def test_the_interval_misses_mostly_with_the_truth_above(draw):
    """What the result says of itself; and it stays positive and around its mean, at the fewest samples too."""
    rng = np.random.default_rng(1)
    make, mean = {
        "squared Gaussian": (lambda n: rng.normal(0, 1, (n, 2000)) ** 2, 1.0),
        "gamma": (lambda n: rng.gamma(0.5, 1.0, (n, 2000)), 0.5),
        "log-normal": (lambda n: rng.lognormal(0, 1, (n, 2000)), np.exp(0.5)),
    }[draw]
    _, low, high = log_t_interval(make(64))
    assert (high < mean).mean() > (low > mean).mean()
    assert 0.85 <= ((low <= mean) & (mean <= high)).mean() <= 0.97
    m, low, high = log_t_interval(make(8))
    assert (low > 0).all() and (low < m).all() and (m < high).all()
    assert np.allclose(np.sqrt(low * high), m)  # symmetric on the log scale
