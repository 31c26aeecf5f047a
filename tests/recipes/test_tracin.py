"""TracIn: closed forms, one step of gradient descent, per-sample references, and what it refuses."""

import json
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.recipes.recipe import fingerprint
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.progress import listened
from tensorscope_nb.sweep.request import Unfinished

tracin_module = sys.modules["tensorscope_nb.recipes.tracin"]

IDS = torch.randint(1, 50, (11, 12), generator=torch.Generator().manual_seed(1))
TRAIN = ts.Samples.tokens(IDS[:6], task="train")
TEST = ts.Samples.tokens(
    IDS[6:, :9], torch.tensor([[1] * 9, [1] * 9, [1] * 6 + [0] * 3, [1] * 9, [1] * 4 + [0] * 5]), task="test"
)
RATES = [0.3, 0.2, 0.1]


def history(n=3, make=random_gpt2):
    return {10 * k: ts.Scope(make(seed=k), name=f"gpt2@{10 * k}") for k in range(n)}


def small(seed):
    return random_gpt2(seed=seed, n_layer=1, n_embd=12)


def reference(scopes, train, test, rates):
    """Σ η g · h from one backward per sample, in double precision."""
    found = 0
    for rate, scope in zip(rates, scopes, strict=True):
        one, other = (
            torch.cat([g.flatten(1) for g in scope.per_sample_gradients(s).values()], 1).double() for s in (train, test)
        )
        found = found + rate * (one @ other.T)
    return found.numpy()


def squared_error(output, target):
    return (output[:, 0] - target) ** 2


def test_linear_regression_has_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 4, generator=generator), torch.randn(7, generator=generator)
    weights, scopes = torch.randn(4, generator=generator), {}
    passed = []
    for step in range(4):  # gradient descent by hand
        linear = torch.nn.Linear(4, 1, bias=False)
        linear.weight.data = weights[None].clone()
        scopes[step] = ts.Scope(linear, loss=squared_error)
        passed.append(weights.double())
        weights = weights - 0.05 * 2 * ((x @ weights - y)[:, None] * x).mean(0)
    train, test = ts.Samples.tensors(x[:5], y[:5], task="a"), ts.Samples.tensors(x[5:], y[5:], task="b")
    found = ts.recipes.tracin(scopes, train, test, learning_rates=0.05)
    x, y = x.double(), y.double()
    terms = []
    for w in passed:  # ∇ℓ = 2 (w·x − y) x
        residual = x @ w - y
        terms.append(0.05 * 4 * torch.outer(residual, residual) * (x @ x.T))
    np.testing.assert_allclose(found["contribution"], torch.stack(terms)[:, :5, 5:], rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(found["influence"], sum(terms)[:5, 5:], rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(found["self_influence"], sum(terms).diag()[:5], rtol=2e-5)


def test_one_small_step_on_a_sample_changes_the_losses_as_foretold():
    scope = ts.Scope(random_gpt2(seed=3).double())
    before = scope.losses(TEST)
    kept = {name: p.detach().clone() for name, p in scope.model.named_parameters()}
    for i in (0, 3):
        gradients = scope.per_sample_gradients(TRAIN[[i]])
        errors = []
        for rate in (1e-5, 1e-6):
            foretold = ts.recipes.tracin(scope, TRAIN, TEST, learning_rates=rate)["influence"].values[i]
            with torch.no_grad():
                for name, p in scope.model.named_parameters():
                    p.copy_(kept[name] - rate * gradients[name][0])
            fall = (before - scope.losses(TEST)).numpy()
            errors.append(np.abs(fall - foretold).max() / np.abs(foretold).max())
            with torch.no_grad():
                for name, p in scope.model.named_parameters():
                    p.copy_(kept[name])
        assert errors[0] < 1e-2 and errors[1] < errors[0] / 5  # what is left is of second order


@pytest.mark.parametrize("family", ["gpt2", "llama tied", "gpt_neox", "bert", "bert classifier", "mlp", "cnn"])
def test_every_family_equals_one_backward_per_sample(family):
    scope = ts.Scope(build(family))
    generator = torch.Generator().manual_seed(5)
    if family in ("mlp", "cnn"):
        x = torch.randn(11, *((10,) if family == "mlp" else (1, 8, 8)), generator=generator)
        y = torch.arange(11) % 3
        train, test = ts.Samples.tensors(x[:6], y[:6], task="a"), ts.Samples.tensors(x[6:], y[6:], task="b")
    elif family == "bert classifier":
        train, test = (ts.Samples.tokens(i, labels=torch.arange(len(i)) % 4, task=t) for i, t in ((IDS[:6], "a"), (IDS[6:], "b")))
    elif family == "bert":
        labels = IDS.clone()
        labels[:, ::3] = -100
        train, test = (ts.Samples.tokens(IDS[k], labels=labels[k], task=t) for k, t in ((slice(6), "a"), (slice(6, 11), "b")))
    else:
        train, test = TRAIN, TEST
    found = ts.recipes.tracin(scope, train, test, learning_rates=0.3, chunk=4)
    expected = reference([scope], train, test, [0.3])
    own = np.diag(reference([scope], train, train, [0.3]))
    np.testing.assert_allclose(found["self_influence"], own, rtol=1e-4)
    scale = np.sqrt(own)[:, None] * np.sqrt(np.diag(reference([scope], test, test, [0.3])))
    assert (np.abs(found["influence"].values - expected) / scale).max() < 1e-5
    np.testing.assert_allclose(found["train_loss"][0], scope.losses(train), rtol=1e-5)
    np.testing.assert_allclose(found["test_loss"][0], scope.losses(test), rtol=1e-5)


def test_the_terms_of_checkpoints_modules_and_tokens_add_up():
    scopes = history()
    whole = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, per_module=True)
    expected = reference(scopes.values(), TRAIN, TEST, RATES)
    np.testing.assert_allclose(whole["influence"], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(whole["contribution"].sum("checkpoint"), whole["influence"], rtol=1e-12)
    np.testing.assert_allclose(whole["module_influence"].sum("module"), whole["influence"], rtol=1e-9, atol=1e-12)
    one = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, modules="transformer.h.1.mlp.c_fc")
    inside = whole["module_influence"].sel(module="transformer.h.1.mlp.c_fc")
    np.testing.assert_allclose(one["influence"], inside, rtol=1e-6)
    for reduction, total in (("mean", np.nanmean), ("sum", np.nansum)):
        tokens = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, test_unit="token", reduction=reduction)
        by_sample = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, reduction=reduction)
        scale = np.abs(by_sample["influence"].values).max()
        np.testing.assert_allclose(tokens["influence"], by_sample["influence"], rtol=1e-4, atol=1e-5 * scale)
        np.testing.assert_allclose(tokens["test_loss"], by_sample["test_loss"], rtol=1e-5)
        np.testing.assert_allclose(tokens["test_loss"][0], scopes[0].losses(TEST), rtol=1e-5)
        np.testing.assert_allclose(total(tokens["token_influence"], -1), tokens["influence"], rtol=1e-9)
        np.testing.assert_allclose(tokens["token_contribution"].sum("checkpoint", skipna=False), tokens["token_influence"])
        known = np.isfinite(tokens["token_influence"].values[0])
        assert (known == (np.arange(9) >= 1) & TEST.attention_mask.bool().numpy()).all()


def test_one_token_is_what_a_label_on_it_alone_gives():
    scope = ts.Scope(random_gpt2(seed=1))
    found = ts.recipes.tracin(scope, TRAIN, TEST, learning_rates=1.0, test_unit="token")
    labels = torch.full((1, 9), -100)
    labels[0, 4] = TEST.input_ids[1, 4]
    alone = ts.Samples.tokens(TEST.input_ids[1:2], labels=labels, task="alone")
    expected = reference([scope], TRAIN, alone, [1.0])[:, 0]
    np.testing.assert_allclose(found["token_influence"].isel(test_sample=1, test_position=4), expected, rtol=1e-4)
    assert found["test_token"].values[1, 4] == str(int(TEST.input_ids[1, 4]))


def test_neither_chunks_nor_memory_nor_order_change_a_number():
    scopes = history(2)
    whole = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=0.1)
    scale = np.abs(whole["influence"].values).max()
    for chunk in (1, 4):
        cut = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=0.1, chunk=chunk)
        np.testing.assert_allclose(cut["influence"], whole["influence"], rtol=1e-4, atol=1e-6 * scale)
    with ts.options(memory=150_000):  # the gradients of one test sample and a half
        little = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=0.1)
    np.testing.assert_allclose(little["influence"], whole["influence"], rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(little["self_influence"], whole["self_influence"], rtol=1e-5)
    np.testing.assert_allclose(little["test_loss"], whole["test_loss"], rtol=1e-5)
    order, other = [4, 0, 5, 2, 1, 3], [3, 1, 4, 0, 2]
    moved = ts.recipes.tracin(scopes, TRAIN[order], TEST[other], learning_rates=0.1)
    moved = moved.sel(sample=list(TRAIN.ids), test_sample=list(TEST.ids))
    np.testing.assert_allclose(moved["influence"], whole["influence"], rtol=1e-4, atol=1e-6 * scale)


def test_a_sample_is_influenced_by_itself_as_self_influence_says():
    found = ts.recipes.tracin(history(2), TRAIN, TRAIN, learning_rates=0.1)
    np.testing.assert_allclose(np.diag(found["influence"]), found["self_influence"], rtol=1e-5)
    np.testing.assert_allclose(found["influence"], found["influence"].T.values, rtol=1e-4)


def test_the_mean_over_test_samples_has_its_interval():
    from scipy.stats import t

    found = ts.recipes.tracin(history(2), TRAIN, TEST, learning_rates=0.1)
    values = found["influence"].values
    half = t.ppf(0.975, 4) * values.std(1, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found["mean_influence"], values.mean(1))
    np.testing.assert_allclose(found["ci_high"] - found["mean_influence"], half)
    alone = ts.recipes.tracin(history(2), TRAIN, TEST[:1], learning_rates=0.1)
    assert alone["ci_low"].isnull().all()


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_checkpoints_over_workers_give_the_same_numbers(workers):
    scopes = history(3)
    here = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, test_unit="token")
    made = (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        if workers == "processes"
        else ThreadPoolExecutor(2)
    )
    with made as pool:
        there = ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=RATES, test_unit="token", executor=pool)
    xr.testing.assert_allclose(here, there, rtol=1e-5)
    assert set(here.data_vars) == set(there.data_vars)


def test_what_a_worker_raises_names_its_checkpoint():
    scopes = history(2)
    scopes[10].model.transformer.ln_f.weight.data[0] = torch.nan
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="ln_f") as raised:
        ts.recipes.tracin(scopes, TRAIN, TEST, executor=pool)
    assert raised.value.__notes__ == ["in checkpoint 10"]


def test_an_interrupt_keeps_the_checkpoints_that_are_done(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)

    def stop(label, done, total):
        if label == "checkpoints" and done >= 2:
            raise KeyboardInterrupt

    with listened(stop), pytest.raises(Unfinished) as ended:
        ts.recipes.tracin(history(3), TRAIN, TEST, learning_rates=RATES)
    (found,) = ended.value.results
    assert found["checkpoint"].values.tolist() == [0, 10]
    assert json.loads(found.attrs["tensorscope"])["partial"] is True
    expected = reference(list(history(3).values())[:2], TRAIN, TEST, RATES[:2])
    np.testing.assert_allclose(found["influence"], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_a_signal_that_waits_for_the_end_of_a_checkpoint_finds_it_counted(monkeypatch):
    at = tracin_module.across
    calls = []

    def signalled(*given, **how):
        found = at(*given, **how)
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(tracin_module, "across", signalled)
    with pytest.raises(Unfinished) as ended:
        ts.recipes.tracin(history(3), TRAIN, TEST, learning_rates=RATES)
    (found,) = ended.value.results
    said = json.loads(found.attrs["tensorscope"])
    assert found["checkpoint"].values.tolist() == [0, 10] and said["n_checkpoints"] == len(said["weights"]) == 2
    expected = reference(list(history(3).values())[:2], TRAIN, TEST, RATES[:2])
    np.testing.assert_allclose(found["influence"], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_an_interrupt_within_a_checkpoint_leaves_that_checkpoint_out():
    """Half of its products are not there, and would be read as 0."""
    scopes, runs, stop = history(2), [], []

    def signalled(*_):
        runs.append(1)
        if len(runs) in stop:
            signal.raise_signal(signal.SIGINT)

    scopes[10].model.register_forward_pre_hook(signalled)
    ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=0.1, chunk=1)
    total = len(runs)
    assert total > 10
    for number in (2, total // 2, total):
        runs.clear()
        stop[:] = [number]
        with pytest.raises(Unfinished) as ended:
            ts.recipes.tracin(scopes, TRAIN, TEST, learning_rates=0.1, chunk=1)
        (found,) = ended.value.results
        assert found["checkpoint"].values.tolist() == [0]


def test_units_say_whether_tokens_are_averaged_or_summed():
    scope = ts.checkpoints("tiny")[1:2]
    for reduction, unit in (("mean", "nats per token"), ("sum", "nats")):
        found = ts.recipes.tracin(scope, TRAIN, TEST, reduction=reduction)
        assert found["influence"].attrs["units"] == unit and found["train_loss"].attrs["units"] == "nats per token"


def frozen():
    scopes = history(2)
    scopes[10].model.transformer.wpe.weight.requires_grad_(False)
    return scopes


def another_activation():
    make = lambda kind: ts.Scope(torch.nn.Sequential(torch.nn.Linear(4, 3), kind()))
    return [make(torch.nn.Tanh), make(torch.nn.ReLU)]


@pytest.mark.parametrize(
    "given, says",
    [
        (frozen, r"transformer.wpe.weight is \(24, 24\), frozen at step 10 and \(24, 24\) at step 0"),
        (another_activation, "module 1 is ReLU at step 1 and Tanh at step 0"),
        (lambda: [ts.Scope(random_gpt2(seed=1)), ts.Scope(random_gpt2(seed=2, n_head=4))], "the number of heads is 4 at step 1"),
        (
            lambda: [history(1)[0], ts.Scope(random_gpt2(seed=1), loss=squared_error)],
            "the loss is custom: squared_error at step 1",
        ),
    ],
)
def test_checkpoints_of_one_run_are_alike_in_more_than_shapes(given, says):
    with pytest.raises(ValueError, match=says):
        ts.recipes.tracin(given(), TRAIN, TEST)


def test_known_learning_rates_that_are_all_0_are_no_influence_of_0():
    given = ts.checkpoints("digits")[:1]
    given.learning_rates = (0.0,)
    train, test = ts.datasets.digits("train", n=3), ts.datasets.digits("test", n=2)
    with pytest.raises(ValueError, match="the learning rate is 0 at every checkpoint"):
        ts.recipes.tracin(given, train, test)
    assert (ts.recipes.tracin(given, train, test, learning_rates=0.2)["learning_rate"] == 0.2).all()


def test_a_chunk_of_none_is_refused():
    with pytest.raises(ValueError, match="chunk is 0"):
        ts.recipes.tracin(history(1), TRAIN, TEST, chunk=0)


def test_the_products_of_every_module_count_as_memory():
    with ts.options(memory=60_000):  # 720 bytes of all weights together, 6480 of the modules
        ts.recipes.tracin(history(3, small), TRAIN, TEST, per_module=True)
    with ts.options(memory=5_000), pytest.raises(ValueError, match="the contributions of all pairs at all checkpoints take"):
        ts.recipes.tracin(history(3, small), TRAIN, TEST, per_module=True)


def test_the_packaged_history_brings_its_learning_rates():
    checkpoints = ts.checkpoints("tiny")
    train = ts.datasets.shakespeare(checkpoints[0], n=4, length=16, split="train")
    test = ts.datasets.code(checkpoints[0], n=2, length=16)
    found = ts.recipes.tracin(checkpoints, train, test)
    said = json.loads(found.attrs["tensorscope"])
    assert found["checkpoint"].values.tolist() == list(checkpoints.steps)
    np.testing.assert_allclose(found["learning_rate"], checkpoints.learning_rates)
    assert said["notes"] == [] and found["influence"].attrs["units"] == "nats per token"
    assert said["model"] == "tiny" and len(said["weights"]) == 8
    scopes = dict(zip(checkpoints.steps, checkpoints, strict=True))
    with pytest.warns(UserWarning, match="no learning rates are known: 1 is taken"):
        plain = ts.recipes.tracin(scopes, train, test)
    assert (plain["learning_rate"] == 1).all() and plain["influence"].attrs["units"] == "squared gradient of the loss"
    assert json.loads(plain.attrs["tensorscope"])["notes"][0].startswith("no learning rates are known: 1 is taken")
    weighed = (plain["contribution"] * np.array(checkpoints.learning_rates)[:, None, None]).sum("checkpoint")
    np.testing.assert_allclose(found["influence"], weighed, rtol=1e-10)


def test_images_bring_their_pixels():
    history = ts.checkpoints("digits")
    train, test = ts.datasets.digits("train", n=5), ts.datasets.digits("test", n=3)
    found = ts.recipes.tracin(history, train, test)
    np.testing.assert_array_equal(found["pixels"].values.reshape(5, 64), train.inputs["x"])
    np.testing.assert_array_equal(found["test_pixels"].values.reshape(3, 64), test.inputs["x"])
    assert found["influence"].attrs["units"] == "nats" and found["text"][0] == "a 6"


def test_the_models_are_left_as_they_were():
    scopes = history(2)
    before = {step: fingerprint(scope) for step, scope in scopes.items()}
    state = torch.get_rng_state()
    ts.recipes.tracin(scopes, TRAIN, TEST, test_unit="token")
    assert before == {step: fingerprint(scope) for step, scope in scopes.items()}
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for scope in scopes.values() for p in scope.model.parameters())


def _twice():
    one = history(1)[0]
    return {0: one, 10: ts.Scope(random_gpt2(seed=0))}


@pytest.mark.parametrize(
    "given, says",
    [
        (lambda: {}, "the history is empty: give ts.checkpoints"),
        (lambda: [], "the history is empty"),
        (lambda: "tiny", "history is a str: give ts.checkpoints"),
        (lambda: [random_gpt2()], "at step 0 stands a GPT2LMHeadModel"),
        (lambda: {"final": history(1)[0]}, "'final' is no training step"),
        (lambda: dict(reversed(history(2).items())), "step 0 comes after step 10: give the checkpoints in the order of training"),
        (_twice, "steps 0 and 10 have the same weights"),
        (
            lambda: [*history(1).values(), ts.Scope(random_gpt2(n_layer=1))],
            "transformer.h.1.ln_1.weight is missing at step 1 and \\(24,\\) at step 0: these are not checkpoints of one model",
        ),
        (
            lambda: [*history(1).values(), ts.Scope(random_gpt2(n_embd=12))],
            "transformer.wte.weight is \\(50, 12\\) at step 1 and \\(50, 24\\) at step 0",
        ),
    ],
)
def test_what_is_no_history_is_refused(given, says):
    with pytest.raises((ValueError, TypeError), match=says) as raised:
        ts.recipes.tracin(given(), TRAIN, TEST)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "rates, says",
    [
        ([0.1, 0.2], "learning_rates has 2 numbers for 3 checkpoints"),
        ([0.1], "learning_rates has 1 numbers for 3 checkpoints"),
        ({0: 0.1}, "learning_rates is {0: 0.1}: give one number"),
        (True, "learning_rates is True: give one number"),
        ("0.1", "learning_rates is '0.1': give one number"),
        ([0.1, -0.2, 0.1], "not negative and not all 0"),
        ([0.0, 0.0, 0.0], "not negative and not all 0"),
        ([0.1, float("nan"), 0.1], "not negative and not all 0"),
    ],
)
def test_learning_rates_that_cannot_be_are_refused(rates, says):
    with pytest.raises((ValueError, TypeError), match=says):
        ts.recipes.tracin(history(3), TRAIN, TEST, learning_rates=rates)


def test_what_does_not_fit_into_memory_is_refused_before_it_runs():
    with ts.options(memory=500), pytest.raises(ValueError, match="the contributions of all pairs at all checkpoints take"):
        ts.recipes.tracin(history(3), TRAIN, TEST)


def test_test_tokens_are_asked_of_language_models_only():
    with pytest.raises(ts.UnsupportedModel, match="is for language models"):
        x = ts.Samples.tensors(torch.randn(4, 10), torch.arange(4) % 3)
        ts.recipes.tracin(ts.Scope(build("mlp")), x, x, test_unit="token")
    with pytest.raises(ValueError, match="test_unit is 'word': choose"):
        ts.recipes.tracin(history(1), TRAIN, TEST, test_unit="word")


def made():
    """Three training and two test samples, with numbers that are easily read."""
    contribution = np.array([[[1.0, -1.0], [0.5, 2.0], [-4.0, 0.0]], [[2.0, -1.0], [1.5, 0.0], [1.0, 0.0]]])
    influence = contribution.sum(0)  # [[3, -2], [2, 2], [-3, 0]]
    dims = ("sample", "test_sample")
    return xr.Dataset(
        {
            "influence": (dims, influence), "contribution": (("checkpoint", *dims), contribution),
            "self_influence": ("sample", [9.0, 1.0, 4.0]), "mean_influence": ("sample", influence.mean(1)),
            "ci_low": ("sample", [-1.0, -2.0, -3.0]), "ci_high": ("sample", [1.0, 2.0, 3.0]),
        },
        {
            "sample": ["a", "b", "c"], "test_sample": ["u", "v"], "checkpoint": [0, 10],
            "task": ("sample", ["t"] * 3), "text": ("sample", ["A", "B", "C"]),
        },
    )  # fmt: skip


def test_critical_samples_are_ranked_with_what_they_are_made_of():
    table = ts.recipes.critical_samples(made())
    found = list(zip(table["test_sample"], table["kind"], table["rank"], table["sample"], table["influence"], strict=True))
    assert found == [
        ("u", "proponent", 1, "a", 3.0), ("u", "proponent", 2, "b", 2.0), ("u", "opponent", 1, "c", -3.0),
        ("v", "proponent", 1, "b", 2.0), ("v", "opponent", 1, "a", -2.0),
    ]  # fmt: skip
    assert table["contributions"][2] == {0: -4.0, 10: 1.0} and table["index"].tolist() == [0, 1, 2, 1, 0]
    assert table["text"].tolist() == ["A", "B", "C", "B", "A"]


def test_critical_samples_by_what_is_asked():
    relative = ts.recipes.critical_samples(made(), test_sample="u", by="relative")
    assert relative["sample"].tolist() == ["b", "a", "c"] and relative["relative"].tolist() == [2.0, 1.0, -1.5]
    one = ts.recipes.critical_samples(made(), n=1, test_sample=0)
    assert one["sample"].tolist() == ["a", "c"]
    mean = ts.recipes.critical_samples(made(), mean=True)
    assert mean["sample"].tolist() == ["b", "a", "c"] and mean["influence"].tolist() == [2.0, 0.5, -1.5]
    assert mean["contributions"][0] == {0: 1.25, 10: 0.75} and mean["ci_low"].tolist() == [-2.0, -1.0, -3.0]


def test_samples_of_equal_influence_are_listed_in_their_order():
    """A sample that is there twice is as critical each time."""
    tied = made()
    tied["influence"][:, 0] = [-2.0, -2.0, -2.0]
    tied["influence"][:, 1] = 2.0
    table = ts.recipes.critical_samples(tied, n=2)
    assert table["sample"].tolist() == ["a", "b", "a", "b"] and table["rank"].tolist() == [1, 2, 1, 2]


def test_a_sample_without_gradient_has_no_relative_influence():
    silent = made()
    silent["influence"][0], silent["self_influence"][0] = 0.0, 0.0
    table = ts.recipes.critical_samples(silent, test_sample="u", by="relative")
    assert table["sample"].tolist() == ["b", "c"]


def test_a_number_that_is_none_is_not_ranked_as_0():
    broken = made()
    broken["influence"][1, 1] = np.nan
    assert len(ts.recipes.critical_samples(broken, test_sample="u")) == 3
    for options, name in (({}, "v"), ({"test_sample": "v"}, "v"), ({"mean": True}, "mean")):
        with pytest.raises(ValueError, match=f"the influence of 'b' is no finite number .test_sample '{name}'"):
            ts.recipes.critical_samples(broken, **options)


def test_critical_samples_of_a_token():
    found = ts.recipes.tracin(history(2), TRAIN, TEST, learning_rates=0.1, test_unit="token")
    table = ts.recipes.critical_samples(found, n=6, test_sample="test-1", test_position=4)
    expected = found["token_influence"].sel(test_sample="test-1", test_position=4).to_series()
    assert dict(zip(table["sample"], table["influence"], strict=True)) == pytest.approx(expected.to_dict())
    assert table["influence"][0] == expected.max() and set(table["test_sample"]) == {"test-1"}
    parts = found["token_contribution"].sel(test_sample="test-1", test_position=4, sample=table["sample"][0])
    assert list(table["contributions"][0].values()) == parts.values.tolist()
    for options, says in (
        ({"test_position": 4}, "say of which test_sample"),
        ({"test_sample": 0, "test_position": 0}, "nothing is predicted at test_position 0 of 0"),
        ({"test_sample": 0, "test_position": 40}, "there are 0 to 8"),
    ):
        with pytest.raises((ValueError, LookupError), match=says):
            ts.recipes.critical_samples(found, **options)
    with pytest.raises(LookupError, match='run tracin with test_unit="token"'):
        ts.recipes.critical_samples(made(), test_sample="u", test_position=1)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"n": 0}, "n is 0"),
        ({"n": 2.5}, "n is 2.5"),
        ({"n": "2"}, "n is '2'"),
        ({"test_sample": "w"}, "there is no test sample 'w': ids are such as 'u'"),
        ({"test_sample": 2}, "there are 0 to 1"),
        ({"by": "size"}, "by is 'size'"),
        ({"mean": True, "test_sample": 0}, "ask for one of the two"),
    ],
)
def test_critical_samples_refuse(options, says):
    with pytest.raises((ValueError, LookupError), match=says):
        ts.recipes.critical_samples(made(), **options)
    with pytest.raises(LookupError, match="there is no influence among"):
        ts.recipes.critical_samples(made().drop_vars("influence"))
