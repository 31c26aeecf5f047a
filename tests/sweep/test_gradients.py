"""The gradient sweep against one backward per sample, for every family, however the data and the tiles are cut."""

import pytest
import torch
from model_zoo import CAUSAL, IGNORE_THE_INTERFACE, OTHERS, build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.sweep import forms
from tensorscope_nb.sweep.forms import blocks
from tensorscope_nb.sweep.gradients import Source, gradient_sweep
from tensorscope_nb.sweep.parameters import parameters_of
from tensorscope_nb.sweep.reducers import Gram, Sums

IDS = torch.randint(1, 50, (5, 12), generator=torch.Generator().manual_seed(1))
MODELS = [*CAUSAL, "bert", "bert classifier", "vit", "cnn", "mlp", *IGNORE_THE_INTERFACE]
assert set(MODELS) | {"bert headless"} == set(CAUSAL) | set(OTHERS) | set(IGNORE_THE_INTERFACE) | {"cnn", "mlp"}


def data_for(name):
    generator = torch.Generator().manual_seed(2)
    if name == "vit":
        return ts.Samples.tensors({"pixel_values": torch.rand(5, 3, 8, 8, generator=generator)}, torch.arange(5))
    if name == "cnn":
        return ts.Samples.tensors(torch.rand(5, 1, 8, 8, generator=generator), torch.arange(5))
    if name == "mlp":
        return ts.Samples.tensors(torch.rand(5, 10, generator=generator), torch.arange(5) % 3)
    if name == "bert classifier":
        return ts.Samples.tokens(IDS, labels=torch.arange(5) % 4)
    if name == "bert":
        labels = torch.full_like(IDS, -100)
        labels[:, [2, 5, 7]] = IDS[:, [2, 5, 7]]
        return ts.Samples.tokens(IDS, labels=labels)
    mask = torch.ones_like(IDS)
    mask[3, 7:] = 0
    return ts.Samples.tokens(IDS, mask)


def per_sample(scope, samples, *, chunk=None, **options):
    """What the sweep goes through, as {parameter: (n, *shape)}, and the coverage."""
    found = {}

    def use(parameter, gradients):
        whole = gradients.weight.new_zeros(gradients.n, *gradients.weight.shape)
        for rows, columns, touched in blocks(gradients):
            if gradients.forms:
                whole[:, rows, columns] = gradients.block(rows, columns, touched)
        found.setdefault(parameter.name, []).append(whole.reshape(-1, *parameter.tensor.shape))

    source = source_of(scope, samples, **options)
    step = chunk or len(samples)
    for start in range(0, len(samples), step):
        source.gradients(slice(start, start + step), use)
    return {name: torch.cat(parts) for name, parts in found.items()}, source


def source_of(scope, samples, *, reduction="mean", modules=None):
    samples = scope.rule.prepared(samples)
    terms = scope.rule.n_terms(samples).double()
    weights = terms if reduction == "sum" else torch.ones_like(terms)
    return Source(scope, samples, parameters_of(scope, chosen_parameters(scope, modules)), weights, [])


@pytest.mark.parametrize("name", MODELS)
def test_blocks_put_together_are_the_per_sample_gradients(name, monkeypatch):
    monkeypatch.setattr(forms, "BLOCK_BYTES", 2000)  # several blocks for every matrix
    monkeypatch.setattr(forms, "SIDE", 4)
    scope, samples = ts.Scope(build(name)), data_for(name)
    found, covered = per_sample(scope, samples, chunk=2)
    expected = scope.per_sample_gradients(samples)
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for parameter, value in expected.items():
        assert torch.allclose(found[parameter], value, atol=1e-5 * max(float(value.abs().max()), 1e-2 * largest)), parameter
    by_one = {"vit": 2}.get(name, 0)  # the raw class token and positions
    assert len(covered.by_reference) == by_one


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "bert", "mlp", "cnn"])
def test_the_gram_matrix_and_its_blocks(name):
    scope, samples = ts.Scope(build(name)), data_for(name)
    gram, sums, diagonal = Gram(), Sums(), Sums("squares")
    gradient_sweep(scope, samples, [gram, sums, diagonal], chunk=2)
    expected = scope.per_sample_gradients(samples)
    for module in gram.values:
        flat = torch.cat([g.flatten(1) for n, g in expected.items() if n.rpartition(".")[0] == module], 1).double()
        k = flat @ flat.T
        scale = (k.diag()[:, None] * k.diag()[None]).sqrt().clamp(min=1e-12)
        assert ((gram.values[module] - k).abs() / scale).max() < 1e-5
    for parameter, g in expected.items():
        assert torch.allclose(sums.totals[parameter].float(), g.sum(0), atol=1e-5)
        assert torch.allclose(diagonal.totals[parameter], (g**2).sum(0), rtol=1e-3, atol=1e-7)


def test_the_sum_over_tokens_and_its_divisor():
    scope, samples = ts.Scope(build("gpt2")), data_for("gpt2")
    found, covered = per_sample(scope, samples, reduction="sum")
    terms = torch.tensor([11.0, 11, 11, 6, 11])
    assert torch.equal(covered.weights, terms.double())
    expected = scope.per_sample_gradients(samples)
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.allclose(found[name], expected[name] * terms[:, None, None], atol=1e-5)


def test_a_use_that_no_rule_sees_is_found_by_the_self_check():
    """The embedding is used once more, outside its module: its factors miss that, and the sweep notices."""

    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(6, 6)
            self.out = torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.inner(x) + x @ self.inner.weight)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Doubled()
    scope = ts.Scope(model)
    samples = ts.Samples.tensors(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]))
    found, covered = per_sample(scope, samples)
    assert covered.by_reference == ["inner.weight"]
    expected = scope.per_sample_gradients(samples)
    assert all(torch.allclose(found[p], expected[p], atol=1e-6) for p in expected)


def test_an_activation_that_works_in_place():
    model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 3))
    scope, samples = ts.Scope(model), data_for("mlp")
    found, covered = per_sample(scope, samples)
    assert covered.by_reference == []
    expected = scope.per_sample_gradients(samples)
    assert all(torch.allclose(found[p], expected[p], atol=1e-6) for p in expected)


def test_frozen_parameters_and_chosen_modules():
    scope = ts.Scope(random_gpt2())
    scope.model.transformer.wte.weight.requires_grad_(False)
    found, _ = per_sample(scope, IDS_SAMPLES, modules="transformer.h.1.*")
    names = {n for n, _ in scope.model.named_parameters() if n.startswith("transformer.h.1.") and n.count(".") == 4}
    assert {n for n in found if n.count(".") == 4} == names
    expected = scope.per_sample_gradients(IDS_SAMPLES, "transformer.h.1.*")
    assert all(torch.allclose(found[n], expected[n], atol=1e-5) for n in found)
    assert not scope.model.transformer.wte.weight.requires_grad


IDS_SAMPLES = ts.Samples.tokens(IDS)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: gradient_sweep(s, IDS_SAMPLES, [], reduction="max"), ValueError, "choose 'mean' or 'sum'"),
        (lambda s: ts.recipes.grouped_fisher(s, IDS_SAMPLES, granularity="expert"), ValueError, "choose among module, layer, head, channel"),
        (lambda s: ts.recipes.fisher_spectrum(s, IDS_SAMPLES, k=0), ValueError, "k is 0"),
        (lambda s: ts.recipes.gradient_health(s, IDS[:1]), ValueError, "signal and noise need at least 2"),
        (lambda s: ts.recipes.fisher_importance(s, IDS).mask(0), ValueError, "top_fraction is 0"),
        (lambda s: ts.recipes.taylor_importance(s, IDS, variant="third"), ValueError, "variant is 'third'"),
        (lambda s: ts.recipes.hybrid_importance(s, IDS, weights={"age": 1}), ValueError, "weights names age"),
        (lambda s: ts.recipes.grouped_fisher(ts.Scope(build("bert headless")), IDS), ts.UnsupportedModel, "no loss"),
        (lambda s: ts.recipes.grouped_fisher(ts.Scope(build("mlp")), data_for("mlp"), granularity="head"), ts.UnsupportedModel, "no heads"),
    ],
)  # fmt: skip
def test_bad_use_is_one_clear_line(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(ts.Scope(random_gpt2()))
    assert "\n" not in str(caught.value)


def test_a_norm_over_the_batch_is_refused():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2, track_running_stats=False), torch.nn.Flatten(), torch.nn.Linear(72, 3)
    )
    samples = ts.Samples.tensors(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ts.UnsupportedModel, match="1 normalises over the batch also in evaluation"):
        ts.recipes.gradient_health(ts.Scope(model), samples)


def test_what_does_not_fit_is_said():
    with ts.options(memory=20_000), pytest.raises(ValueError, match=r"the gradients of two samples take .* GiB"):
        ts.recipes.fisher_spectrum(ts.Scope(random_gpt2()), IDS_SAMPLES)


class Tail(torch.nn.Module):
    """A body, a head, and a way to mix or to mislead."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.body, self.head = torch.nn.Linear(5, 5), torch.nn.Linear(5, 3)
        self.text = torch.nn.Linear(5, 5)
        self.norm, self.last = torch.nn.LayerNorm((1, 5)), torch.nn.RMSNorm(5)

    def forward(self, x):
        h = self.body(x)
        if self.how == "mix":
            h = h - h.mean(0, keepdim=True)
        if self.how == "mislead":  # three rows that are no samples
            return h @ self.text(torch.eye(5)[:3]).T
        return self.head(self.last(self.norm(h[:, None])[:, 0]))


def tail(how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ts.Scope(Tail(how))


ROWS = ts.Samples.tensors(torch.randn(9, 5, generator=torch.Generator().manual_seed(4)), torch.arange(9) % 3)


def test_samples_that_depend_on_one_another_are_refused():
    with pytest.raises(ts.UnsupportedModel, match="the loss of a sample changes with the samples beside it"):
        ts.recipes.fisher_importance(tail("mix"), ROWS)


@pytest.mark.parametrize("how", ["mislead", "norms"])
def test_an_axis_that_only_looks_like_samples_is_found(how):
    scope = tail(how)
    found, covered = per_sample(scope, ROWS, chunk=4)
    expected = scope.per_sample_gradients(ROWS)
    assert all(torch.allclose(found[p].nan_to_num(), expected[p], atol=1e-5) for p in expected)
    assert ("text.weight" in covered.by_reference) == (how == "mislead") and "body.weight" not in covered.by_reference
