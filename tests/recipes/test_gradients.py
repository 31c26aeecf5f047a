"""Gradient health, Fisher masses and spectrum, importances: closed forms, and sums that must add up."""

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.numerics.intervals import log_t_interval

IDS = torch.randint(1, 50, (9, 12), generator=torch.Generator().manual_seed(1))


class Point(torch.nn.Module):
    """ℓᵢ = ½‖w − aᵢ‖²: gᵢ = w − aᵢ."""

    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(w)

    def forward(self, x):
        return self.w - x


def half_square(output, _):
    return 0.5 * (output**2).flatten(1).sum(1)


def point(d, n, mean=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=generator)
    return (
        ts.Scope(Point(torch.full((d,), mean)), loss=half_square),
        ts.Samples.tensors(a, torch.zeros(n)),
        torch.full((d,), mean) - a,
    )


def test_signal_and_noise_of_the_quadratic():
    scope, samples, g = point(6, 40, mean=0.5)
    health = ts.recipes.gradient_health(scope, samples).isel(module=0)
    mean = g.mean(0).double()
    n = 40
    signal = ((g.double().sum(0) ** 2).sum() - (g.double() ** 2).sum()) / (n * (n - 1))
    noise = ((g.double() - mean) ** 2).sum() / (n - 1)
    for name, value in {
        "grad_norm": mean.norm(),
        "signal": signal,
        "noise": noise,
        "snr": signal / noise,
        "noise_scale": noise / signal,
    }.items():
        assert np.isclose(health[name], value, rtol=1e-5), name
    assert np.isclose(health["grad_rms"], mean.norm() / 6**0.5, rtol=1e-5)


def test_the_signal_is_unbiased_whatever_the_size():
    """Pure noise: the signal is zero on average, and its ratio to the noise does not grow with the number of weights."""
    for d in (10, 1000):
        ratios = [float(ts.recipes.gradient_health(*point(d, 8, seed=s)[:2])["snr"][0]) for s in range(60)]
        error = np.std(ratios) / np.sqrt(len(ratios))
        assert abs(np.mean(ratios)) < 3.5 * error and min(ratios) < 0
    undefined = [ts.recipes.gradient_health(*point(10, 8, seed=s)[:2]) for s in range(6)]
    assert all(np.isnan(h["noise_scale"][0]) == (h["signal"][0] <= 0).item() for h in undefined)


@pytest.mark.parametrize("c", [0.5, 2.0])
def test_the_depth_slope_of_a_linear_chain(c):
    layers = [torch.nn.Linear(4, 4, bias=False) for _ in range(6)]
    for layer in layers:
        layer.weight.data = c * torch.eye(4)
    scope = ts.Scope(torch.nn.Sequential(*layers), loss=lambda out, y: out.sum(1))
    samples = ts.Samples.tensors(torch.rand(5, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(5))
    health = ts.recipes.gradient_health(scope, samples)
    assert np.isclose(health.attrs["depth_slope"], -np.log(c), atol=1e-6)
    assert np.allclose(health["backward_rms"], c ** (5 - np.arange(6.0)))
    assert np.allclose(health["grad_rms"], health["grad_rms"][0], rtol=1e-5)  # the weights' own gradients do not see it


def test_planted_dead_units_are_found_exactly():
    model = build("mlp")
    relu = torch.nn.Sequential(model[0], torch.nn.ReLU(), model[2], torch.nn.ReLU(), model[4])
    relu[0].weight.data[[1, 5]], relu[0].bias.data[[1, 5]] = 0, -1
    relu[2].weight.data[3], relu[2].bias.data[3] = 0, -1
    samples = ts.Samples.tensors(torch.rand(30, 10, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)
    health = ts.recipes.gradient_health(ts.Scope(relu), samples)
    with torch.no_grad():
        first, second = relu[1](relu[0](samples.inputs["x"])), relu[:4](samples.inputs["x"])
    for layer, activation in ((0, first), (1, second)):
        truly = (activation == 0).all(0)
        found = health["dead"].sel(layer=layer).values[: len(truly)] == 1
        assert (found[truly.numpy()]).all()
    assert health["dead"].sel(layer=0).values[[1, 5]].tolist() == [1, 1] and health["dead"].sel(layer=1).values[3] == 1
    assert (health["n_dead"].values >= [2, 1, 0]).all() and health["n_neurons"].values.tolist() == [8, 8, 3]


def test_a_dead_unit_of_a_transformer():
    model = random_gpt2(activation_function="relu")
    model.transformer.h[1].mlp.c_fc.weight.data[:, 7], model.transformer.h[1].mlp.c_fc.bias.data[7] = 0, -1
    scope = ts.Scope(model)
    health = ts.recipes.gradient_health(scope, IDS)
    active = scope.record(IDS, "layers.*.mlp.post")
    for i in range(2):
        expected = (active[f"layers.{i}.mlp.post"] == 0).flatten(0, 1).all(0)
        assert np.array_equal(health["dead"].sel(layer=i).values == 1, expected.numpy())
    assert health["dead"].sel(layer=1, neuron=7) == 1


def test_the_update_ratio_judges_where_a_learning_rate_is_given():
    scope = ts.Scope(random_gpt2())
    health = ts.recipes.gradient_health(scope, IDS, learning_rate=1e-9)
    assert health["vanishing"].all() and not health["exploding"].any()
    weights = scope.model.transformer.h[0].mlp.c_fc
    norm = (weights.weight.double().norm() ** 2 + weights.bias.double().norm() ** 2).sqrt()
    row = health.sel(module="transformer.h.0.mlp.c_fc")
    assert np.isclose(row["update_ratio"], 1e-9 * row["grad_norm"] / norm.item(), rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_fisher_masses_add_up_at_every_granularity(name):
    scope = ts.Scope(build(name))
    g = scope.per_sample_gradients(IDS)
    trace = sum(float((v.double() ** 2).sum()) for v in g.values()) / 9
    by = {
        kind: ts.recipes.grouped_fisher(scope, IDS, granularity=kind, chunk=4) for kind in ("module", "layer", "head", "channel")
    }
    assert np.isclose(by["module"]["importance"].sum(), trace, rtol=1e-4)
    assert np.allclose(by["channel"]["importance"].sum("channel"), by["module"]["importance"], rtol=1e-4)
    inside = by["module"].where(by["module"]["module_layer"] >= 0, drop=True)
    assert np.allclose(inside["importance"].groupby("module_layer").sum(), by["layer"]["importance"], rtol=1e-4)
    assert int(by["module"]["n_parameters"].sum()) == sum(p.numel() for p in scope.model.parameters())
    assert int(by["channel"]["n_parameters"].sum()) == int(by["module"]["n_parameters"].sum())
    heads = (by["head"]["importance"] / by["head"]["n_sharing"]).sum(["head", "block"])
    attention = [m for m in g if any(part in m for part in ("attn.c_attn", "q_proj", "k_proj", "v_proj", "query_key_value"))]
    attention += [m for m in g if m.endswith(("attn.c_proj.weight", "o_proj.weight", "attention.dense.weight"))]
    expected = sum(float((g[m].double() ** 2).sum()) for m in attention) / 9
    assert np.isclose(heads.sum(), expected, rtol=1e-4)
    sizes = (by["head"]["n_parameters"] / by["head"]["n_sharing"]).sum()
    assert np.isclose(sizes, sum(g[m][0].numel() for m in attention))


def test_the_fisher_of_one_head_is_that_of_its_slice():
    scope = ts.Scope(build("llama"))
    found = ts.recipes.grouped_fisher(scope, IDS, granularity="head", per_sample=True)["importance_by_sample"]
    g = scope.per_sample_gradients(IDS)
    for block in "QKVO":
        piece = scope.anatomy.slice(1, block, 3)
        expected = (g[piece.parameter].narrow(piece.axis + 1, piece.start, piece.stop - piece.start) ** 2).flatten(1).sum(1)
        assert np.allclose(found.sel(layer=1, head=3, block=block), expected, rtol=1e-4)


def test_squares_are_of_samples_and_not_of_batches():
    scope = ts.Scope(random_gpt2())
    whole = ts.recipes.grouped_fisher(scope, IDS)["importance"]
    assert np.allclose(whole, ts.recipes.grouped_fisher(scope, IDS, chunk=1)["importance"], rtol=1e-4)
    mean = {n: g.mean(0) for n, g in scope.per_sample_gradients(IDS).items()}
    batch = sum(float((g**2).sum()) for g in mean.values())
    assert float(whole.sum()) > 2 * batch
    fisher = ts.recipes.fisher_importance(scope, IDS)
    turned = ts.recipes.fisher_importance(scope, IDS[torch.randperm(9)], chunk=2)
    assert all(torch.allclose(fisher[n], turned[n], rtol=1e-3, atol=1e-9) for n in fisher)


def test_the_fisher_of_a_linear_gaussian_model():
    """y = w x + ε, ε ~ N(0, σ²), at the true w: F = E[x²]."""
    generator = torch.Generator().manual_seed(0)
    x, sigma = 2 * torch.randn(6000, 1, generator=generator), 0.5
    model = torch.nn.Linear(1, 1, bias=False)
    y = x * model.weight.item() + sigma * torch.randn(6000, 1, generator=generator)
    scope = ts.Scope(model, loss=lambda out, target: ((out - target) ** 2)[:, 0] / (2 * sigma**2))
    found = ts.recipes.grouped_fisher(scope, (x, y)).isel(module=0)
    assert np.isclose(found["importance"], 4 / sigma**2, rtol=0.1)
    assert found["ci_low"] < 4 / sigma**2 < found["ci_high"]


def test_the_interval_covers_as_it_says():
    rng = np.random.default_rng(0)
    for draw, mean, least in (
        (lambda: rng.gamma(2.0, 1.0, (64, 3000)), 2.0, 0.93),
        (lambda: rng.normal(0, 1, (64, 3000)) ** 2, 1.0, 0.93),
        (lambda: rng.lognormal(0, 1, (64, 3000)), np.exp(0.5), 0.85),
    ):
        _, low, high = log_t_interval(draw())
        assert least <= ((low <= mean) & (mean <= high)).mean() <= 0.97
    assert np.isnan(log_t_interval(np.ones((7, 1)))[1]).all()


def test_the_spectrum_equals_that_of_the_dense_fisher():
    scope = ts.Scope(build("mlp"))
    samples = ts.Samples.tensors(torch.rand(12, 10, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    found = ts.recipes.fisher_spectrum(scope, samples, k=3)
    g = torch.cat([v.flatten(1) for v in scope.per_sample_gradients(samples).values()], 1).double()
    dense = torch.linalg.eigvalsh(g.T @ g / 12).flip(0)[:12]
    assert np.allclose(found["eigenvalue"], dense, rtol=1e-4, atol=1e-7 * float(dense[0]))
    assert np.isclose(found["eigenvalue"].sum(), (g**2).sum() / 12, rtol=1e-5)
    assert np.isclose(found["total_concentration"], dense[:3].sum() / dense.sum(), rtol=1e-5) and np.isinf(
        found["condition_number"]
    )
    assert np.isclose(found["spectral_gap"], dense[0] - dense[1], rtol=1e-4) and found["spectral_gap"] > 0
    assert np.isclose(found["trace"].sum(), found["eigenvalue"].sum(), rtol=1e-5)  # an MLP has all its weights in layers
    assert (found["top_eigenvalue"] <= found["eigenvalue"][0] + 1e-9).all()


def test_duplicated_data_leave_the_spectrum_alone():
    scope = ts.Scope(random_gpt2())
    once = ts.recipes.fisher_spectrum(scope, IDS)
    twice = ts.recipes.fisher_spectrum(scope, torch.cat([IDS, IDS]))
    assert np.allclose(twice["eigenvalue"][:9], once["eigenvalue"], rtol=1e-4)
    assert np.allclose(twice["eigenvalue"][9:], 0, atol=1e-6)
    assert np.allclose(twice["effective_rank"], once["effective_rank"], rtol=1e-3)


def test_orthogonal_gradients_have_their_norms_as_eigenvalues():
    scope = ts.Scope(Point(torch.zeros(5)), loss=half_square)
    a = torch.diag(torch.tensor([3.0, 1.0, 2.0, 0.5, 4.0]))
    found = ts.recipes.fisher_spectrum(scope, ts.Samples.tensors(a, torch.zeros(5)))
    assert np.allclose(found["eigenvalue"], np.array([16, 9, 4, 1, 0.25]) / 5, rtol=1e-5)


def test_the_fisher_of_summed_losses_is_on_the_scale_of_the_curvature():
    """A softmax classifier over tokens at its own labels: ΣF / ΣH within METRICS' bounds, the mean's is n times smaller."""
    scope = ts.load("tiny")
    samples = ts.datasets.shakespeare(scope, n=24, length=48)
    modules = "transformer.ln_f"
    f_sum = ts.recipes.fisher_importance(scope, samples, reduction="sum", modules=modules)["transformer.ln_f.weight"].sum()
    f_mean = ts.recipes.fisher_importance(scope, samples, modules=modules)["transformer.ln_f.weight"].sum()
    weight = scope.model.transformer.ln_f.weight
    total = (scope.rule.per_sample(scope.model(samples.input_ids).logits, samples) * 47).sum() / (24 * 47)
    (g,) = torch.autograd.grad(total, weight, create_graph=True)
    hessian = sum(float(torch.autograd.grad(g[i], weight, retain_graph=True)[0][i]) for i in range(len(g)))
    assert 0.5 < float(f_sum) / hessian < 1.5
    assert float(f_mean) / hessian < 0.1


def test_importances_against_per_sample_gradients():
    scope = ts.Scope(random_gpt2())
    g = scope.per_sample_gradients(IDS)
    weights = dict(scope.model.named_parameters())
    name = "transformer.h.0.attn.c_attn.weight"
    w = weights[name].detach()
    expected = {
        "fisher": (g[name] ** 2).mean(0),
        "first_order": (g[name].mean(0) * w).abs(),
        "absolute": (g[name] * w).abs().mean(0),
        "squared": ((g[name] * w) ** 2).mean(0),
        "magnitude": w.abs(),
    }
    found = {
        v: ts.recipes.taylor_importance(scope, IDS, variant=v, chunk=4)[name] for v in ("first_order", "absolute", "squared")
    }
    found |= {
        "fisher": ts.recipes.fisher_importance(scope, IDS, chunk=4)[name],
        "magnitude": ts.recipes.magnitude_importance(scope)[name],
    }
    for kind, value in expected.items():
        assert torch.allclose(found[kind], value, rtol=1e-3, atol=1e-8), kind
    saliency = ts.recipes.fisher_importance(scope, IDS, saliency=True)[name]
    assert torch.allclose(saliency, 0.5 * expected["fisher"] * w**2, rtol=1e-3, atol=1e-9)


def test_removing_a_weight_of_the_quadratic():
    """ℓ(w with w_k = 0) − ℓ(w) = −ḡ_k w_k + ½ w_k² exactly, for ½‖w − a‖²."""
    w = torch.tensor([0.7, -0.3, 1.5])
    a = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    scope = ts.Scope(Point(w.clone()), loss=half_square)
    samples = ts.Samples.tensors(a, torch.zeros(20))
    first = ts.recipes.taylor_importance(scope, samples)["w"]
    g = (w - a).mean(0)
    assert torch.allclose(first, (g * w).abs(), atol=1e-6)
    for k in range(3):
        cut = w.clone()
        cut[k] = 0
        change = ts.Scope(Point(cut), loss=half_square).losses(samples).mean() - scope.losses(samples).mean()
        assert torch.allclose(change, -g[k] * w[k] + 0.5 * w[k] ** 2, atol=1e-5)


def test_masks_keep_exactly_as_many_as_asked(tmp_path):
    scope = ts.Scope(random_gpt2())
    importance = ts.recipes.fisher_importance(scope, IDS)
    total = sum(v.numel() for v in importance.values())
    for share in (0.001, 0.37, 1.0):
        mask = importance.mask(share)
        assert sum(int(m.sum()) for m in mask.values()) == round(share * total)
    mask = importance.mask(0.1)
    kept = torch.cat([importance[n][mask[n]] for n in mask])
    dropped = torch.cat([importance[n][~mask[n]] for n in mask])
    assert kept.min() >= dropped.max()
    summary = importance.summary()
    assert np.isclose(summary["total"].sum(), sum(float(v.double().sum()) for v in importance.values()))
    from safetensors.torch import load_file

    loaded = load_file(importance.save(tmp_path / "fisher.safetensors"))
    assert all(torch.equal(loaded[n], importance[n]) for n in importance)
    with pytest.raises(FileNotFoundError, match="make it first"):
        importance.save(tmp_path / "none" / "x.safetensors")


def test_hybrid_ranks_do_not_let_a_scale_rule():
    scope = ts.Scope(random_gpt2())
    only = ts.recipes.hybrid_importance(scope, IDS, weights={"magnitude": 1})
    magnitude = ts.recipes.magnitude_importance(scope)
    flat, ranks = (torch.cat([v.flatten() for v in i.values()]) for i in (magnitude, only))
    assert torch.equal(flat.argsort(), ranks.argsort()) or torch.allclose(flat[ranks.argsort()], flat.sort().values)
    assert ranks.min() == 0 and ranks.max() == 1
    mixed = ts.recipes.hybrid_importance(scope, IDS, weights={"magnitude": 1, "fisher": 3})
    fisher = ts.recipes.hybrid_importance(scope, IDS, weights={"fisher": 1})
    name = "transformer.wpe.weight"
    assert torch.allclose(mixed[name], 0.25 * only[name] + 0.75 * fisher[name], atol=1e-6)


def test_the_spectrum_of_summed_losses_has_one_scale():
    scope = ts.Scope(random_gpt2())
    spectrum = ts.recipes.fisher_spectrum(scope, IDS, reduction="sum")
    by_layer = ts.recipes.grouped_fisher(scope, IDS, granularity="layer", reduction="sum")
    assert np.allclose(spectrum["trace"], by_layer["importance"], rtol=1e-4)


def test_the_condition_number_where_there_are_more_samples_than_weights():
    model = torch.nn.Linear(2, 1)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    scope = ts.Scope(model, loss=lambda out, y: 0.5 * ((out - y) ** 2)[:, 0])
    y = torch.randn(20, 1, generator=torch.Generator().manual_seed(1))
    found = ts.recipes.fisher_spectrum(scope, (x, y))
    residual = (model(x) - y).detach()
    g = torch.cat([residual * x, residual], 1).double()
    dense = torch.linalg.eigvalsh(g.T @ g / 20)
    assert np.isclose(found["condition_number"], dense[-1] / dense[0], rtol=1e-3)


def test_the_dead_tolerance_is_a_share_of_the_layers_rms():
    scope = ts.Scope(random_gpt2())
    found = ts.recipes.gradient_health(scope, IDS, dead_tolerance=1.0)
    active = scope.record(IDS, "layers.*.mlp.post")
    for i in range(2):
        a = active[f"layers.{i}.mlp.post"].flatten(0, 1).double()
        assert int(found["n_dead"][i]) == int((a.abs().max(0).values <= a.pow(2).mean().sqrt()).sum())
    assert int(found["n_dead"].sum()) > 0


def test_equal_samples_have_no_noise():
    found = ts.recipes.gradient_health(ts.Scope(random_gpt2()), IDS[:1].repeat(6, 1))
    assert (found["noise"] == 0).all() and np.isinf(found["snr"]).all() and (found["noise_scale"] == 0).all()


def test_half_precision_gradients_do_not_underflow():
    model = random_gpt2().half()
    samples = ts.Samples.tokens(IDS)
    rule = ts.Scope(random_gpt2()).rule
    scope = ts.Scope(model, loss=lambda out, labels: 1e-3 * rule.per_sample(out, ts.Samples.tokens(labels)))
    found = ts.recipes.grouped_fisher(scope, samples)["importance"]
    full = ts.recipes.grouped_fisher(ts.Scope(random_gpt2()), samples)["importance"] * 1e-6
    assert np.allclose(found, full, rtol=0.2)


def test_channels_of_a_module_with_parameters_of_several_lengths():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 4))
            self.scale = torch.nn.Parameter(torch.tensor(2.0))
            self.shift = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.scale * x @ self.weight.T + self.shift

    scope = ts.Scope(Odd())
    samples = ts.Samples.tensors(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    channels = ts.recipes.grouped_fisher(scope, samples, granularity="channel")
    g = scope.per_sample_gradients(samples)
    assert np.allclose(channels["importance"].sum("channel"), (g["weight"] ** 2).sum() / 6, rtol=1e-4)
    whole = ts.recipes.grouped_fisher(scope, samples)["importance"]
    assert np.isclose(whole, sum(float((v**2).sum()) for v in g.values()) / 6, rtol=1e-4).all()
    assert ts.recipes.fisher_importance(scope, samples)["scale"].shape == ()


def test_modules_that_leave_nothing_are_said():
    scope = ts.Scope(random_gpt2())
    with pytest.raises(LookupError, match="leaves no weights in any head"):
        ts.recipes.grouped_fisher(scope, IDS, granularity="head", modules="*.mlp.*")
    with pytest.raises(LookupError, match="leaves no weights in any layer"):
        ts.recipes.grouped_fisher(scope, IDS, granularity="layer", modules="*wte")
