"""Inner products of all pairs, whatever the memory allows, and what an interrupt leaves."""

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.sweep import gradients as engine
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.pairs import passes
from tensorscope_nb.sweep.progress import listened
from tensorscope_nb.sweep.reducers import Gram, Sums

IDS = torch.randint(1, 50, (9, 12), generator=torch.Generator().manual_seed(1))
SAMPLES = ts.Samples.tokens(IDS)


def dense(scope, samples=SAMPLES):
    found = scope.per_sample_gradients(samples)
    flat = torch.cat([g.flatten(1) for g in found.values()], 1).double()
    return flat @ flat.T


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert classifier"])
@pytest.mark.parametrize("room", [2.1, 4.5, 7, 100])
def test_pieces_give_all_pairs(family, room, monkeypatch):
    scope = ts.Scope(build(family))
    samples = ts.Samples.tokens(IDS, labels=torch.arange(9) % 4) if family == "bert classifier" else SAMPLES
    each = gradient_sweep(scope, samples, [Gram()], chunk=4).each
    runs = []
    original = engine.capture
    monkeypatch.setattr(engine, "capture", lambda *a, **k: runs.append(len(a[1])) or original(*a, **k))
    gram = Gram()
    with ts.options(memory=int(each * room)):
        expected = passes(each, 9)
        gradient_sweep(scope, samples, [gram], chunk=2)
    k = dense(scope, samples)
    scale = (k.diag()[:, None] * k.diag()[None]).sqrt()
    assert ((sum(gram.values.values()) - k).abs() / scale).max() < 1e-5
    assert (sum(runs) == 9) == (room == 100)
    assert abs(sum(runs) / 9 - expected) <= 0.5


@pytest.fixture(autouse=True)
def all_is_heard(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)


class _Stop:
    """Raises an interrupt when so many samples are done."""

    def __init__(self, after):
        self.after = after

    def __call__(self, label, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("room", "after", "paired"),
    [(100, 4, 4), (4.5, 4, 0), (4.5, 12, 2), (4.5, 20, 4)],
    ids=["all is held", "before the pairs", "in the second piece", "in the third"],
)
def test_an_interrupt_leaves_what_is_whole(room, after, paired):
    """Sums are of the samples that were gone through, products of those whose pairs are all known; each says of how many."""
    scope = ts.Scope(random_gpt2())
    each = gradient_sweep(scope, SAMPLES, [Gram()], chunk=4).each
    gram, sums = Gram(), Sums()
    with ts.options(memory=int(each * room)), listened(_Stop(after)):
        covered = gradient_sweep(scope, SAMPLES, [gram, sums], chunk=2)
    done = min(after, 9)
    assert covered.interrupted and len(covered.samples) == done and covered.divisor == done
    assert covered.n_paired == paired
    k = dense(scope)[:paired, :paired]
    if paired:
        assert torch.allclose(sum(gram.values.values())[:paired, :paired], k, rtol=1e-4, atol=1e-6)
    expected = scope.per_sample_gradients(SAMPLES[:done])
    assert all(torch.allclose(sums.totals[n], g.sum(0), atol=1e-5) for n, g in expected.items())


def test_recipes_of_one_sweep_say_each_of_how_many_samples_it_is():
    scope = ts.Scope(random_gpt2())
    each = gradient_sweep(scope, SAMPLES, [Gram()], chunk=4).each
    health, spectrum = (r.using(chunk=2) for r in (ts.recipes.gradient_health, ts.recipes.fisher_spectrum))
    with ts.options(memory=int(each * 4.5)), pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(12)):
        run_together(scope, [(health, (SAMPLES,), {}), (spectrum, (SAMPLES,), {})])
    found_health, found_spectrum = caught.value.results
    assert np.allclose(found_health["grad_norm"], health(scope, SAMPLES)["grad_norm"], rtol=1e-4)
    two = spectrum(scope, SAMPLES[:2])
    assert np.allclose(found_spectrum["eigenvalue"], two["eigenvalue"], rtol=1e-4)


def test_an_interrupt_of_sums_alone():
    scope, sums = ts.Scope(random_gpt2()), Sums()
    with listened(_Stop(4)):
        covered = gradient_sweep(scope, SAMPLES, [sums], chunk=2)
    assert len(covered.samples) == 4
    expected = scope.per_sample_gradients(SAMPLES[:4])
    assert all(torch.allclose(sums.totals[n], g.sum(0), atol=1e-5) for n, g in expected.items())
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(9)):  # all is done, and the interrupt is not lost
        ts.recipes.gradient_health(scope, SAMPLES, chunk=3)
    assert caught.value.results[0].equals(ts.recipes.gradient_health(scope, SAMPLES, chunk=3))


def test_an_interrupted_recipe_carries_what_it_has():
    scope = ts.Scope(random_gpt2())
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(4)):
        ts.recipes.grouped_fisher(scope, SAMPLES, chunk=2, per_sample=True)
    (partial,) = caught.value.results
    alone = ts.recipes.grouped_fisher(scope, SAMPLES[:4], per_sample=True)
    assert np.allclose(partial["importance"], alone["importance"], rtol=1e-5)
    assert partial["sample"].values.tolist() == list(SAMPLES.ids[:4])


def test_weights_that_need_a_backward_per_sample_are_cut_to_the_memory():
    class Raw(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 4))

        def forward(self, x):
            return torch.tanh(x @ self.weight.T)

    scope = ts.Scope(Raw())
    samples = ts.Samples.tensors(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
    whole = ts.recipes.fisher_importance(scope, samples)
    with ts.options(memory=100):  # two samples of 48 bytes
        assert torch.allclose(ts.recipes.fisher_importance(scope, samples)["weight"], whole["weight"])
    with ts.options(memory=40), pytest.raises(ValueError, match=r"the gradients of one sample take .* GiB"):
        ts.recipes.fisher_importance(scope, samples)
