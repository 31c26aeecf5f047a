"""``per_sample=True``: what each sample has, against that sample alone, for every recipe that reads gradients."""

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(1, 50, (5, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[2, 7:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
recipes = ts.recipes


@pytest.mark.parametrize(
    "recipe",
    [
        recipes.fisher_importance,
        recipes.fisher_importance.using(saliency=True),
        recipes.fisher_importance.using(kind="mc", seed=3),
        recipes.taylor_importance,
        recipes.taylor_importance.using(variant="absolute"),
        recipes.taylor_importance.using(variant="squared"),
        recipes.magnitude_importance,
        recipes.hybrid_importance.using(weights={"fisher": 1, "taylor": 1, "magnitude": 1}),
    ],
    ids=lambda r: " ".join([r.name, *map(str, r.options.values())]),
)
def test_the_totals_of_a_sample_are_those_it_would_give_alone(recipe):
    scope = ts.Scope(random_gpt2())
    whole = recipe(scope, SAMPLES, per_sample=True)
    plain = recipe(scope, SAMPLES)
    assert all(torch.allclose(whole[n], plain[n], rtol=1e-4, atol=1e-8) for n in plain)
    found = whole.summary()["total_by_sample"]
    assert found.dims == ("sample", "module") and found["sample"].values.tolist() == list(SAMPLES.ids)
    for i in range(5):
        alone = recipe(scope, SAMPLES[i]).summary()["total"]
        assert np.allclose(found[i], alone, rtol=1e-4, atol=1e-7), i


def test_the_mean_of_the_totals_is_the_total_where_nothing_cancels():
    scope = ts.Scope(random_gpt2())
    for recipe in (recipes.fisher_importance, recipes.taylor_importance.using(variant="absolute")):
        summary = recipe(scope, SAMPLES, per_sample=True).summary()
        assert np.allclose(summary["total_by_sample"].mean("sample"), summary["total"], rtol=1e-4)
    first_order = recipes.taylor_importance(scope, SAMPLES, per_sample=True).summary()
    assert (first_order["total_by_sample"].mean("sample") > 1.05 * first_order["total"]).any()


@pytest.mark.parametrize("family", ["gpt2", "llama", "cnn"])
def test_health_of_each_sample(family):
    scope = ts.Scope(build(family))
    samples = SAMPLES
    if family == "cnn":
        samples = ts.Samples.tensors(torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(5))
    found = recipes.gradient_health(scope, samples, per_sample=True, chunk=2)
    g = scope.per_sample_gradients(samples)
    for module in found["module"].values:
        squares = sum((v.double() ** 2).flatten(1).sum(1) for n, v in g.items() if n.rpartition(".")[0] == module)
        assert np.allclose(found["grad_norm_by_sample"].sel(module=module), squares.sqrt(), rtol=1e-4)
    site = "out" if family == "cnn" else "resid_post"
    for i in range(scope.anatomy.n_layers):
        for k in range(5):
            delta = scope.record(samples[k], f"layers.{i}.{site}", gradients=True).gradients[f"layers.{i}.{site}"][0].double()
            if family != "cnn":
                delta = delta[MASK[k].bool()]
            rms = float((delta**2).mean().sqrt())
            assert np.isclose(found["backward_rms_by_sample"].isel(sample=k, layer=i), rms, rtol=1e-4)


def test_the_spectrum_by_sample():
    scope = ts.Scope(random_gpt2())
    found = recipes.fisher_spectrum(scope, SAMPLES, per_sample=True)
    by_layer = recipes.grouped_fisher(scope, SAMPLES, granularity="layer", per_sample=True)
    assert np.allclose(found["trace_by_sample"], by_layer["importance_by_sample"], rtol=1e-4)
    g = torch.cat([v.flatten(1) for v in scope.per_sample_gradients(SAMPLES).values()], 1).double()
    u = torch.linalg.svd(g, full_matrices=False)[0]
    assert np.allclose(found["component_share"], u**2, atol=1e-4)
    assert np.allclose(found["component_share"].sum("sample"), 1)


def test_magnitude_needs_samples_to_stand_beside():
    with pytest.raises(ValueError, match="per_sample=True and no samples"):
        recipes.magnitude_importance(ts.Scope(random_gpt2()), per_sample=True)
