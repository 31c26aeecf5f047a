"""The rise of the loss nearby: closed forms, what ASAM does not see, and a model that is as it was."""

import json
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from quadratic_model import quadratic
from tiny_models import random_gpt2
from torch import nn
from unequal_sizes import half_width

import tensorscope_nb as ts
from tensorscope_nb.recipes import sharpness as module
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.progress import listened

sharpness = ts.recipes.sam_sharpness
IDS = torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[4:, 5:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
NAMES = ["sharpness", "ci_low", "ci_high", "relative", "loss", "perturbed_loss", "grad_norm", "first_order", "remainder"]


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def said(result):
    return json.loads(result.attrs["tensorscope"])


def perturbations(scope, samples, **options):
    """ε of every run of the model at weights other than its own, and the result."""
    before = {name: p.detach().clone() for name, p in scope.model.named_parameters()}
    found = []

    def look(module, args, kwargs):
        now = {name: p.detach() - before[name] for name, p in module.named_parameters()}
        if any(bool(step.any()) for step in now.values()):
            found.append(now)

    handle = scope.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        result = sharpness(scope, samples, **options)
    finally:
        handle.remove()
    return found, result


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("rho", [0.01, 0.3, 2.0])
def test_a_quadratic_is_its_closed_form(convex, rho):
    scope, samples, a, w = quadratic(convex=convex)
    found = sharpness(scope, samples, rho=rho)
    loss, g = w @ a @ w / 2, a @ w
    along = g / g.norm()
    expected = rho * g.norm() + rho**2 / 2 * along @ a @ along
    numbers = [found[n].item() for n in ("sharpness", "loss", "perturbed_loss", "grad_norm", "first_order", "remainder")]
    assert np.allclose(
        numbers, [expected, loss, loss + expected, g.norm(), rho * g.norm(), expected - rho * g.norm()], rtol=1e-10
    )
    assert np.isclose(found["relative"], expected / loss) if loss > 0 else np.isnan(found["relative"])
    assert list(found.data_vars) == NAMES and said(found)["rho"] == rho


def test_the_interval_is_students_of_the_paired_differences():
    scope, samples, a, w = quadratic(n=7)
    found = sharpness(scope, samples, per_sample=True, rho=0.3)
    at = w + 0.3 * (a @ w) / (a @ w).norm()
    differences = torch.einsum("i,nij,j->n", at, samples.labels, at) / 2 - torch.einsum("i,nij,j->n", w, samples.labels, w) / 2
    low, high = scipy.stats.t.interval(0.95, 6, differences.mean(), scipy.stats.sem(differences))
    assert np.allclose([found["sharpness"], found["ci_low"], found["ci_high"]], [differences.mean(), low, high])
    assert found["sharpness_by_sample"].dims == ("sample",) and np.allclose(found["sharpness_by_sample"], differences)


def highest_on_the_ball(a, w, rho):
    """max of ½(w + ε)ᵀA(w + ε) − ½wᵀAw over ‖ε‖ ≤ ρ, A ⪰ 0: (μ − A) ε = A w with μ > λ₁ and ‖ε‖ = ρ."""
    values, vectors = torch.linalg.eigh(a)
    g, top = vectors.T @ (a @ w), float(values[-1])
    size = lambda mu: float((g / (mu - values)).norm()) - rho
    mu = scipy.optimize.brentq(size, top + 1e-12, top + float(g.norm()) / rho + 1, xtol=1e-14)
    e = vectors @ (g / (mu - values))
    return float(e @ a @ w + e @ a @ e / 2), e


@pytest.mark.parametrize("rho", [0.05, 0.7, 3.0])
def test_many_steps_find_the_maximum_on_the_ball(rho):
    scope, samples, a, w = quadratic(seed=2)
    expected, e = highest_on_the_ball(a, w, rho)
    found = [float(sharpness(scope, samples, rho=rho, ascent_steps=n)["sharpness"]) for n in (1, 2, 5, 300)]
    assert all(later >= earlier - 1e-14 for earlier, later in pairwise(found))
    assert found[0] < expected and np.isclose(found[-1], expected, rtol=1e-9)
    steps, _ = perturbations(scope, samples, rho=rho, ascent_steps=300)
    assert torch.allclose(steps[-1]["weight"][0], e, atol=1e-6) and np.isclose(float(e.norm()), rho)


@pytest.mark.parametrize("convex", [True, False])
def test_the_highest_of_all_steps_is_kept(convex):
    """Where the loss is not convex a step may go down: the bound does not."""
    best = []
    for seed in range(6):
        scope, samples, a, w = quadratic(seed=seed, convex=convex)
        e, rises = torch.zeros_like(w), []
        for _ in range(5):
            g = a @ (w + e)
            e = 2.0 * g / g.norm()
            rises.append(float((w + e) @ a @ (w + e) - w @ a @ w) / 2)
        found = sharpness(scope, samples, rho=2.0, ascent_steps=5)
        assert np.isclose(found["sharpness"], max(rises), rtol=1e-9)
        best.append(said(found)["best_step"])
        assert said(found)["n_steps"] == 5 and np.isclose(rises[best[-1] - 1], max(rises))
        assert np.isclose(found["first_order"], 2.0 * float((a @ w).norm()))
    assert (min(best) < 5) == (not convex)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_step_is_as_long_as_rho_says(scope, adaptive):
    scope.model.double()
    found, result = perturbations(scope, SAMPLES, adaptive=adaptive, ascent_steps=3)
    rho = 0.5 if adaptive else 0.05
    assert said(result)["rho"] == rho and len(found) == 5  # three losses and two gradients
    gradient = Objective(scope, SAMPLES).gradient([slice(0, 6)])
    scaled, gradients = [], dict(zip(dict(scope.model.named_parameters()), gradient))
    for name, p in scope.model.named_parameters():
        t = torch.ones_like(p) if not adaptive or name.endswith("bias") else p.detach().abs() + 0.01
        scaled.append(t * gradients[name])
        for step in found:
            step[name] = step[name] / t
    for step in found:
        assert np.isclose(float(torch.cat([e.flatten() for e in step.values()]).norm()), rho, rtol=1e-6)
    flat = torch.cat([s.flatten() for s in scaled])
    assert torch.allclose(torch.cat([e.flatten() for e in found[0].values()]), rho * flat / flat.norm(), atol=1e-9)
    assert np.isclose(result["first_order"], rho * float(flat.norm())) and result["sharpness"] > 0
    assert np.isclose(result["remainder"], result["sharpness"] - result["first_order"])


def test_small_steps_rise_by_the_gradients_norm(scope):
    scope.model.double()
    found = [sharpness(scope, SAMPLES, rho=rho) for rho in (1e-3, 1e-4, 1e-5)]
    off = [abs(float(each["sharpness"] / rho / each["grad_norm"]) - 1) for each, rho in zip(found, (1e-3, 1e-4, 1e-5))]
    assert off[0] > 5 * off[1] > 25 * off[2] and off[2] < 1e-4
    norm = torch.cat([g.flatten() for g in Objective(scope, SAMPLES).gradient([slice(0, 6)])]).norm()
    assert np.isclose(found[0]["grad_norm"], float(norm))


def scaled(c):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    with torch.no_grad():
        model[0].weight *= c
        model[2].weight /= c
    return ts.Scope(model)


def test_asam_does_not_see_scales_that_change_no_function(monkeypatch):
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3
    plain, other = (sharpness(scaled(c), x, adaptive=True, ascent_steps=2)["sharpness"] for c in (1.0, 3.0))
    assert np.isclose(plain, other, rtol=0.05)  # but for the 0.01
    monkeypatch.setattr(module, "ETA", 0.0)
    plain, other = (sharpness(scaled(c), x, adaptive=True, ascent_steps=2)["sharpness"] for c in (1.0, 3.0))
    assert np.isclose(plain, other, rtol=1e-10)
    plain, other = (sharpness(scaled(c), x)["sharpness"] for c in (1.0, 3.0))
    assert other > 1.5 * plain


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_losses_are_weighted_as_they_are_said_to_be(scope, reduction):
    scope.model.double()
    terms = torch.tensor([11.0] * 4 + [4.0] * 2).double() if reduction == "sum" else torch.ones(6).double()
    (step, *_), found = perturbations(scope, SAMPLES, reduction=reduction, chunk=6)
    other = ts.Scope(random_gpt2().double())
    own = other.losses(SAMPLES)
    parameters = dict(other.model.named_parameters())
    g = scope.per_sample_gradients(SAMPLES)
    mean = {n: (g[n] * terms.view(-1, *[1] * (g[n].ndim - 1))).sum(0) / terms.sum() for n in g}
    norm = torch.cat([m.flatten() for m in mean.values()]).norm()
    with torch.no_grad():
        for n, p in parameters.items():
            assert torch.allclose(step[n], 0.05 * mean[n] / norm, atol=1e-9)
            p.add_(step[n])
    moved = other.losses(SAMPLES)
    ratio = float(((moved - own) * terms).sum() / terms.sum())
    half = half_width((moved - own) * terms, terms)
    assert np.allclose([found["sharpness"], found["ci_low"], found["ci_high"]], [ratio, ratio - half, ratio + half], rtol=1e-6)
    assert np.isclose(found["loss"], (own * terms).sum() / terms.sum())


@pytest.mark.parametrize("adaptive", [False, True])
def test_nothing_depends_on_chunks_or_order(scope, adaptive):
    options = {"adaptive": adaptive, "ascent_steps": 2}
    whole = sharpness(scope, SAMPLES, **options)
    for other in (sharpness(scope, SAMPLES, chunk=1, **options), sharpness(scope, SAMPLES[[5, 3, 1, 0, 2, 4]], **options)):
        assert all(np.allclose(whole[name], other[name], rtol=2e-4, atol=1e-6) for name in NAMES)


def test_only_what_is_chosen_and_not_frozen_moves(scope):
    scope.model.transformer.h[0].mlp.c_fc.bias.requires_grad_(False)
    found, result = perturbations(scope, SAMPLES, modules="*.mlp.c_fc")
    assert {n for n, e in found[0].items() if e.any()} == {f"transformer.h.{i}.mlp.c_fc.weight" for i in (0, 1)} | {
        "transformer.h.1.mlp.c_fc.bias"
    }
    assert said(result)["n_weights"] == 2 * 24 * 96 + 96


def test_a_gradient_of_zero_has_no_sharpness():
    scope, samples, _, _ = quadratic()
    with torch.no_grad():
        scope.model.weight.zero_()
    found = sharpness(scope, samples, ascent_steps=3, per_sample=True)
    assert said(found)["notes"] == ["the gradient is exactly zero after 0 steps: no direction leads uphill"]
    assert all(
        np.isnan(found[n]).all()
        for n in ("sharpness", "ci_low", "ci_high", "relative", "perturbed_loss", "remainder", "sharpness_by_sample")
    )
    assert found["loss"] == found["grad_norm"] == found["first_order"] == 0 and "partial" not in said(found)


def test_a_loss_that_overflows_nearby_is_no_number():
    scope, samples, _, w = quadratic(dtype=torch.float32)
    exploding = ts.Scope(scope.model, loss=lambda w, a: torch.exp(torch.einsum("ni,nij,nj->n", w, a, w)))
    found = sharpness(exploding, samples, rho=30.0, ascent_steps=2)
    assert said(found)["notes"] == ["at step 1 the loss is no finite number: give a smaller rho="] and np.isnan(
        found["sharpness"]
    )
    assert np.isfinite(found["loss"]) and torch.equal(scope.model.weight[0], w)


def test_a_gradient_that_is_no_number_is_an_error():
    scope, samples, _, _ = quadratic()
    with torch.no_grad():
        scope.model.weight.zero_()
    scope = ts.Scope(scope.model, loss=lambda w, a: w.abs().sum(1).sqrt())
    with pytest.raises(ValueError, match="the gradient of the mean loss is not a finite number, though the loss is"):
        sharpness(scope, samples)


class _Stop:
    def __init__(self, after):
        self.after = after

    def __call__(self, label, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


def test_an_interrupt_leaves_the_best_so_far(scope, monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(3)):
        sharpness(scope, SAMPLES, ascent_steps=5)
    (partial,) = caught.value.results
    assert said(partial)["partial"] and said(partial)["n_steps"] == 2
    two = sharpness(scope, SAMPLES, ascent_steps=2)
    assert all(partial[name] == two[name] for name in NAMES) and "partial" not in said(two)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(1)):
        sharpness(scope, SAMPLES, ascent_steps=5)
    assert caught.value.results == [None]


def test_it_can_be_looked_at_while_it_climbs(scope):
    seen = []
    (whole,) = run_together(
        scope, [(sharpness, (SAMPLES,), {"ascent_steps": 4})], so_far=lambda made: seen.extend(m() for m in made.values())
    )
    assert [said(each)["n_steps"] for each in seen] == [1, 2, 3, 4]
    rises = [float(each["sharpness"]) for each in seen]
    assert rises == sorted(rises) and rises[-1] == whole["sharpness"] and rises[0] == sharpness(scope, SAMPLES)["sharpness"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_an_error_in_the_backward_leaves_nothing_moved(scope, monkeypatch, error):
    before = {n: p.detach().clone() for n, p in scope.model.named_parameters()}
    gradient, moved_at_call = torch.autograd.grad, []

    def failing(*args, **options):
        moved_at_call.append(any(not torch.equal(p, before[n]) for n, p in scope.model.named_parameters()))
        if moved_at_call[-1]:
            raise error("in the backward")
        return gradient(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", failing)
    with pytest.raises(error):
        sharpness(scope, SAMPLES, ascent_steps=2)
    assert moved_at_call == [False, True] and all(torch.equal(p, before[n]) for n, p in scope.model.named_parameters())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"rho": 0}, ValueError, "rho is 0: give the distance to go, a number above 0"),
        ({"rho": -0.1}, ValueError, "rho is -0.1"),
        ({"rho": float("inf")}, ValueError, "rho is inf"),
        ({"ascent_steps": 0}, ValueError, "ascent_steps is 0: give a whole number from 1 on"),
        ({"ascent_steps": 1.5}, ValueError, "ascent_steps is 1.5"),
        ({"chunk": -1}, ValueError, "chunk is -1: a pass needs at least 1 sample"),
        ({"modules": "h.9"}, LookupError, "no module or parameter 'h.9': did you mean transformer.h.1"),
    ],
)
def test_bad_options_are_one_clear_line(scope, options, error, says):
    with pytest.raises(error, match=says) as caught:
        sharpness(scope, SAMPLES, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(scope, dtype):
    scope.model.to(dtype)
    with pytest.raises(ts.UnsupportedModel, match="lost in rounding; load the model with"):
        sharpness(scope, SAMPLES)


def test_one_sample_has_no_interval(scope):
    found = sharpness(scope, SAMPLES[:1])
    assert np.isfinite(found["sharpness"]) and np.isnan(found["ci_low"])
