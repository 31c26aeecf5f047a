"""Bad input to the gradient recipes: one clear line each, and a model that is bit for bit as it was."""

import json

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb import recipes

N = 9
IDS = torch.randint(1, 50, (N, 12), generator=torch.Generator().manual_seed(1))
X, Y = torch.randn(N, 10, generator=torch.Generator().manual_seed(2)), torch.arange(N) % 3
SWEEPS = {
    "health": recipes.gradient_health,
    "masses": recipes.grouped_fisher,
    "spectrum": recipes.fisher_spectrum,
    "fisher": recipes.fisher_importance,
    "taylor": recipes.taylor_importance,
}


def snapshot(model):
    return {
        "parameters": {n: p.detach().clone() for n, p in model.named_parameters()},
        "buffers": {n: b.clone() for n, b in model.named_buffers()},
        "gradients": {n: None if p.grad is None else (id(p.grad), p.grad.clone()) for n, p in model.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {
            n: [len(getattr(m, f"_{kind}_hooks")) for kind in ("forward", "forward_pre", "backward", "backward_pre")]
            for n, m in model.named_modules()
        },
        "attributes": {n: sorted(m.__dict__) for n, m in model.named_modules()},
        "random": (torch.get_rng_state(), np.random.get_state()[1].tolist()),
        "grad mode": torch.is_grad_enabled(),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return torch.equal(bits(a), bits(b)) if isinstance(a, torch.Tensor) else a == b


def bits(tensor):
    """NaN equals itself, and −0 is not 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(before, after):
    for part, value in before.items():
        assert same(value, after[part]), part


def used(model, data):
    """A model in the middle of a user's work: gradients of an earlier step, mixed modes, a frozen weight, a hook of theirs."""
    model.train()
    out = model(data)
    getattr(out, "logits", out).square().mean().backward()
    list(model.children())[-1].eval()
    next(model.parameters()).requires_grad_(False)
    model.register_forward_hook(lambda module, args, output: None)
    return model


def language():
    """Without dropout: what a draw would change is looked at on its own below."""
    return ts.Scope(used(random_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), IDS))


def classifier(loss=None):
    return ts.Scope(used(build("mlp"), X), loss=loss)


def labelled(*unlabelled):
    labels = IDS.clone()
    labels[list(unlabelled)] = -100
    return ts.Samples.tokens(IDS, labels=labels)


def frozen():
    scope = language()
    for p in scope.model.parameters():
        p.requires_grad_(False)
    return scope


# (what makes the scope, what is done with it, the error, what its line says)
CASES = {
    "one sample": (language, lambda s: recipes.gradient_health(s, IDS[:1]), ValueError, ["there is 1 sample", "need at least 2"]),
    "chunk of nothing": (language, lambda s: recipes.grouped_fisher(s, IDS, chunk=0), ValueError, ["chunk is 0", "at least 1 sample"]),
    "negative chunk": (language, lambda s: recipes.fisher_spectrum(s, IDS, chunk=-1), ValueError, ["chunk is -1", "at least 1 sample"]),
    "chunk of nothing, importance": (language, lambda s: recipes.taylor_importance(s, IDS, chunk=0), ValueError, ["chunk is 0", "at least 1"]),
    "unknown module": (language, lambda s: recipes.grouped_fisher(s, IDS, modules="h.9.*"), LookupError, ["'h.9.*'", "did you mean transformer.h.1"]),
    "unknown modules": (language, lambda s: recipes.fisher_importance(s, IDS, modules=["nope", "no.*"]), LookupError, ["there is no module or parameter 'nope'", "did you mean"]),
    "only frozen modules": (language, lambda s: recipes.grouped_fisher(s, IDS, modules="*wte"), LookupError, ["no trainable parameter", "wte"]),
    "unknown reduction": (language, lambda s: recipes.fisher_importance(s, IDS, reduction="max"), ValueError, ["'max'", "choose 'mean' or 'sum'"]),
    "a number": (language, lambda s: recipes.grouped_fisher(s, 7), TypeError, ["a int", "give texts"]),
    "nothing": (language, lambda s: recipes.gradient_health(s, None), TypeError, ["NoneType", "give texts"]),
    "a set": (language, lambda s: recipes.fisher_importance(s, {1, 2}), TypeError, ["a set", "give texts"]),
    "numbers in a list": (language, lambda s: recipes.fisher_spectrum(s, [1, 2, 3]), TypeError, ["a int", "give strings"]),
    "no tokenizer": (language, lambda s: recipes.grouped_fisher(s, ["one two"]), TypeError, ["no tokenizer", "pass token ids"]),
    "floating ids": (language, lambda s: recipes.grouped_fisher(s, IDS.float()), ValueError, ["torch.float32", "give integer token ids"]),
    "ids of one row": (language, lambda s: recipes.grouped_fisher(s, IDS[0]), ValueError, [r"(12,)", r"give integer token ids (n, T)"]),
    "no samples": (language, lambda s: recipes.grouped_fisher(s, IDS[:0]), ValueError, [r"(0, 12)", "n, T >= 1"]),
    "no tokens": (language, lambda s: recipes.grouped_fisher(s, IDS[:, :0]), ValueError, [r"(9, 0)", "n, T >= 1"]),
    "no texts": (language, lambda s: recipes.gradient_health(s, []), ValueError, ["no texts", "at least one"]),
    "no rows": (classifier, lambda s: recipes.grouped_fisher(s, (X[:0], Y[:0])), ValueError, ["rows", "at least 1"]),
    "none chosen": (language, lambda s: recipes.grouped_fisher(s, ts.Samples.tokens(IDS)[[]]), ValueError, ["selects none of 9 samples"]),
    "a row of padding": (language, lambda s: recipes.grouped_fisher(s, padded(3)), ValueError, ["rows [3]", "no token at all", "leave those samples out"]),
    "one token": (language, lambda s: recipes.gradient_health(s, IDS[:, :1]), ValueError, ["'samples-0'", "no token to predict", "leave it out"]),
    "one unlabelled": (language, lambda s: recipes.grouped_fisher(s, labelled(5)), ValueError, ["'samples-5'", "no token to predict", "leave it out"]),
    "one unlabelled, spectrum": (language, lambda s: recipes.fisher_spectrum(s, labelled(4), chunk=2), ValueError, ["'samples-4'", "no token to predict"]),
    "one unlabelled, sum": (language, lambda s: recipes.fisher_importance(s, labelled(6), reduction="sum"), ValueError, ["'samples-6'", "no token to predict"]),
    "all unlabelled": (language, lambda s: recipes.gradient_health(s, labelled(*range(N))), ValueError, ["'samples-0'", "no token to predict"]),
    "unknown token": (language, lambda s: recipes.gradient_health(s, IDS + 40), ValueError, ["token id 89", "vocabulary of 50", "another model?"]),
    "too long": (language, lambda s: recipes.gradient_health(s, IDS.repeat(1, 3)), ValueError, ["36 tokens wide", "context is 24", "max_length=24"]),
    "tensors for tokens": (language, lambda s: recipes.grouped_fisher(s, (X, Y)), TypeError, ["no tokens", "give texts or token ids"]),
    "everything frozen": (frozen, lambda s: recipes.gradient_health(s, IDS), ValueError, ["all parameters are frozen", "set requires_grad"]),
    "everything frozen, importance": (frozen, lambda s: recipes.taylor_importance(s, IDS), ValueError, ["all parameters are frozen", "set requires_grad"]),
    "no such class": (classifier, lambda s: recipes.fisher_spectrum(s, (X, Y + 1)), ValueError, ["target 3", "the 3 classes"]),
    "floating targets": (classifier, lambda s: recipes.grouped_fisher(s, (X, Y.float())), ts.UnsupportedModel, ["torch.float32", "pass loss="]),
    "no targets": (classifier, lambda s: recipes.grouped_fisher(s, X), ts.UnsupportedModel, ["no targets", "pass loss="]),
    "not a number early": (classifier, lambda s: recipes.grouped_fisher(s, broken(4)), ValueError, ["'samples-4'", "nan"]),
    "not a number late": (classifier, lambda s: recipes.grouped_fisher(s, broken(5)), ValueError, ["'samples-5'", "nan"]),
    "not a number, health": (classifier, lambda s: recipes.gradient_health(s, broken(7), chunk=2), ValueError, ["'samples-7'", "nan"]),
    "not a number, spectrum": (classifier, lambda s: recipes.fisher_spectrum(s, broken(2), chunk=1), ValueError, ["'samples-2'", "nan"]),
    "not a number, importance": (classifier, lambda s: recipes.taylor_importance(s, broken(6)), ValueError, ["'samples-6'", "nan"]),
    "infinite loss": (lambda: classifier(infinite_at_2), lambda s: recipes.grouped_fisher(s, (X, Y)), ValueError, ["'samples-2'", "inf"]),
    "a loss for the batch": (lambda: classifier(lambda out, y: out.sum()), lambda s: recipes.grouped_fisher(s, (X, Y)), ValueError, ["loss= returned ()", "one loss per sample"]),
    "no mask token": (lambda: ts.Scope(build("bert")), lambda s: recipes.grouped_fisher(s, IDS), ts.UnsupportedModel, ["no mask token", "pass labels"]),
}  # fmt: skip


def padded(row):
    mask = torch.ones_like(IDS)
    mask[row] = 0
    return ts.Samples.tokens(IDS, mask)


def broken(row):
    x = X.clone()
    x[row, 3] = torch.nan
    return ts.Samples.tensors(x, Y)


def infinite_at_2(out, y):
    losses = torch.nn.functional.cross_entropy(out, y, reduction="none")
    return torch.where((y == 2) & (losses > losses.min()), torch.inf, losses) if len(y) == N else losses


def refused(scope, call, error, says):
    """Calls it, and looks at the line and at the model."""
    before = snapshot(scope.model)
    with pytest.raises(error) as caught:
        call(scope)
    assert_same(before, snapshot(scope.model))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 250
    for words in says:
        assert words in line, line


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line_and_nothing_is_left_behind(case):
    make, call, error, says = CASES[case]
    refused(make(), call, error, says)


UNCLEAR = {
    "chunk between two": (language, lambda s: recipes.grouped_fisher(s, IDS, chunk=1.5), (TypeError, ValueError), ["chunk is 1.5"]),
    "chunk in letters": (language, lambda s: recipes.grouped_fisher(s, IDS, chunk="all"), (TypeError, ValueError), ["chunk is 'all'"]),
    "modules by number": (language, lambda s: recipes.grouped_fisher(s, IDS, modules=3), (TypeError, ValueError), ["modules is 3"]),
    "no modules": (language, lambda s: recipes.grouped_fisher(s, IDS, modules=[]), (LookupError, ValueError), ["modules is []"]),
    "a loss that is cut off": (lambda: classifier(lambda out, y: out.detach().sum(1)), lambda s: recipes.grouped_fisher(s, (X, Y)), (ValueError, ts.UnsupportedModel), ["loss"]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_wrong_option_is_named(case):
    refused(UNCLEAR[case][0](), *UNCLEAR[case][1:])


@pytest.mark.parametrize("recipe", SWEEPS.values(), ids=SWEEPS)
def test_a_model_in_place_of_a_scope(recipe):
    with pytest.raises(TypeError, match="Scope"):
        recipe(build("mlp"), (X, Y))


# --- little data, little memory ---------------------------------------------------------------------------------------------


def test_one_sample_has_masses_and_no_interval():
    scope = language()
    found = recipes.grouped_fisher(scope, IDS[:1])
    assert np.isnan(found["variance"]).all() and np.isnan(found["ci_low"]).all() and np.isnan(found["ci_high"]).all()
    g = scope.per_sample_gradients(IDS[:1])
    assert np.isclose(found["importance"].sum(), sum(float((v**2).sum()) for v in g.values()), rtol=1e-4)


@pytest.mark.parametrize("granularity", ["module", "layer", "head", "channel"])
def test_intervals_need_eight_samples(granularity):
    for n, given in ((7, False), (8, True)):
        found = recipes.grouped_fisher(language(), IDS[:n], granularity=granularity)
        there = found["importance"].notnull() & (found["importance"] > 0)
        for end in ("ci_low", "ci_high"):
            assert (found[end].notnull() == (there if given else False)).where(there, True).all()
        assert found["variance"].where(there, 0).notnull().all()


@pytest.mark.parametrize("name", ["masses", "fisher", "taylor"])
def test_a_memory_option_too_small_for_one_sample_runs_them_one_by_one(name):
    scope, seen = language(), []
    whole = SWEEPS[name](scope, IDS)
    scope.model.register_forward_hook(lambda module, args, output: seen.append(len(output.logits)))
    with ts.options(memory=1):
        found = SWEEPS[name](scope, IDS)
    assert seen.count(1) >= N
    if name == "masses":
        assert np.allclose(found["importance"], whole["importance"], rtol=1e-5)
    else:
        assert all(torch.allclose(found[n], whole[n], rtol=1e-4, atol=1e-8) for n in whole)


@pytest.mark.parametrize("name", ["spectrum"])
def test_a_memory_option_too_small_for_what_must_be_held_is_said(name):
    with ts.options(memory=1):
        refused(language(), lambda s: SWEEPS[name](s, IDS), ValueError, ["the memory option", "raise ts.options(memory=…)"])


# --- frozen weights -----------------------------------------------------------------------------------------------------------


def test_frozen_weights_are_left_out_and_stay_frozen():
    scope = ts.Scope(random_gpt2())
    whole = recipes.grouped_fisher(scope, IDS)
    for name, p in scope.model.named_parameters():
        p.requires_grad_(".h.1." in name and not name.endswith("bias"))
    before = snapshot(scope.model)
    weights = {n: p for n, p in scope.model.named_parameters() if p.requires_grad}
    found = recipes.grouped_fisher(scope, IDS)
    assert set(found["module"].values) == {n.rpartition(".")[0] for n in weights}
    assert int(found["n_parameters"].sum()) == sum(p.numel() for p in weights.values())  # how much of the model it is
    assert (found["importance"] <= whole["importance"].sel(module=found["module"]) * (1 + 1e-5)).all()
    assert recipes.fisher_spectrum(scope, IDS)["layer"].values.tolist() == [1]
    for recipe in (recipes.fisher_importance, recipes.taylor_importance, recipes.magnitude_importance):
        assert list(recipe(scope, IDS)) == list(weights)
    assert_same(before, snapshot(scope.model))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_result_says_that_weights_were_frozen(name):
    scope = ts.Scope(random_gpt2())
    scope.model.transformer.wte.weight.requires_grad_(False)
    result = SWEEPS[name](scope, IDS)
    said = result.metadata if name in ("fisher", "taylor") else json.loads(result.attrs["tensorscope"])
    n_read = sum(p.numel() for p in scope.model.parameters() if p.requires_grad)
    assert str(n_read) in json.dumps(said) or "transformer.wte" in json.dumps(said)


# --- modes --------------------------------------------------------------------------------------------------------------------


def numbers(result):
    if isinstance(result, recipes.Importance):
        return {name: value.numpy() for name, value in result.items()}
    return {name: value.values for name, value in result.items() if value.dtype.kind == "f"}


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("kind", ["dropout", "batch norm"])
def test_a_model_in_training_mode_gives_the_results_of_evaluation(kind, name):
    if kind == "dropout":
        model, data = random_gpt2(resid_pdrop=0.3, attn_pdrop=0.3, embd_pdrop=0.3), IDS
    else:
        model = build("cnn")
        data = ts.Samples.tensors(torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(3)), Y)
    scope = ts.Scope(model)
    expected = numbers(SWEEPS[name](scope, data))
    model.train()
    before = snapshot(model)
    found = numbers(SWEEPS[name](scope, data))
    assert_same(before, snapshot(model))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[v], expected[v], equal_nan=True) for v in expected)


@pytest.mark.parametrize("kind", ["dropout", "batch norm"])
def test_a_model_in_training_mode_is_not_touched_by_an_error_either(kind):
    model = torch.nn.Sequential(
        torch.nn.Linear(10, 6), torch.nn.Dropout(0.5) if kind == "dropout" else torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)
    )
    scope = ts.Scope(model.train())
    refused(scope, lambda s: recipes.grouped_fisher(s, broken(5)), ValueError, ["'samples-5'", "nan"])


def test_contributions_and_the_reference_are_taken_in_evaluation_mode():
    scope = ts.Scope(random_gpt2(resid_pdrop=0.3, attn_pdrop=0.3, embd_pdrop=0.3))
    name = "transformer.h.0.mlp.c_fc.weight"
    expected = scope.per_sample_gradients(IDS)[name]
    scope.model.train()
    before = snapshot(scope.model)
    assert torch.equal(scope.per_sample_gradients(IDS)[name], expected)
    assert torch.equal(ts.Study(scope, IDS).contributions["samples"]["samples-3"][name], expected[3] ** 2)
    assert_same(before, snapshot(scope.model))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_norm_over_the_batch_is_refused_by_every_recipe(name):
    layers = torch.nn.Linear(10, 6), torch.nn.BatchNorm1d(6, track_running_stats=False), torch.nn.Linear(6, 3)
    scope = ts.Scope(used(torch.nn.Sequential(*layers), X))
    refused(
        scope, lambda s: SWEEPS[name](s, (X, Y)), ts.UnsupportedModel, ["1 normalises over the batch", "no gradient of its own"]
    )


# --- errors from inside -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", SWEEPS)
def test_an_error_in_the_nth_forward_leaves_nothing_behind(name, error):
    scope, calls = language(), []

    def fail(module, args, output):
        calls.append(1)
        if len(calls) == last:
            raise error(f"in forward {last}")

    scope.model.transformer.h[1].mlp.register_forward_hook(fail)
    before, last = snapshot(scope.model), 0
    SWEEPS[name](scope, IDS, chunk=4)  # the first sweep of a model has a forward more, in which it is checked
    calls.clear()
    SWEEPS[name](scope, IDS, chunk=4)
    n_forwards = len(calls)
    assert n_forwards >= 3
    for last in range(1, n_forwards + 1):
        calls.clear()
        with pytest.raises(error, match=f"in forward {last}$" if error is RuntimeError else None):
            SWEEPS[name](scope, IDS, chunk=4)
        assert_same(before, snapshot(scope.model))
    last = 0
    calls.clear()
    SWEEPS[name](scope, IDS, chunk=4)  # and it still runs
    assert len(calls) == n_forwards


class Root(torch.nn.Module):
    """√‖Wx‖² has no derivative at zero: the loss of such a sample is a number, and its gradient is none."""

    def __init__(self):
        super().__init__()
        self.w, self.head = torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(1, 3)

    def forward(self, x):
        return self.head(self.w(x).square().sum(1, keepdim=True).sqrt())


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("row", [4, 5])
def test_a_gradient_that_is_not_a_number_names_its_sample(row, name):
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    x[row] = 0
    refused(ts.Scope(Root()), lambda s: SWEEPS[name](s, (x, Y)), ValueError, [f"'samples-{row}'", "gradient"])


def test_a_broken_weight_is_named():
    scope = language()
    scope.model.transformer.wpe.weight.data[11, 3] = torch.nan  # only a sample of 12 tokens reaches it
    samples = ts.Samples.tokens(IDS[:, :8]) + ts.Samples.tokens(IDS[:1], task="long")
    refused(scope, lambda s: recipes.grouped_fisher(s, samples), ValueError, ["'long-0'", "transformer.wpe.weight holds NaN"])
