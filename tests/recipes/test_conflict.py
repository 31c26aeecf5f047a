"""Conflict and alignment of two tasks: closed forms, dense references, and what must not matter."""

import json

import numpy as np
import pytest
import torch
from model_zoo import build
from scipy import stats
from two_tasks import by_module, dense, known_gradients, texts

import tensorscope_nb as ts
from tensorscope_nb.numerics.crossed import mean_test

rng = np.random.default_rng(0)
CONFLICT = ["cosine_corrected", "ci_low", "ci_high", "cosine", "dot", "conflict_score", "magnitude_similarity"]


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def corrected(a, b):
    """By loops over pairs of different samples."""
    aa = np.mean([a[i] @ a[j] for i in range(len(a)) for j in range(len(a)) if i != j])
    bb = np.mean([b[i] @ b[j] for i in range(len(b)) for j in range(len(b)) if i != j])
    return a.mean(0) @ b.mean(0) / np.sqrt(aa * bb) if aa > 0 and bb > 0 else np.nan


def test_two_regressions_in_closed_form():
    """gᵢ = (xᵢ·w − yᵢ) xᵢ; every number from its formula, the corrected one by loops."""
    n, m, d = 7, 5, 4
    model = torch.nn.Sequential(torch.nn.Linear(d, 1, bias=False)).double()
    w = model[0].weight.detach().numpy()[0]
    x = [rng.normal(1, 0.5, (k, d)) for k in (n, m)]
    y = [rng.normal(5, 1, k) for k in (n, m)]
    scope = ts.Scope(model, loss=lambda out, target: 0.5 * (out[:, 0] - target) ** 2)
    one, other = (ts.Samples.tensors(torch.tensor(a), torch.tensor(b), task=t) for a, b, t in zip(x, y, ("one", "other")))
    g_a, g_b = ((a @ w - b)[:, None] * a for a, b in zip(x, y))
    found = ts.recipes.gradient_conflict(scope, one, other).isel(module=0)
    a, b = g_a.mean(0), g_b.mean(0)
    expected = {
        "cosine": cosine(a, b),
        "dot": a @ b,
        "conflict_score": max(0, -cosine(a, b)),
        "magnitude_similarity": 2 * np.linalg.norm(a) * np.linalg.norm(b) / (a @ a + b @ b),
        "cosine_corrected": corrected(g_a, g_b),
        "total_cosine": cosine(a, b),
        "loss_a": np.mean(0.5 * (x[0] @ w - y[0]) ** 2),
    }
    for name, value in expected.items():
        assert np.isclose(found[name], value, rtol=1e-9), name
    assert bool(found["conflict"]) == (a @ b < 0)


def test_the_interval_is_the_jackknife_over_samples_of_both_tasks():
    g_a, g_b = rng.normal(2, 1, (9, 6)), rng.normal(1.5, 1, (7, 6))
    found = ts.recipes.gradient_conflict(*known_gradients(g_a, g_b))
    value = corrected(g_a, g_b)
    without_a = np.array([corrected(np.delete(g_a, i, 0), g_b) for i in range(9)])
    without_b = np.array([corrected(g_a, np.delete(g_b, i, 0)) for i in range(7)])
    error = np.sqrt(8 / 9 * ((without_a - without_a.mean()) ** 2).sum() + 6 / 7 * ((without_b - without_b.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 6) * error
    assert np.allclose(
        [found["total_cosine_corrected"], found["total_ci_low"], found["total_ci_high"]], [value, value - half, value + half]
    )


def test_opposite_gradients_conflict_fully_and_equal_ones_not():
    g = rng.normal(0.3, 1, (6, 8))
    against = ts.recipes.gradient_conflict(*known_gradients(g, -g))
    assert np.allclose(against["conflict_score"], 1) and np.allclose(against["cosine"], -1) and against["conflict"].all()
    assert np.allclose(against["magnitude_similarity"], 1)
    same = ts.recipes.gradient_conflict(*known_gradients(g, g))
    assert (same["conflict_score"] == 0).all() and not same["conflict"].any()


def test_the_scale_of_the_loss_changes_the_dot_and_nothing_else():
    g_a, g_b = rng.normal(0.3, 1, (6, 8)), rng.normal(-0.2, 2, (5, 8))
    plain, scaled = (ts.recipes.gradient_conflict(*known_gradients(g_a, g_b, scale=c)) for c in (1.0, 7.0))
    assert np.allclose(scaled["dot"], 49 * plain["dot"])
    for name in (n for n in CONFLICT if n != "dot"):
        assert np.allclose(scaled[name], plain[name], equal_nan=True), name


@pytest.mark.parametrize("name", ["gpt2", "llama tied", "gpt_neox", "mlp", "cnn"])
def test_conflict_by_module_is_that_of_the_dense_gradients(name):
    if name in ("mlp", "cnn"):
        shape = (9, 10) if name == "mlp" else (9, 1, 8, 8)
        scope = ts.Scope(build(name).double())
        every = ts.Samples.tensors(torch.tensor(rng.normal(size=shape)), torch.arange(9) % 3)
        one, other = every[:5], every[5:]
    else:
        scope, one, other = texts(name)
    a, b = by_module(dense(scope, one)), by_module(dense(scope, other))
    found = ts.recipes.gradient_conflict(scope, one, other, per_sample=True)
    assert set(found["module"].values) == set(a) and found["pair_dot"].attrs["reduce"] == "sum"  # over modules
    for module in a:
        here, size = found.sel(module=module), np.linalg.norm(a[module]) * np.linalg.norm(b[module])
        assert np.allclose(here["pair_dot"], a[module] @ b[module].T, atol=1e-9 * size), module
        assert np.isclose(here["dot"], a[module].mean(0) @ b[module].mean(0), atol=1e-9 * size), module
    whole_a, whole_b = (np.concatenate(list(g.values()), 1) for g in (a, b))
    assert np.isclose(found["total_dot"], whole_a.mean(0) @ whole_b.mean(0))
    assert np.isclose(found["dot"].sum(), found["total_dot"])
    assert np.isclose(found["total_cosine"], cosine(whole_a.mean(0), whole_b.mean(0)))


def test_neither_the_cut_nor_the_order_nor_the_memory_matters():
    scope, one, other = texts("gpt2", 6, 5)
    whole = ts.recipes.gradient_conflict(scope, one, other)
    for found in (
        ts.recipes.gradient_conflict(scope, one, other, chunk=2),
        ts.recipes.gradient_conflict(scope, one[[3, 0, 5, 1, 4, 2]], other[[4, 2, 0, 1, 3]], chunk=4),
    ):
        for name in CONFLICT:
            assert np.allclose(found[name], whole[name], rtol=1e-7, equal_nan=True), name
    with ts.options(memory=5 * 8 * sum(p.nelement() for p in scope.model.parameters())):
        pieces = ts.recipes.gradient_conflict(scope, one, other, chunk=2)
    assert np.allclose(pieces["cosine_corrected"], whole["cosine_corrected"], rtol=1e-7, equal_nan=True)


def test_an_undefined_cosine_is_not_a_missing_conflict():
    g = rng.normal(0.3, 1, (6, 8))
    silent = g.copy()
    silent[:, :4] = 0
    found = ts.recipes.gradient_conflict(*known_gradients(g, -silent))
    undefined = found.sel(module="first")
    assert all(np.isnan(undefined[name]) for name in ("cosine", "conflict_score", "cosine_corrected", "ci_low"))
    assert not undefined["conflict"] and found.sel(module="second")["conflict_score"] == pytest.approx(1)
    aligned = ts.recipes.gradient_alignment(*known_gradients(silent * 0, silent))
    assert np.isnan(aligned["cosine"]).all() and np.isnan(aligned["p_value"]).all() and not aligned["significant"].any()


def test_a_projected_gradient_is_orthogonal_and_another_is_left_alone():
    g_a, g_b = (torch.tensor(rng.normal(size=12)) for _ in "ab")
    g_b = g_b if g_a @ g_b < 0 else -g_b
    projected = ts.recipes.project_conflict(g_a, g_b)
    assert abs(projected @ g_b) < 1e-12 and torch.allclose(projected, g_a - (g_a @ g_b) / (g_b @ g_b) * g_b)
    assert torch.equal(ts.recipes.project_conflict(g_a, -g_b), g_a)
    parts = ts.recipes.project_conflict({"x": g_a[:5], "y": g_a[5:]}, {"x": g_b[:5], "y": g_b[5:]})
    assert torch.allclose(torch.cat([parts["x"], parts["y"]]), projected)
    tiny = ts.recipes.project_conflict(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1e-39]))
    assert torch.allclose(tiny, torch.tensor([1.0, 0.0]), atol=1e-5)
    assert ts.recipes.project_conflict(torch.tensor([1, -1]), torch.tensor([0, 2])).tolist() == [1, 0]
    assert ts.recipes.project_conflict(torch.tensor([1.0, -1.0]), torch.zeros(2)).tolist() == [1, -1]
    assert ts.recipes.project_conflict(torch.tensor([1.0, -1.0]), torch.tensor([0.0, torch.nan])).isnan().all()
    with pytest.raises(ValueError, match="different parameters"):
        ts.recipes.project_conflict({"x": g_a}, {"y": g_b})
    with pytest.raises(TypeError, match="give two tensors, or two mappings"):
        ts.recipes.project_conflict([1.0], g_b)


def test_alignment_is_the_crossed_test_of_the_layers():
    scope, one, other = texts("gpt2", 6, 5)
    a, b = dense(scope, one), dense(scope, other)
    found = ts.recipes.gradient_alignment(scope, one, other, per_sample=True)
    for layer in (0, 1):
        names = [name for name in a if f"h.{layer}." in name]
        s = np.concatenate([a[n] for n in names], 1) @ np.concatenate([b[n] for n in names], 1).T
        expected, here = mean_test(s), found.sel(layer=layer)
        assert np.allclose(here["pair_dot"], s, rtol=1e-6)
        assert np.isclose(here["statistic"], expected.statistic) and np.isclose(here["p_value"], expected.below)
        assert np.isclose(here["angle"], np.degrees(np.arccos(here["cosine"])))
    assert np.allclose(found["q_value"], stats.false_discovery_control(found["p_value"]))


def test_identical_tasks_have_no_significant_conflict():
    g = rng.normal(0.2, 1, (20, 30))
    for same in (known_gradients(g, g), known_gradients(g[:10], g[10:])):
        assert not ts.recipes.gradient_alignment(*same)["significant"].any()
        assert not ts.recipes.sample_conflicts(*same)["significant"].any()
        assert not (ts.recipes.gradient_conflict(*same)["ci_high"] < 0).any()


COMPARING = [ts.recipes.gradient_conflict, ts.recipes.gradient_alignment, ts.recipes.fisher_overlap, ts.recipes.sample_conflicts]


@pytest.mark.parametrize("recipe", [*COMPARING, ts.recipes.qkov_interference])
def test_bad_tasks_get_one_clear_line(recipe):
    scope, one, other = texts("gpt2", 5, 5)
    with pytest.raises(ValueError, match="the sample id 'one-0' occurs twice: give the two sets different task names"):
        recipe(scope, one, one[:3])
    with pytest.raises(ValueError, match="a and b are the same samples"):
        recipe(scope, one, one)
    with pytest.raises(ValueError, match="do not join: they go into different models"):
        recipe(scope, one, ts.Samples.tensors(torch.zeros(5, 3), task="vectors"))
    if recipe.name != "gradient_conflict":
        with pytest.raises(ValueError, match=r"task 'other' has 1 sample: this takes at least \d of each"):
            recipe(scope, one, other[:1])
    if recipe.name != "sample_conflicts":
        with pytest.raises(TypeError, match="b is missing: this compares two tasks"):
            recipe(scope, one)


def test_one_sample_per_task_has_a_cosine_and_no_interval():
    g_a, g_b = rng.normal(size=(1, 6)), rng.normal(size=(1, 6))
    found = ts.recipes.gradient_conflict(*known_gradients(g_a, g_b))
    assert np.isclose(found["total_cosine"], cosine(g_a[0], g_b[0]))
    assert all(np.isnan(found[name]).all() for name in ("cosine_corrected", "ci_low", "ci_high"))


def test_few_samples_are_said():
    scope, one, other = texts()
    with pytest.warns(UserWarning, match="Only 4 samples for task 'other'"):
        ts.recipes.gradient_alignment(scope, one, other)
    with pytest.warns(UserWarning, match="Only 5 samples for task 'one': below 15 no tail is fitted"):
        ts.recipes.sample_conflicts(scope, one, other)


@pytest.mark.parametrize("recipe", [*COMPARING, ts.recipes.qkov_interference])
def test_the_model_is_left_as_it_was_and_the_result_says_what_it_used(recipe):
    scope, one, other = texts()
    before = {name: p.detach().clone() for name, p in scope.model.named_parameters()}
    state = torch.get_rng_state()
    found = recipe(scope, one, other)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in scope.model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    said = json.loads(found.attrs["tensorscope"])
    assert (said["task_a"], said["task_b"], said["n_used_a"], said["n_used_b"]) == ("one", "other", 5, 4)


def test_texts_and_raw_tensors_are_tasks_too():
    scope = ts.load("tiny")
    found = ts.recipes.gradient_conflict(scope, ["To be, or not to be", "that is the question"], ["def f(x):", "    return x"])
    said = json.loads(found.attrs["tensorscope"])
    assert (said["task_a"], said["task_b"]) == ("a", "b")


def test_significance_is_by_q_over_layers():
    g_a, g_b = np.random.default_rng(0).normal(size=(2, 10, 40))
    g_a[:, :5] += 0.8
    g_b[:, :5] -= 0.8
    found = ts.recipes.gradient_alignment(*known_gradients(g_a, g_b)).sel(layer=0)
    assert found["p_value"] < 0.017 < found["q_value"] < 0.03 and found["cosine"] < 0
    assert not ts.recipes.gradient_alignment(*known_gradients(g_a, g_b), alpha=0.017)["significant"].any()
    assert ts.recipes.gradient_alignment(*known_gradients(g_a, g_b), alpha=0.03)["significant"].values.tolist() == [True, False]


def test_layers_are_asked_for_where_there_are_some():
    scope, one, other = texts()
    with pytest.raises(LookupError, match="leaves nothing in any layer: choose others"):
        ts.recipes.gradient_alignment(scope, one, other, modules="transformer.wpe")
