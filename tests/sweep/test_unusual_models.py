"""Models in which a weight, a call or a mode is not where one would look for it: the numbers are right, or it is said."""

import os
import signal
import types

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2
from torch import nn
from torch.nn.functional import linear

import tensorscope_nb as ts
from tensorscope_nb.recipes.recipe import run_together

IDS = torch.randint(1, 50, (6, 10), generator=torch.Generator().manual_seed(1))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def rows(n=6, d=5, seed=1):
    return ts.Samples.tensors(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 3)


def masses(scope, samples, **options):
    found = ts.recipes.fisher_importance(scope, samples, **options)
    return {name: float(value.double().sum()) for name, value in found.items()}


def right(scope, samples, **options):
    found = masses(scope, samples, **options)
    g = scope.per_sample_gradients(samples)
    for name, value in found.items():
        truth = float((g[name].double() ** 2).sum()) / len(samples)
        assert np.isclose(value, truth, rtol=1e-4, atol=1e-12), (name, value, truth)
    return found


def test_inputs_that_are_made_to_require_gradients():
    """As adapters do with a frozen embedding."""
    model = random_gpt2()
    model.enable_input_require_grads()
    scope = ts.Scope(model)
    for modules in (None, "transformer.h.*"):
        assert min(right(scope, ts.Samples.tokens(IDS), modules=modules).values()) >= 0
    model.transformer.wte.weight.requires_grad_(False)
    assert sum(right(scope, ts.Samples.tokens(IDS)).values()) > 0


class Flattened(nn.Module):
    """Its first layer sees rows that are no samples."""

    def __init__(self):
        super().__init__()
        self.e, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.e(x.reshape(-1, 5)).reshape(len(x), -1, 6)
        return self.c(self.b(h).tanh().mean(1))


def test_a_first_layer_that_sees_flattened_rows():
    scope = ts.Scope(seeded(Flattened))
    samples = ts.Samples.tensors(torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3)
    for modules in (["b", "c"], None, None):
        assert min(right(scope, samples, modules=modules).values()) > 0
    assert ts.recipes.fisher_importance(scope, samples).metadata["by_reference"] == ["e.bias", "e.weight"]


class Adapted(nn.Module):
    """A low-rank adapter that is written as a function of its weights."""

    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.a, self.b = nn.Linear(5, 2, bias=False), nn.Linear(2, 6, bias=False)

    def forward(self, x):
        return self.head(torch.tanh(linear(x, self.w.weight + self.b.weight @ self.a.weight)))


def test_weights_that_are_used_as_functions():
    model = seeded(Adapted)
    model.b.weight.data.zero_()
    scope = ts.Scope(model)
    right(scope, rows())  # at the start the first of the two has no gradient, whatever the rule
    model.b.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    assert right(scope, rows())["a.weight"] > 0


class Seldom(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.a, self.x, self.out = nn.Linear(5, 6), nn.Linear(5, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.a(x) + self.scale * linear(x, self.x.weight) * (x[:, :1] > 0))


@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_a_weight_that_few_samples_use_or_hardly_feel(scale):
    samples = rows()
    samples.inputs["x"][:, 0] = torch.tensor([-1.0, -1, 1, 1, 1, 1])  # the sample that is run alone does not use it
    assert right(ts.Scope(seeded(lambda: Seldom(scale))), samples)["x.weight"] > 0


class Experts(nn.Module):
    """Each row goes to one of two experts, as its first feature says."""

    def __init__(self):
        super().__init__()
        self.common, self.experts, self.out = nn.Linear(5, 6), nn.ModuleList([nn.Linear(5, 6), nn.Linear(5, 6)]), nn.Linear(6, 3)

    def forward(self, x):
        flat = x.reshape(-1, 5)
        h = self.common(flat)
        for i, expert in enumerate(self.experts):
            chosen = ((flat[:, 0] > 0) == bool(i)).nonzero()[:, 0]
            if len(chosen):
                h = h.index_add(0, chosen, expert(flat[chosen]))
        return self.out(h.reshape(len(x), -1, 6).mean(1))


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
@pytest.mark.parametrize("modules", [None, ["experts.1", "out"]])
def test_experts_that_are_first_used_in_a_later_chunk(chunk, modules):
    x = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(2))
    x[:, :, 0] = -1
    x[2, :, 0] = 1  # two rows of one sample: as many as a chunk of two has samples
    scope = ts.Scope(seeded(Experts))
    assert min(right(scope, ts.Samples.tensors(x, torch.arange(6) % 3), chunk=chunk, modules=modules).values()) > 0


def test_a_model_that_changes_between_two_sweeps():
    scope = ts.Scope(build("mlp"))
    samples = ts.Samples.tensors(torch.rand(6, 10, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 3)
    right(scope, samples)
    first = next(m for m in scope.model.modules() if isinstance(m, nn.Linear))
    first.forward = types.MethodType(lambda self, x: 2 * linear(x, self.weight, self.bias), first)
    right(scope, samples)
    del first.forward
    handle = first.register_forward_hook(lambda module, args, output: 3 * output)
    right(scope, samples)
    handle.remove()


def test_gradients_far_below_the_range_of_their_squares():
    layers = [layer for _ in range(26) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    model = seeded(lambda: nn.Sequential(*layers, nn.Linear(8, 3)))
    samples = ts.Samples.tensors(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3)
    scope = ts.Scope(model)
    g = {n: v.double() for n, v in scope.per_sample_gradients(samples).items()}
    truth = float((g["0.weight"] ** 2).sum() + (g["0.bias"] ** 2).sum()) / 6
    assert 0 < truth < 1e-38
    study = ts.Study(scope, samples).run(ts.recipes.grouped_fisher, ts.recipes.fisher_importance, ts.recipes.gradient_health)
    for found in (study["grouped_fisher"]["importance"], ts.recipes.grouped_fisher(scope, samples)["importance"]):
        assert np.isclose(found.sel(module="0").item(), truth, rtol=1e-3, atol=0)
    mean = sum(float((v.mean(0) ** 2).sum()) for n, v in g.items() if n.startswith("0."))
    assert np.isclose(study["gradient_health"]["grad_norm"].sel(module="0").item(), mean**0.5, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv1d, (2, 12)), (nn.Conv2d, (2, 6, 6)), (nn.Conv3d, (2, 4, 4, 4))])
def test_the_units_of_any_convolution_are_its_channels(conv, shape):
    model = seeded(lambda: nn.Sequential(conv(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)))
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(1))
    model(x)
    model[0].bias.data += 1
    model[0].weight.data[1], model[0].bias.data[1] = 0, -1
    health = ts.recipes.gradient_health(ts.Scope(model), ts.Samples.tensors(x, torch.arange(6) % 3))
    assert health["n_neurons"][0] == 4 and health["dead"].isel(layer=0).values[:4].tolist() == [0, 1, 0, 0]


class Merging(nn.Linear):
    """An adapter that merges its weights when it is told to evaluate."""

    merged = False

    def train(self, mode=True):
        if not mode and not self.merged:
            self.weight.data += 1
            self.merged = True
        return super().train(mode)


def test_a_layer_that_does_more_than_set_its_mode():
    model = nn.Sequential(Merging(5, 3))
    before = model[0].weight.detach().clone()
    scope = ts.Scope(model)
    model.train()
    right(scope, rows())
    assert torch.equal(model[0].weight, before) and model.training and not model[0].merged


def test_any_owner_of_a_tied_weight_chooses_it():
    scope = ts.Scope(random_gpt2())
    assert list(masses(scope, ts.Samples.tokens(IDS), modules="lm_head")) == ["transformer.wte.weight"]


def test_models_that_pad_to_the_longest_of_a_chunk():
    class Trimming(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            longest = int((x != 0).any(-1).sum(1).max())
            return self.b(self.e(x[:, :longest]).tanh().sum(1))

    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1))
    x[:2, 2:] = 0
    scope = ts.Scope(seeded(Trimming), loss=lambda out, y: out.square().sum(1))
    with pytest.raises(ts.UnsupportedModel, match="changes with the samples beside it"):  # as it does: tanh(bias) of more places
        masses(scope, (x, torch.zeros(6)))
    scope.model.e.bias = None
    right(scope, ts.Samples.tensors(x, torch.zeros(6)))
    a, b = (ts.recipes.fisher_spectrum(scope, (x, torch.zeros(6)), chunk=c)["eigenvalue"] for c in (2, 6))
    assert np.allclose(a, b, rtol=1e-4, atol=1e-6 * float(b[0]))


def test_norms_over_several_axes_and_single_rows():
    model = nn.Sequential(nn.Unflatten(1, (1, 5)), nn.RMSNorm((1, 5)), nn.Flatten(), nn.Linear(5, 3))
    right(ts.Scope(model), rows())

    class Query(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.out = nn.Linear(4, 6), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(x) * self.query(torch.ones(4)).sum()

    right(ts.Scope(seeded(Query)), rows())


def test_inference_mode_is_said():
    with torch.inference_mode(), pytest.raises(ValueError, match=r"inside torch\.inference_mode\(\): leave that mode first"):
        masses(ts.Scope(build("mlp")), rows(d=10))


@pytest.fixture
def ctrl_c():
    """As it is in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("nth", range(1, 12))
def test_ctrl_c_in_any_forward_leaves_sums_of_what_is_counted(nth, ctrl_c):
    """Also in the one that follows when an expert turns out not to be used row by row."""
    x = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(2))
    x[:, :, 0] = -1
    x[3, 0, 0] = 1
    samples = ts.Samples.tensors(x, torch.arange(6) % 3)
    scope, calls = ts.Scope(seeded(Experts)), []

    def interrupt(module, args, output):
        calls.append(1)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGINT)

    handle = scope.model.out.register_forward_hook(interrupt)
    recipe = ts.recipes.fisher_importance.using(chunk=2, progress=False)
    try:
        (found,) = run_together(scope, [(recipe, (samples,), {})])
        assert len(calls) < nth
    except KeyboardInterrupt as stopped:
        (found,) = stopped.results
    handle.remove()
    if found is not None:
        n = found.metadata["n_used"]
        g = scope.per_sample_gradients(samples[:n])
        for name, value in found.items():
            assert torch.allclose(value, (g[name] ** 2).sum(0) / n, rtol=1e-3, atol=1e-8), (nth, n, name)
