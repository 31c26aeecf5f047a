"""The loss on a plane: closed forms, normalisation by its definition, and a model that is as it was."""

import copy
import json

import numpy as np
import pytest
import scipy.stats
import torch
from curved_models import perceptron
from model_zoo import build
from quadratic_model import quadratic
from tiny_models import random_gpt2
from torch import nn
from transformers.pytorch_utils import Conv1D
from unequal_sizes import half_width

import tensorscope_nb as ts
from tensorscope_nb.recipes.directions import filter_norms, random_plane
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.progress import listened
from tensorscope_nb.views.partial import partial_words

landscape = ts.recipes.loss_landscape
IDS = torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[4:, 5:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def said(result):
    return json.loads(result.attrs["tensorscope"])


def plane_of(scope, normalize, seed=0):
    return random_plane(scope, dict(scope.model.named_parameters()), normalize, seed)


@pytest.mark.parametrize("normalize", ["filter", "layer", "none"])
def test_a_quadratic_is_its_closed_form(normalize):
    scope, samples, a, w = quadratic()
    found = landscape(scope, samples, n_points=7, span=0.7, normalize=normalize, seed=3)
    plane = plane_of(scope, normalize, 3)
    delta, eta = plane.delta[0][0], plane.eta[0][0]
    axis = np.linspace(-0.7, 0.7, 7)
    assert np.allclose(found["x"], axis) and np.allclose(found["y"], axis) and found["x"][3] == 0
    expected = [[float((w + x * delta + y * eta) @ a @ (w + x * delta + y * eta)) / 2 for y in axis] for x in axis]
    assert np.allclose(found["loss"], expected, rtol=1e-12)
    assert np.allclose(found["increase"], np.array(expected) - float(w @ a @ w) / 2, atol=1e-12)
    assert found["roughness"] < 1e-12
    assert np.allclose([found["norm_x"], found["norm_y"]], [float(delta.norm()), float(eta.norm())])
    assert np.isclose(found["cos_angle"], float(torch.cosine_similarity(delta, eta, dim=0)))
    if normalize != "none":  # one row is one filter and one layer
        assert np.isclose(found["norm_x"], float(w.norm()))


def test_the_interval_is_students_of_the_paired_differences():
    scope, samples, _, w = quadratic(n=7)
    found = landscape(scope, samples, n_points=3, per_sample=True)
    plane = plane_of(scope, "filter")
    at = w + plane.delta[0][0] - plane.eta[0][0]
    differences = torch.einsum("i,nij,j->n", at, samples.labels, at) / 2 - torch.einsum("i,nij,j->n", w, samples.labels, w) / 2
    low, high = scipy.stats.t.interval(0.95, 6, differences.mean(), scipy.stats.sem(differences))
    corner = found.sel(x=1, y=-1)
    assert np.allclose(
        [corner["increase"], corner["increase_ci_low"], corner["increase_ci_high"]], [differences.mean(), low, high]
    )
    assert found["increase_by_sample"].dims == ("sample", "x", "y")
    assert np.allclose(corner["increase_by_sample"], differences)
    centre = found.sel(x=0, y=0)
    assert centre["increase"] == centre["increase_ci_low"] == centre["increase_ci_high"] == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_losses_are_those_of_a_model_that_was_moved_by_hand(scope, reduction):
    found = landscape(scope, SAMPLES, n_points=3, span=0.3, reduction=reduction, chunk=4)
    terms = torch.tensor([11.0] * 4 + [4.0] * 2).double() if reduction == "sum" else torch.ones(6).double()
    own = scope.losses(SAMPLES).double()
    assert np.isclose(found["centre_loss"], (own * terms).sum() / terms.sum(), rtol=1e-7)
    plane = plane_of(scope, "filter")
    other = ts.Scope(random_gpt2())
    names = {id(p): name for name, p in scope.model.named_parameters()}
    with torch.no_grad():
        for p, delta, eta in zip(plane.parameters, plane.delta, plane.eta):
            other.model.get_parameter(names[id(p)]).add_(0.3 * delta - 0.3 * eta)
    losses = other.losses(SAMPLES).double()
    corner = found.sel(x=0.3, y=-0.3)
    assert np.isclose(corner["loss"], (losses * terms).sum() / terms.sum(), rtol=1e-6)
    ratio = float(((losses - own) * terms).sum() / terms.sum())
    half = half_width((losses - own) * terms, terms)
    rise = [corner[name] for name in ("increase", "increase_ci_low", "increase_ci_high")]
    assert np.allclose(rise, [ratio, ratio - half, ratio + half], rtol=1e-4)


def test_the_centre_is_the_loss_itself(scope):
    found = landscape(scope, SAMPLES, n_points=3)
    own = scope.losses(SAMPLES).double().numpy()
    assert float(found["centre_loss"]) == float(found["loss"].sel(x=0, y=0)) == own @ np.ones(6) / 6


MODULES = {
    "Linear": lambda: (nn.Linear(5, 3), (2, 5)),
    "Conv1D": lambda: (Conv1D(3, 5), (2, 5)),
    "Conv2d": lambda: (nn.Conv2d(4, 6, 3), (2, 4, 5, 5)),
    "Conv2d in groups": lambda: (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "ConvTranspose2d": lambda: (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    "ConvTranspose2d in groups": lambda: (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "ConvTranspose1d": lambda: (nn.ConvTranspose1d(4, 3, 2), (2, 4, 5)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_filter_is_the_weights_that_one_output_depends_on(kind):
    """By differentiating each output channel, which knows of no layout."""
    module, shape = MODULES[kind]()
    out = module(torch.ones(shape))
    channels = out.movedim(1 if "Conv2d" in kind or "Transpose" in kind else -1, 0)
    scope = ts.Scope(nn.Sequential(module), loss=lambda output, targets: output.flatten(1).sum(1))
    (delta,), weight = plane_of(scope, "filter").delta, module.weight.detach()
    for channel in channels:
        (gradient,) = torch.autograd.grad(channel.sum(), module.weight, retain_graph=True)
        used = gradient != 0
        assert 0 < used.sum() < used.nelement()
        assert torch.isclose(delta[used].norm(), weight[used].norm())
        assert torch.allclose(filter_norms(scope, "0.weight", weight).expand_as(weight)[used], weight[used].norm())


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied", "cnn"])
def test_every_filter_of_a_model_keeps_its_norm(name):
    scope = ts.Scope(build(name))
    plane = plane_of(scope, "filter")
    found = {id(p): (d, e) for p, d, e in zip(plane.parameters, plane.delta, plane.eta)}
    seen = 0
    for module in scope.model.modules():
        for p in module.parameters(recurse=False):
            assert (id(p) in found) == (p.ndim > 1)
            if p.ndim > 1:
                along = p.T if isinstance(module, Conv1D) else p
                for direction in found[id(p)]:
                    turned = direction.T if isinstance(module, Conv1D) else direction
                    assert torch.allclose(turned.flatten(1).norm(dim=1), along.flatten(1).norm(dim=1), rtol=1e-5)
                    seen += 1
    assert seen >= 2 * len(plane.parameters) == 2 * len(found)  # tied weights are met twice, and move once


def test_layers_keep_their_norm_and_filters_of_zero_stay_zero(scope):
    with torch.no_grad():
        scope.model.transformer.h[0].mlp.c_fc.weight[:, 7] = 0
        scope.model.transformer.wte.weight[3] = 0
    for normalize in ("filter", "layer"):
        plane = plane_of(scope, normalize)
        for p, delta in zip(plane.parameters, plane.delta):
            assert torch.isclose(delta.norm(), p.norm(), rtol=1e-4) and delta.isfinite().all()
    names = {id(p): name for name, p in scope.model.named_parameters()}
    deltas = {names[id(p)]: delta for p, delta in zip(plane.parameters, plane_of(scope, "filter").delta)}
    assert not deltas["transformer.h.0.mlp.c_fc.weight"][:, 7].any() and not deltas["transformer.wte.weight"][3].any()


def test_scales_that_change_no_function_change_no_landscape():
    """Of ReLU layers: W₁ times c, W₂ over c."""

    def scaled(c):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        with torch.no_grad():
            model[0].weight *= c
            model[0].bias *= c
            model[2].weight /= c
        return ts.Scope(model)

    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3
    plain, other = (landscape(scaled(c), x, n_points=5) for c in (1.0, 10.0))
    assert np.allclose(plain["loss"], other["loss"], rtol=1e-10) and plain["increase"].max() > 0.1
    plain, other = (landscape(scaled(c), x, n_points=5, normalize="none") for c in (1.0, 10.0))
    assert not np.allclose(plain["loss"], other["loss"], rtol=1e-2)


def test_nothing_depends_on_chunks_or_order(scope):
    whole = landscape(scope, SAMPLES, n_points=5)
    for other in (landscape(scope, SAMPLES, n_points=5, chunk=1), landscape(scope, SAMPLES[[5, 3, 1, 0, 2, 4]], n_points=5)):
        for name in ("loss", "increase", "increase_ci_low", "increase_ci_high"):
            assert np.allclose(whole[name], other[name], rtol=1e-4, atol=1e-5)


def moving(scope, **options):
    """The names of the parameters that are elsewhere while the model runs."""
    before = {name: p.detach().clone() for name, p in scope.model.named_parameters()}
    found = set()

    def look(module, args):
        found.update(name for name, p in module.named_parameters() if not torch.equal(p, before[name]))

    handle = scope.model.register_forward_pre_hook(look)
    try:
        landscape(scope, SAMPLES, n_points=3, **options)
    finally:
        handle.remove()
    return found


def test_frozen_weights_biases_and_those_not_chosen_stay(scope):
    names = {name for name, p in scope.model.named_parameters() if p.ndim > 1}
    assert moving(scope) == moving(scope, normalize="layer") == names
    assert moving(scope, normalize="none") == {name for name, _ in scope.model.named_parameters()}
    assert moving(scope, modules="*.mlp.c_fc") == {name for name in names if "c_fc" in name}
    scope.model.transformer.wte.weight.requires_grad_(False)
    assert moving(scope) == names - {"transformer.wte.weight"}
    sizes = sum(p.nelement() for n, p in scope.model.named_parameters() if n in names and "wte" not in n)
    assert said(landscape(scope, SAMPLES, n_points=3))["n_weights"] == sizes


def test_the_seed_draws_the_directions(scope):
    first = landscape(scope, SAMPLES, n_points=3)
    assert first.equals(landscape(scope, SAMPLES, n_points=3, seed=0))
    other = landscape(scope, SAMPLES, n_points=3, seed=1)
    assert not np.allclose(first["loss"], other["loss"], rtol=1e-3) and said(other)["seed"] == 1
    with ts.options(seed=1):
        assert other.equals(landscape(scope, SAMPLES, n_points=3))
    plane = plane_of(scope, "none")
    assert abs(plane.cosine) < 0.02 and abs(float(plane.delta[0].std()) - 1) < 0.05  # two draws, and not one


def test_a_point_where_one_sample_overflows_is_no_number():
    scope, samples, _, w = quadratic(n=4, dtype=torch.float32)
    scope = ts.Scope(scope.model, loss=lambda w, a: torch.exp(torch.einsum("ni,nij,nj->n", w, a, w)))
    samples.labels[:] *= 0.1
    samples.labels[2] *= 60 / (w @ samples.labels[2] @ w)  # exp(89) is infinite in single precision
    with np.errstate(all="raise"):
        found = landscape(scope, samples, n_points=5, per_sample=True)
    lost = np.isnan(found["loss"].values)
    assert 0 < lost.sum() < 24 and found["n_valid"] == 25 - lost.sum() and np.isnan(found["roughness"])
    for name in ("increase", "increase_ci_low", "increase_ci_high"):
        assert (np.isnan(found[name].values) == lost).all() and not np.isinf(found[name]).any()
    assert np.isnan(found["increase_by_sample"].values[:, lost]).all()
    assert said(found)["notes"] == [
        f"at {lost.sum()} points the loss of a sample is no finite number: they are NaN; a smaller span= stays nearer"
    ]
    assert "partial" not in said(found)


def test_a_centre_that_overflows_is_an_error(scope):
    with torch.no_grad():
        scope.model.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"the loss of sample 'samples-0' is nan: the parameter \S+c_fc.weight holds"):
        landscape(scope, SAMPLES, n_points=3)


def test_a_centre_that_overflows_for_the_last_sample_is_an_error():
    scope, samples, _, _ = quadratic()
    samples.labels[-1] = float("inf")
    for recipe in (landscape, ts.recipes.sam_sharpness):
        with pytest.raises(ValueError, match="the loss of sample 'samples-4' is"):
            recipe(scope, samples, chunk=1)


def test_roughness_is_what_no_quadratic_has():
    from tensorscope_nb.recipes.landscape import roughness

    axis = np.linspace(-2, 2, 25)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    bowl = 3 - x + 2 * y**2 - x * y
    waves = np.sin(20 * x) * np.sin(17 * y)
    assert roughness(bowl, axis) < 1e-12 < 0.9 < roughness(waves, axis) <= 1
    small, large = (roughness(bowl + s * waves, axis) for s in (0.1, 1.0))
    assert 0 < small < large < roughness(waves, axis)
    assert np.isclose(roughness(5 * (bowl + waves) - 7, axis), large)  # scales and shifts change nothing
    assert np.isnan(roughness(np.ones((3, 3)), np.array([-1.0, 0, 1]))) and np.isnan(roughness(np.where(x < 0, np.nan, x), axis))


class _Stop:
    def __init__(self, after):
        self.after = after

    def __call__(self, label, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [9, 13, 24])
def test_an_interrupt_leaves_the_middle(scope, monkeypatch, after):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    whole = landscape(scope, SAMPLES, n_points=5)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(after)):
        landscape(scope, SAMPLES, n_points=5)
    (partial,) = caught.value.results
    done = np.isfinite(partial["loss"].values)
    assert done.sum() == after == partial["n_valid"] == said(partial)["n_points_done"] and done[1:4, 1:4].all()
    for name in ("loss", "increase", "increase_ci_high"):
        assert np.array_equal(partial[name].values[done], whole[name].values[done])
        assert np.isnan(partial[name].values[~done]).all()
    assert said(partial)["partial"] and not said(partial)["notes"] and np.isnan(partial["roughness"])
    assert partial_words(partial) == "partial" and partial_words(whole) == ""


def test_less_than_the_ring_around_the_centre_is_nothing(scope, monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(8)):
        landscape(scope, SAMPLES, n_points=5)
    assert caught.value.results == [None]


def test_eigen_axes_of_a_quadratic_are_those_of_its_matrix():
    scope, samples, a, w = quadratic(convex=False)
    found = landscape(scope, samples, n_points=5, span=0.4, directions="eigen")
    values, vectors = torch.linalg.eigh(a)
    assert np.allclose(found["eigenvalue"], values.flip(0)[:2]) and found["converged"].all()
    slopes = [float(v @ a @ w) for v in (vectors[:, -1], vectors[:, -2])]
    x, y = np.meshgrid(found["x"], found["y"], indexing="ij")
    curved = (float(values[-1]) * x**2 + float(values[-2]) * y**2) / 2
    signs = [(s, t) for s in (1, -1) for t in (1, -1)]  # an eigenvector has none
    assert any(np.allclose(found["increase"], s * slopes[0] * x + t * slopes[1] * y + curved, atol=1e-6) for s, t in signs)
    assert np.allclose([found["norm_x"], found["norm_y"]], 1) and abs(found["cos_angle"]) < 1e-8
    assert found["x"].attrs["units"] == "units of weight"


def test_near_the_centre_eigen_axes_show_the_gradient_and_half_the_eigenvalues():
    scope, samples = perceptron()
    found = landscape(scope, samples, n_points=3, span=1e-3, directions="eigen")
    hessian = ts.recipes.hessian_eigenvalues(scope, samples, k=2, vectors=True)
    assert np.allclose(found["eigenvalue"], hessian["eigenvalue"]) and (found["residual"] <= 1e-4 * found["eigenvalue"][0]).all()
    g = torch.cat([part.flatten() for part in Objective(scope, samples).gradient([slice(0, 30)])]).numpy()
    x, y = np.meshgrid(found["x"], found["y"], indexing="ij")
    slopes = [float(g @ row) for row in hessian["eigenvector"].values]
    curved = (found["eigenvalue"][0].item() * x**2 + found["eigenvalue"][1].item() * y**2) / 2
    expected = slopes[0] * x + slopes[1] * y + curved
    assert np.allclose(found["increase"], expected, atol=2e-3 * curved.max())
    both = (found["increase"].values + found["increase"].values[::-1, ::-1]) / 2  # what is even: no gradient
    assert np.allclose(both, curved, atol=2e-3 * curved.max())


def test_an_interrupt_before_the_axes_are_found_leaves_nothing(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    scope, samples = perceptron()
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(2)):
        landscape(scope, samples, n_points=5, directions="eigen")
    assert caught.value.results == [None]

    class InTheGrid(_Stop):
        def __call__(self, label, done, total):
            if label == "points of the landscape":
                super().__call__(label, done, total)

    with pytest.raises(KeyboardInterrupt) as caught, listened(InTheGrid(10)):
        landscape(scope, samples, n_points=5, directions="eigen")
    (partial,) = caught.value.results
    assert said(partial)["n_points_done"] == 10 and said(partial)["partial"] and partial["converged"].all()


def test_nothing_is_shown_before_the_axes_are_found():
    scope, samples = perceptron()
    shown = []
    run_together(scope, [(landscape, (samples,), {"n_points": 3, "directions": "eigen"})], so_far=shown.append)
    assert not any(shown)


def test_what_has_not_converged_says_so(monkeypatch):
    from tensorscope_nb.recipes import search

    monkeypatch.setattr(search.Search, "most", property(lambda self: 3, lambda self, value: None), raising=False)
    scope, samples = perceptron()
    found = landscape(scope, samples, n_points=3, directions="eigen")
    assert not found["converged"].all()
    assert said(found)["notes"] == ["the eigenvectors have not converged in 3 products: see their residuals"]


def test_a_piecewise_linear_model_says_so_along_eigen_axes_only():
    scope, samples = perceptron(torch.nn.ReLU)
    assert "piecewise linear" in said(landscape(scope, samples, n_points=3, directions="eigen"))["notes"][0]
    assert not said(landscape(scope, samples, n_points=3))["notes"]


def test_the_loss_has_its_unit_and_a_view(scope):
    found = landscape(scope, SAMPLES, n_points=3)
    assert found["loss"].attrs["units"] == found["increase"].attrs["units"] == "nats per token"
    assert type(ts.view(found)).__name__ == "Landscape"
    scope, samples, _, _ = quadratic()
    assert landscape(scope, samples, n_points=3)["loss"].attrs["units"] == "loss"
    scope, samples = perceptron()
    assert landscape(scope, samples, n_points=3)["loss"].attrs["units"] == "nats"


def test_it_can_be_looked_at_while_it_grows(scope):
    seen = []
    (whole,) = run_together(
        scope, [(landscape, (SAMPLES,), {"n_points": 5})], so_far=lambda made: seen.extend(m() for m in made.values())
    )
    assert [said(each)["n_points_done"] for each in seen] == list(range(9, 26))
    for each in seen:
        done = np.isfinite(each["loss"].values)
        assert np.array_equal(each["loss"].values[done], whole["loss"].values[done])
        assert said(each).get("partial", False) and each["norm_x"] == whole["norm_x"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_points": 4}, ValueError, "n_points is 4: give an odd whole number from 3 on, so that the centre is on the grid"),
        ({"n_points": 1}, ValueError, "n_points is 1"),
        ({"n_points": 5.0}, ValueError, "n_points is 5.0"),
        ({"span": 0}, ValueError, "span is 0: give how far the grid reaches"),
        ({"span": float("nan")}, ValueError, "span is nan"),
        ({"normalize": "global"}, ValueError, "normalize is 'global': choose among filter, layer, none"),
        ({"directions": "pca"}, ValueError, "directions is 'pca': choose 'random' or 'eigen'"),
        ({"directions": "eigen", "normalize": "filter"}, ValueError, "normalize is 'filter': eigenvectors are as long as 1"),
        ({"chunk": 0}, ValueError, "chunk is 0: a pass needs at least 1 sample"),
        ({"reduction": "max"}, ValueError, "reduction is 'max'"),
        ({"modules": "*ln_1"}, LookupError, "leaves biases and norms where they are"),
        ({"modules": "h.9"}, LookupError, "no module or parameter 'h.9': did you mean transformer.h.1"),
    ],
)
def test_bad_options_are_one_clear_line(scope, options, error, says):
    with pytest.raises(error, match=says) as caught:
        landscape(scope, SAMPLES, **{"n_points": 3} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(scope, dtype):
    scope.model.to(dtype)
    with pytest.raises(ts.UnsupportedModel, match="lost in rounding; load the model with"):
        landscape(scope, SAMPLES, n_points=3)


def test_one_sample_has_no_interval(scope):
    found = landscape(scope, SAMPLES[:1], n_points=3)
    assert np.isfinite(found["increase"]).all() and np.isnan(found["increase_ci_low"]).all()


def test_a_loss_that_depends_on_the_other_samples_is_refused():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x - x.mean(0))

    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    with pytest.raises(ts.UnsupportedModel, match="changes with the samples beside it"):
        landscape(ts.Scope(Mixing()), rows, n_points=3)
    with pytest.raises(ts.UnsupportedModel, match="changes with the samples beside it"):
        ts.recipes.sam_sharpness(ts.Scope(Mixing()), rows)


def test_directions_are_the_same_in_both_precisions(scope):
    single = random_plane(scope, dict(scope.model.named_parameters()), "filter", 0)
    double = ts.Scope(copy.deepcopy(scope.model).double())
    wide = random_plane(double, dict(double.model.named_parameters()), "filter", 0)
    for a, b in zip([*single.delta, *single.eta], [*wide.delta, *wide.eta], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-7)
