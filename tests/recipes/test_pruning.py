"""Pruning curves: the prediction against closed forms, the measurement against pruning by hand."""

import copy
import json
import signal

import numpy as np
import pytest
import torch
from curved_models import dense_ggn, perceptron
from tiny_models import random_gpt2
from torch import nn

import tensorscope_nb as ts
from tensorscope_nb.sweep.request import Unfinished

prune_curve = ts.recipes.prune_curve


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def linear(n=4000):
    """A linear classifier, whose curvature is known in closed form, with small weights: second order is all there is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 3, bias=False)).double()
        model[0].weight.data *= 0.3
        x = torch.randn(n, 6).double()
        y = torch.multinomial(model(x).softmax(1), 1)[:, 0].detach()  # the model is the truth: no gradient is left
    return ts.Scope(model), ts.Samples.tensors(x, y)


def language():
    ids = torch.randint(1, 50, (16, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, 6:] = 0
    return ts.Scope(random_gpt2()), ts.Samples.tokens(ids, mask)


def test_the_prediction_is_half_the_curvature_times_the_squared_weights():
    scope, samples = linear()
    curve = prune_curve(scope, samples, sparsities=np.arange(19) / 18)
    w = scope.model[0].weight.detach().flatten()
    saliency = 0.5 * torch.diagonal(dense_ggn(scope, samples)) * w**2
    truth = torch.cat([torch.zeros(1), saliency.sort().values.cumsum(0)])
    low, high = curve["predicted_increase_ci_low"].values, curve["predicted_increase_ci_high"].values
    np.testing.assert_allclose(curve["predicted_increase"], truth, rtol=0.05, atol=1e-3 * float(truth[-1]))
    assert ((low <= truth.numpy()) & (truth.numpy() <= high))[1:].mean() > 0.8
    assert float(curve["predicted_increase"][0]) == 0 == float(curve["n_pruned"][0]) and int(curve["n_pruned"][-1]) == 18


def test_where_only_curvature_is_left_the_prediction_is_what_happens():
    scope, samples = linear()
    curve = prune_curve(scope, samples, sparsities=(1 / 18, 2 / 18), measure=True)
    total = curve["predicted_increase"] + curve["first_order"]
    np.testing.assert_allclose(curve["measured_increase"], total, rtol=0.15, atol=2e-4)


@pytest.mark.parametrize("order", ["saliency", "magnitude", "random"])
def test_what_is_measured_is_the_loss_of_the_pruned_model(order):
    scope, samples = language()
    curve = prune_curve(scope, samples, sparsities=(0.25, 0.6), measure=True, order=order, seed=5)
    base = ts.Scope(copy.deepcopy(scope.model))
    weights = [p for p in base.model.parameters() if p.ndim >= 2]
    total = sum(p.nelement() for p in weights)
    flat = torch.cat([p.detach().flatten() for p in weights])
    if order == "saliency":
        names = [n for n, p in scope.model.named_parameters() if p.ndim >= 2]
        drawn = [ts.recipes.fisher_importance(scope, samples, kind="mc", reduction="sum", seed=20 + i) for i in range(4)]
        ranking = torch.argsort(sum(torch.cat([each[n].flatten() for n in names]) for each in drawn) * flat**2)
    elif order == "magnitude":
        ranking = torch.argsort(flat.abs())
    else:
        ranking = torch.randperm(total, generator=torch.Generator().manual_seed(5))
    terms = base.rule.n_terms(samples).double()
    before = base.losses(samples).double()
    for i, share in enumerate((0.25, 0.6)):
        kept = torch.ones(total)
        kept[ranking[: round(share * total)]] = 0
        start = 0
        for p in weights:
            p.data.mul_(kept[start : start + p.nelement()].view(p.shape))
            start += p.nelement()
        each = base.losses(samples).double() - before
        assert float(curve["measured_increase"][i]) == pytest.approx(float((each * terms).sum() / terms.sum()), rel=2e-3)
    assert curve["n_pruned"].values.tolist() == [round(0.25 * total), round(0.6 * total)]
    sizes = {n.rpartition(".")[0]: p.nelement() for n, p in scope.model.named_parameters() if p.ndim >= 2}
    shares = [sum(float(curve["pruned_fraction"].sel(module=m)[i]) * size for m, size in sizes.items()) for i in range(2)]
    np.testing.assert_allclose(shares, curve["n_pruned"])


def test_the_first_order_part_is_the_gradient():
    scope, samples = language()
    curve = prune_curve(scope, samples, sparsities=(1.0,))
    losses = scope.rule.per_token(
        scope.model(
            samples.input_ids,
            attention_mask=samples.attention_mask,
            position_ids=(samples.attention_mask.cumsum(1) - 1).clamp(min=0),
        ).logits,
        samples,
    )
    weights = [p for p in scope.model.parameters() if p.ndim >= 2]
    gradients = torch.autograd.grad(losses[0].sum() / losses[1].sum(), weights)
    expected = -sum(float((g * w.detach()).sum()) for g, w in zip(gradients, weights, strict=True))
    assert float(curve["first_order"][0]) == pytest.approx(expected, rel=1e-3)


def test_the_model_is_left_bit_for_bit():
    scope, samples = language()
    before = {n: p.detach().clone() for n, p in scope.model.state_dict().items()}
    state = torch.get_rng_state()
    prune_curve(scope, samples, measure=True)
    assert all(torch.equal(p, before[n]) for n, p in scope.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupt_keeps_what_is_measured():
    scope, samples = language()
    before = {n: p.detach().clone() for n, p in scope.model.state_dict().items()}

    pruned = []

    def stop(module, args, kwargs):
        pruned.append(sum(int((p == 0).sum()) for p in module.parameters() if p.ndim >= 2) > 0)
        if sum(pruned) == 3:
            signal.raise_signal(signal.SIGINT)

    hook = scope.model.register_forward_pre_hook(stop, with_kwargs=True)
    with pytest.raises(Unfinished) as ended:
        prune_curve(scope, samples, sparsities=(0.1, 0.2, 0.3, 0.4), measure=True)
    hook.remove()
    curve = ended.value.results[0]
    assert json.loads(curve.attrs["tensorscope"])["partial"]
    assert np.isfinite(curve["measured_increase"]).values.tolist() == [True, True, False, False]
    assert np.isfinite(curve["predicted_increase"]).all()
    assert all(torch.equal(p, before[n]) for n, p in scope.model.state_dict().items())


def test_only_the_chosen_modules_are_pruned_and_never_biases():
    scope, samples = language()
    curve = prune_curve(scope, samples, sparsities=(1.0,), measure=True, modules="*.mlp.c_fc")
    assert curve["module"].values.tolist() == ["transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"]
    assert int(curve["n_pruned"][0]) == 2 * scope.model.transformer.h[0].mlp.c_fc.weight.nelement()


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"sparsities": (0.5, 1.5)}, ValueError, "sparsities is"),
        ({"sparsities": ()}, ValueError, "sparsities is"),
        ({"sparsities": (0.5, 0.5)}, ValueError, "each once"),
        ({"order": "size"}, ValueError, "order is 'size'"),
        ({"modules": "*.ln_1"}, LookupError, "biases and norms only"),
    ],
)
def test_bad_options_get_one_clear_line(options, error, words):
    with pytest.raises(error, match=words):
        prune_curve(*language(), **options)


def test_little_memory_is_refused_before_anything_runs():
    with ts.options(memory=100_000), pytest.raises(ValueError, match=r"saliencies .* raise ts.options\(memory"):
        prune_curve(*language())


def test_the_increase_is_measured_on_other_samples_where_they_are_given():
    scope, samples = language()
    curve = prune_curve(scope, samples[:8], measure=True, evaluation=samples[8:], sparsities=(0.3,))
    own = prune_curve(scope, samples[:8], measure=True, sparsities=(0.3,))
    assert float(curve["predicted_increase"][0]) == float(own["predicted_increase"][0])
    terms = scope.rule.n_terms(samples[8:]).double()
    assert float(curve["loss"]) == pytest.approx(float((scope.losses(samples[8:]) * terms).sum() / terms.sum()), rel=1e-5)
    with pytest.raises(ValueError, match="pass measure=True"):
        prune_curve(scope, samples[:8], evaluation=samples[8:])


def test_a_loss_that_is_no_likelihood_is_refused():
    scope, samples = perceptron()
    scope = ts.Scope(scope.model, loss=lambda output, y: output.sum(1))
    with pytest.raises(ts.UnsupportedModel, match="likelihood of labels"):
        prune_curve(scope, samples)
