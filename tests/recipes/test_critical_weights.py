"""Critical weights against dense gradients, Fishers and Hessians, and their lists against a sort of all weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from model_zoo import build
from quadratic_model import quadratic
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.recipes import sensitivity as module
from tensorscope_nb.recipes.recipe import run_together

critical_weights = ts.recipes.critical_weights


@pytest.fixture(scope="module")
def scope():
    return ts.Scope(random_gpt2().double())


@pytest.fixture(scope="module")
def samples():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 50, (10, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0  # a shorter one: tokens count alike, and not samples
    mask[7, 3:] = 0
    return ts.Samples.tokens(ids, mask)


def dense(scope, samples):
    """The gradient and the Fisher's diagonal of the loss per predicted token, one backward per sample."""
    each = scope.per_sample_gradients(samples)
    terms = scope.rule.n_terms(samples).double()
    return (
        {name: torch.einsum("n,n...->...", terms, g.double()) / terms.sum() for name, g in each.items()},
        {name: torch.einsum("n,n...->...", terms**2, g.double() ** 2) / terms.sum() for name, g in each.items()},
    )


def scores_of(scope, samples, metric):
    g, f = dense(scope, samples)
    weights = {name: p.detach() for name, p in scope.model.named_parameters()}
    if metric == "grad_x_weight":
        return {name: (g[name] * w).abs() for name, w in weights.items()}
    return {name: f[name] for name in weights} if metric == "grad_squared" else {name: w.abs() for name, w in weights.items()}


def as_flat(scores):
    return np.concatenate([value.flatten().numpy() for value in scores.values()])


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared", "magnitude"])
def test_the_list_is_that_of_a_sort_of_all_weights(scope, samples, metric):
    scores = scores_of(scope, samples, metric)
    found = critical_weights(scope, samples, metric=metric, top=70)
    flat = as_flat(scores)
    assert np.allclose(found["sensitivity"], np.sort(flat)[::-1][:70], rtol=1e-9)
    parameters = dict(scope.model.named_parameters())
    for w in found["weight"].values:
        row = found.sel(weight=w)
        name, index = row["parameter_name"].item(), int(row["index"])
        assert float(parameters[name].detach().flatten()[index]) == float(row["value"])
        assert np.isclose(float(scores[name].flatten()[index]), float(row["sensitivity"]), rtol=1e-9)
        assert f"{row['module_path'].item()}." == name[: len(row["module_path"].item()) + 1]
        assert np.isclose(flat[int(row["parameter"])], float(row["sensitivity"]), rtol=1e-9)
    assert found["rank"].values.tolist() == list(range(1, 71))


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared"])
def test_what_removing_a_weight_is_predicted_to_cost(scope, samples, metric):
    g, f = dense(scope, samples)
    found = critical_weights(scope, samples, metric=metric, top=20)
    for w in found["weight"].values:
        row = found.sel(weight=w)
        name, index, value = row["parameter_name"].item(), int(row["index"]), float(row["value"])
        first, second = -float(g[name].flatten()[index]) * value, 0.5 * float(f[name].flatten()[index]) * value**2
        assert np.isclose(float(row["predicted_increase"]), first if metric == "grad_x_weight" else second, rtol=1e-9)


def test_modules_are_counted_and_compared_with_chance(scope, samples):
    scores = scores_of(scope, samples, "grad_squared")
    found = critical_weights(scope, samples, metric="grad_squared", top=60)
    listed = found["module_path"].to_series().value_counts()
    n = sum(value.nelement() for value in scores.values())
    for name in found["module"].values:
        own = [value for key, value in scores.items() if key.rpartition(".")[0] == name]
        size = sum(value.nelement() for value in own)
        row = found.sel(module=name)
        assert int(row["n_critical"]) == listed.get(name, 0) and int(row["n_parameters"]) == size
        assert np.isclose(float(row["total"]), sum(float(value.sum()) for value in own), rtol=1e-9)
        assert np.isclose(float(row["enrichment"]), listed.get(name, 0) / (60 * size / n))
        assert float(row["n_critical_ci_low"]) <= int(row["n_critical"]) <= float(row["n_critical_ci_high"])
    assert int(found["n_critical"].sum()) == 60


def test_the_least_sensitive_are_as_many_in_each_layer_and_none_of_the_list(scope, samples):
    scores = scores_of(scope, samples, "grad_x_weight")
    found = critical_weights(scope, samples, top=80)
    layer_of = dict(zip(found["module"].values, found["in_layer"].values, strict=True))
    top = set(zip(found["parameter_name"].values, found["index"].values, strict=True))
    bottom = list(zip(found["bottom_parameter_name"].values, found["bottom_index"].values, strict=True))
    assert len(set(bottom)) == 80 and not top & set(bottom)
    for layer in (-1, 0, 1):
        own = [place for place in bottom if layer_of[place[0].rpartition(".")[0]] == layer]
        assert len(own) == int((found["module_layer"] == layer).sum())
        others = [value.flatten() for name, value in scores.items() if layer_of[name.rpartition(".")[0]] == layer]
        least = torch.cat(others).sort().values[: len(own)]
        assert np.allclose(sorted(float(scores[name].flatten()[index]) for name, index in own), least)
    assert (np.diff(found["bottom_sensitivity"].values) >= 0).all()


def test_each_layer_has_a_list_of_its_own(scope, samples):
    scores = scores_of(scope, samples, "grad_x_weight")
    found = critical_weights(scope, samples, top=7, per_layer=True)
    assert found["module_layer"].values.tolist() == [0] * 7 + [1] * 7 and found["rank"].values.tolist() == [*range(1, 8)] * 2
    for layer in (0, 1):
        own = torch.cat([v.flatten() for name, v in scores.items() if name.startswith(f"transformer.h.{layer}.")])
        assert np.allclose(found["sensitivity"][found["module_layer"] == layer], own.sort(descending=True).values[:7])
    assert (found["in_layer"] >= 0).all() and np.isclose((found["enrichment"] * found["n_parameters"]).groupby("in_layer").sum()
                                                          / found["n_parameters"].groupby("in_layer").sum(), 1).all()  # fmt: skip


def test_the_halves_are_rankings_of_half_of_the_samples(scope, samples):
    found = critical_weights(scope, samples, top=30, seed=5)
    listed = list(zip(found["parameter_name"].values, found["index"].values, strict=True))
    group = module.dealt(10, 8, 5)
    again, counts, totals = np.zeros(30), [], []
    for side in [side for members in module.splits(8) for side in (members, ~members)]:
        half = [i for i in range(10) if side[group[i]]]
        scores = scores_of(scope, samples[half], "grad_x_weight")
        least = np.sort(as_flat(scores))[-30] * (1 - 1e-12)
        again += [float(scores[name].flatten()[index]) >= least for name, index in listed]
        counts.append(int((scores["transformer.wte.weight"] >= least).sum()))
        totals.append(float(scores["transformer.wte.weight"].sum()))
    assert np.allclose(found["stability"], again / 14) and 0.3 < found["stability"].mean() < 0.95
    row = found.sel(module="transformer.wte")
    assert np.isclose(float(row["n_critical_ci_high"]), int(row["n_critical"]) + 2.3646 * np.std(counts), rtol=1e-3)
    assert np.isclose(float(row["total_ci_high"]), float(row["total"]) + 2.3646 * np.std(totals), rtol=1e-3)


def test_a_listed_weight_is_never_among_the_least():
    """Of curvatures 1, .1, −5 and −6 the first two are listed; .1 is small, and not among the least sensitive for that."""
    scope, _, _, _ = quadratic(d=4, n=1)
    samples = ts.Samples.tensors(torch.zeros(1, 1), torch.diag(torch.tensor([-5.0, 0.1, 1.0, -6.0], dtype=torch.float64))[None])
    found = critical_weights(scope, samples, metric="hessian_diag", top=2, n_probes=1)
    assert found["index"].values.tolist() == [2, 1] and found["bottom_index"].values.tolist() == [0, 3]


def test_the_diagonal_of_a_hessian():
    scope, samples, a, w = quadratic(d=40, n=6, convex=False)
    exact = torch.diagonal(a)
    found = critical_weights(scope, samples, metric="hessian_diag", top=5, n_probes=4000)
    order = torch.argsort(exact, descending=True)[:5]
    error = torch.sqrt(((a**2).sum(1) - exact**2) / 4000)
    assert set(found["index"].values[:3]) <= set(order.tolist())
    for w_ in found["weight"].values:
        k = int(found["index"][w_])
        assert abs(float(found["sensitivity"][w_]) - float(exact[k])) < 5 * float(error[k])
        assert np.isclose(float(found["predicted_increase"][w_]), 0.5 * float(found["sensitivity"][w_]) * float(w[k]) ** 2)
    assert abs(float(found["bottom_sensitivity"][0])) < 0.2  # the flattest, and not the most negative: that is −1 and below
    assert float(exact.min()) < -1


def test_the_error_of_a_probe_is_what_the_docstring_says():
    scope, samples, a, _w = quadratic(d=40, n=6, convex=False)
    exact = torch.diagonal(a).numpy()
    error = np.sqrt((a**2).sum(1).numpy() - exact**2) / 8**0.5
    off, inside = [], []
    for seed in range(40):
        found = critical_weights(scope, samples, metric="hessian_diag", top=40, n_probes=8, seed=seed)
        at = found["index"].values
        off += list((found["sensitivity"].values - exact[at]) / error[at])
        inside += list((found["sensitivity_ci_low"] <= exact[at]) & (exact[at] <= found["sensitivity_ci_high"]))
    assert abs(np.mean(off)) < 0.1 and 0.9 < np.std(off) < 1.1 and 0.92 < np.mean(inside) < 0.98


def test_a_diagonal_hessian_takes_one_probe():
    scope, samples, a, _w = quadratic(d=12, n=4)
    only = torch.diag_embed(torch.diagonal(samples.labels, dim1=1, dim2=2))
    found = critical_weights(scope, ts.Samples.tensors(torch.zeros(4, 1), only), metric="hessian_diag", top=12, n_probes=1)
    assert np.allclose(found["sensitivity"], np.sort(torch.diagonal(a))[::-1])


def test_a_masked_model_is_ranked_on_the_samples_that_came():
    """The tokens that its loss masks are no part of what they are: ``perturbation`` warns where it gets the same."""
    model = build("bert")
    tokens = ts.Samples.tokens(torch.randint(5, 50, (4, 12), generator=torch.Generator().manual_seed(0)))
    scope = ts.Scope(model)
    scope.rule = dataclasses.replace(scope.rule, mask_token=3)
    found = critical_weights(scope, tokens, top=3)
    said = json.loads(found.attrs["tensorscope"])
    assert said["data"] == tokens.fingerprint and said["n_tokens"] == scope.rule.n_terms(scope.rule.prepared(tokens)).sum()
    notes = json.loads(ts.recipes.perturbation(scope, tokens, found, n_seeds=2).attrs["tensorscope"])["notes"]
    assert any("these are the samples that the list was ranked on" in note for note in notes)


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared", "hessian_diag"])
def test_an_interval_holds_nothing_that_cannot_be(metric):
    """Of 3 samples, in 2 groups, an interval is 12.7 times as wide as the halves differ."""
    scope, samples, _a, _w = quadratic(d=6, n=3, convex=False)
    found = critical_weights(scope, samples, metric=metric, top=6, n_probes=2)
    lows = np.append(found["sensitivity_ci_low"], found["total_ci_low"])
    assert (lows.min() < 0) if metric == "hessian_diag" else (lows.min() == 0)
    assert (found["sensitivity_ci_low"] <= found["sensitivity"]).all() and (found["total_ci_low"] <= found["total"]).all()


def test_squares_are_taken_per_sample():
    """Two samples whose gradients cancel: the squared gradient of the batch is zero, and the Fisher is not."""
    scope, samples, _a, w = quadratic(d=6, n=2)
    opposite = ts.Samples.tensors(torch.zeros(2, 1), torch.stack([samples.labels[0], -samples.labels[0]]))
    g = samples.labels[0] @ w
    assert np.allclose(critical_weights(scope, opposite, top=6)["sensitivity"], 0, atol=1e-12)
    found = critical_weights(scope, opposite, metric="grad_squared", top=6)
    assert np.allclose(found["sensitivity"], np.sort(g**2)[::-1])


@pytest.mark.parametrize("chunk", [1, 3, 10])
@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared"])
def test_the_cut_into_chunks_and_blocks_changes_nothing(scope, samples, chunk, metric, monkeypatch):
    whole = critical_weights(scope, samples, metric=metric, top=40)
    monkeypatch.setattr(module, "BLOCK", 97)
    cut = critical_weights(scope, samples, metric=metric, top=40, chunk=chunk)
    assert (whole["parameter"] == cut["parameter"]).all() and (whole["stability"] == cut["stability"]).all()
    assert np.allclose(whole["total_ci_high"], cut["total_ci_high"]) and np.allclose(
        whole["bottom_sensitivity"], cut["bottom_sensitivity"]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared", "magnitude"])
def test_half_precision_is_ranked_in_single(samples, metric, dtype):
    """A sum of 2^16 weights in bfloat16 is off by a thousandth, and squares of gradients in float16 are zero."""
    scope = ts.Scope(random_gpt2(vocab_size=60, n_embd=48).to(dtype))
    scores = {name: score.double() for name, score in scores_of(scope, samples, metric).items()}
    found = critical_weights(scope, samples, metric=metric, top=30)
    own = [float(scores[n].flatten()[i]) for n, i in zip(found["parameter_name"].values, found["index"].values, strict=True)]
    assert np.allclose(found["sensitivity"], own, rtol=2e-2)
    if metric == "magnitude":
        total = float(scores["transformer.wte.weight"].sum())
        assert np.isclose(float(found["total"].sel(module="transformer.wte")), total, rtol=1e-6)


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared"])
def test_gradients_that_leave_single_precision_are_ranked_in_double(metric):
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    data = ts.Samples.tensors(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3)

    def loss(scale):
        return lambda output, targets: scale * torch.nn.functional.cross_entropy(output, targets, reduction="none")

    whole = critical_weights(ts.Scope(model, loss=loss(1.0)), data, metric=metric, top=9)
    small = critical_weights(ts.Scope(model, loss=loss(1e-22)), data, metric=metric, top=9)
    assert (whole["parameter"] == small["parameter"]).all()
    scale = 1e-22 if metric == "grad_x_weight" else 1e-44
    assert np.allclose(small["sensitivity"], scale * whole["sensitivity"], rtol=1e-4, atol=0)


class Odd(torch.nn.Module):
    """A number, a cube, a parameter of nothing, one that lies in memory otherwise, one that is frozen, one that nobody uses."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.number = torch.nn.Parameter(torch.tensor(0.7))
        self.cube = torch.nn.Parameter(torch.randn(2, 3, 4, generator=generator))
        self.nothing = torch.nn.Parameter(torch.zeros(0, 3))
        self.turned = torch.nn.Parameter(torch.randn(4, 3, generator=generator).T)
        self.frozen = torch.nn.Parameter(torch.randn(4, generator=generator), requires_grad=False)
        self.unused = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.number * x[:, :3] + torch.einsum("nd,abd->nb", x * self.frozen, self.cube) + x @ self.turned.T


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared", "magnitude"])
def test_every_shape_of_a_parameter_is_ranked(metric, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 5)
    scope = ts.Scope(Odd().double())
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = ts.Samples.tensors(x, torch.arange(6) % 3)
    found = critical_weights(scope, data, metric=metric, top=40)
    assert found.sizes["weight"] == 1 + 24 + 12 + 3 and not found.sizes["bottom_weight"]
    g, f = dense(scope, data)
    weights = {name: p.detach() for name, p in scope.model.named_parameters()}
    for name, i, value in zip(found["parameter_name"].values, found["index"].values, found["sensitivity"].values, strict=True):
        gk, fk, wk = (float(each[name].flatten()[int(i)]) for each in (g, f, weights))
        assert np.isclose(value, {"grad_x_weight": abs(gk * wk), "grad_squared": fk, "magnitude": abs(wk)}[metric])
    assert {"()", "(2, 3)", "(1, 2, 3)"} <= set(ts.recipes.weight_table(found)["indices"])


def test_what_is_no_number_has_no_rank():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3))
    model[1].weight.data[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"the scores of 1.weight hold NaN or infinity, which have no rank: look at the weights"):
        critical_weights(ts.Scope(model), ts.Samples.tensors(torch.ones(2, 4), torch.arange(2)), metric="magnitude", top=2)


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared"])
def test_what_each_sample_alone_would_give(scope, samples, metric):
    found = critical_weights(scope, samples, metric=metric, top=5, per_sample=True)
    for i in (0, 2, 7):
        alone = critical_weights(scope, samples[i : i + 1], metric=metric, top=5)
        assert np.allclose(found["total_by_sample"][i], alone["total"], rtol=1e-9)
        assert np.isnan(alone["total_ci_low"]).all() and "one sample cannot be split" in alone.attrs["tensorscope"]


def test_two_metrics_share_one_sweep(scope, samples):
    calls = []
    hook = scope.model.register_forward_hook(lambda *_: calls.append(1))
    study = ts.Study(scope, samples)
    study.run(critical_weights.using(top=9, name="one"), critical_weights.using(metric="grad_squared", top=9, name="two"))
    shared, calls[:] = len(calls), []
    alone = critical_weights(scope, samples, top=9)
    hook.remove()
    assert shared == len(calls) and (study["one"]["parameter"] == alone["parameter"]).all()


def test_intervals_take_memory_and_are_left_out_aloud(scope, samples):
    with ts.options(memory=10**5):
        found = critical_weights(scope, samples, top=9)
        with pytest.raises(ValueError, match=r"the sums of 8 groups of samples take .* or intervals=False, or raise ts.options"):
            critical_weights(scope, samples, top=9, intervals=True)
    said = json.loads(found.attrs["tensorscope"])
    assert said["n_splits"] == 0 and "more than the memory option allows" in said["notes"][0]
    assert np.isnan(found["stability"]).all() and np.isnan(found["enrichment_ci_low"]).all()
    assert (found["parameter"] == critical_weights(scope, samples, top=9)["parameter"]).all()
    assert "notes" not in json.loads(critical_weights(scope, samples, top=9, intervals=False).attrs["tensorscope"])


def test_why_there_are_no_intervals(scope, samples):
    one = critical_weights(scope, samples, metric="hessian_diag", n_probes=1, top=3)
    assert json.loads(one.attrs["tensorscope"])["notes"] == ["there are no intervals: one probe cannot be split"]
    partial = []
    call = (critical_weights, (samples,), {"top": 9, "chunk": 3})
    run_together(scope, [call], so_far=lambda made: partial.append(made[0]()))
    said = [json.loads(each.attrs["tensorscope"]) for each in partial]
    assert [each["n_used"] for each in said] == [3, 6, 9] and said[0]["n_splits"] == 0
    assert said[0]["notes"] == ["there are no intervals: not each of the 8 groups of samples has one that is done"]
    assert (partial[0]["parameter"] == critical_weights(scope, samples[:3], top=9)["parameter"]).all()


@pytest.mark.parametrize("options, says", [
    ({"metric": "grad_weight"}, "metric is 'grad_weight': choose among grad_x_weight, grad_squared, hessian_diag, magnitude"),
    ({"intervals": "no"}, "intervals is 'no': give True, False, or None"),
    ({"modules": "*.c_atn"}, r"no module or parameter '\*.c_atn': did you mean transformer.h.\d.attn.c_attn"),
    ({"top": 0}, "top is 0: give a whole number from 1 on"),
    ({"top": 10**7}, r"top is 10000000 and there are 16,\d\d\d weights: ask for fewer"),
    ({"top": 7300, "per_layer": True}, r"top is 7300 and layer 0 has 7,\d\d\d weights: ask for fewer"),
    ({"metric": "magnitude", "per_sample": True}, "per_sample=True and metric is 'magnitude'"),
    ({"modules": "transformer.wte", "per_layer": True}, "no chosen weight stands in a layer"),
])  # fmt: skip
def test_bad_input_is_one_line(scope, samples, options, says):
    with pytest.raises((ValueError, LookupError), match=says) as error:
        critical_weights(scope, samples, **options)
    assert "\n" not in str(error.value)
