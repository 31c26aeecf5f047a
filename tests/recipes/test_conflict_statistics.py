"""What the tests of conflict find and leave alone, through the recipes: planted pairs by their ids, and no conflict in none."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from simulated_gradients import means, noise, slack

import tensorscope_nb as ts
from tensorscope_nb.numerics.crossed import mean_test
from tensorscope_nb.recipes.head_pairs import HeadPairs
from tensorscope_nb.recipes.tasks import TwoTasks
from tensorscope_nb.sweep.paired import Part, Place


class Layers(torch.nn.Module):
    """ℓ = Σ over layers of ⟨w, x⟩: the gradient of a layer is its part of the input, whatever we say that to be."""

    def __init__(self, n, d):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(d, 1, bias=False) for _ in range(n))

    def forward(self, x):
        return torch.cat([layer(x[:, i]) for i, layer in enumerate(self.layers)], 1)


def total(output, _):
    return output.sum(1)


def samples(g, task):
    """Samples whose gradients are the given ones (samples, layers, weights)."""
    return ts.Samples.tensors(
        torch.tensor(g, dtype=torch.float32), torch.zeros(len(g)), task=task, ids=[f"{task}:{i}" for i in range(len(g))]
    )


def recipe_of(name, one, other, **options):
    scope = ts.Scope(Layers(one.shape[1], one.shape[2]), loss=total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples
        return getattr(ts.recipes, name)(scope, samples(one, "a"), samples(other, "b"), progress=False, **options)


def test_a_planted_pair_is_found_by_its_ids_among_1024():
    rng = np.random.default_rng(0)
    one, other = noise(rng, (2, 32, 1, 1000))
    x = one[5, 0] / np.linalg.norm(one[5, 0])
    y = other[20, 0] - (other[20, 0] @ x) * x
    other[20, 0] = -0.6 * x + 0.8 * y / np.linalg.norm(y)
    found = recipe_of("sample_conflicts", one, other)
    i, j = np.nonzero(found["significant"].values)
    assert list(zip(found["sample_a"].values[i], found["sample_b"].values[j], strict=True)) == [("a:5", "b:20")]
    assert (found["index_a"].values[i], found["index_b"].values[j]) == (5, 32 + 20)
    pair = found.sel(sample_a="a:5", sample_b="b:20")
    assert float(pair["cosine"]) == pytest.approx(-0.6, abs=1e-3) and float(pair["q_value"]) < 1e-3
    assert float(pair["effect_size"]) > 10


@cache
def duplicates():
    """A small network; four samples of a that stand in b with the other label."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(40, 24), torch.nn.Tanh(), torch.nn.Linear(24, 2)).eval()
        x, y = torch.randn(64, 40), torch.randint(0, 2, (64,))
    flipped = {3: 7, 11: 0, 20: 31, 30: 16}
    for i, j in flipped.items():
        x[32 + j], y[32 + j] = x[i], 1 - y[i]
    scope = ts.Scope(model)
    a, b = (ts.Samples.tensors(x[at], y[at], task=name) for name, at in (("a", slice(0, 32)), ("b", slice(32, 64))))
    return scope, a, b, flipped


def test_duplicates_with_the_other_label_are_found():
    scope, a, b, flipped = duplicates()
    found = ts.recipes.sample_conflicts(scope, a, b, progress=False)
    order = np.argsort(found["cosine"].values, axis=None)[: len(flipped)]
    lowest = {tuple(map(int, np.unravel_index(at, (32, 32)))) for at in order}
    assert lowest == set(flipped.items())
    cosine = found["cosine"].values
    for i, j in flipped.items():
        assert cosine[i, j] == pytest.approx(-1, abs=1e-4), "opposed: p − 1 against p at the same input"
        assert found["p_value"].values[i, j] == found["p_value"].values.min()
        assert (int(found["index_a"][i]), int(found["index_b"][j])) == (i, 32 + j)


def test_duplicates_with_the_other_label_in_one_set():
    scope, a, b, flipped = duplicates()
    found = ts.recipes.sample_conflicts(scope, a + b, progress=False)
    cosine = np.where(np.triu(np.ones((64, 64)), 1) > 0, found["cosine"].values, np.inf)
    lowest = {tuple(map(int, np.unravel_index(at, (64, 64)))) for at in np.argsort(cosine, axis=None)[: len(flipped)]}
    assert lowest == {(i, 32 + j) for i, j in flipped.items()}
    for name in ("p_value", "q_value", "significant"):
        assert np.array_equal(found[name].values, found[name].values.T, equal_nan=True), name
    assert np.isnan(np.diagonal(found["p_value"].values)).all() and not np.diagonal(found["significant"].values).any()


def test_tasks_of_one_law_have_nothing_significant():
    """Twelve draws of two tasks of one law with a common mean, three layers: not one conflict."""
    rng, one_mean = np.random.default_rng(1), means(200, 0.3, 0)[0]
    for _ in range(12):
        one, other = (noise(rng, (16, 3, 200)) + one_mean for _ in range(2))
        assert not recipe_of("gradient_alignment", one, other)["significant"].any()
        pairs = recipe_of("sample_conflicts", one, other, alpha=0.05)
        assert not pairs["significant"].any() and pairs["task_q_value_a"].min() > 0.05
        assert not (recipe_of("gradient_conflict", one, other)["ci_high"] < 0).any()


def test_orthogonal_tasks_are_no_conflict_of_their_samples():
    """Each task has a mean of its own: pairs within a task are closer than pairs across, and that is no conflict."""
    rng = np.random.default_rng(8)
    one, other = noise(rng, (2, 24, 1, 100))
    one[:, :, 0], other[:, :, 1] = one[:, :, 0] + 8, other[:, :, 1] + 8
    found = recipe_of("sample_conflicts", one, other)
    assert (found["p_value"] <= 0.05).mean() <= 0.1 and not found["significant"].any()
    assert not recipe_of("gradient_alignment", one, other)["significant"].any()


def test_no_significant_conflict_has_a_positive_cosine():
    """Whatever the tasks: a positive cosine, of a pair or of a layer, is never called a conflict; at most by chance below 0."""
    rng, one, other = np.random.default_rng(2), means(60, 0.5, 0.3), means(60, 0.5, 0)
    false = seen = 0
    for at in range(60):
        mu, nu = (one, other)[at % 2]
        a, b = noise(rng, (16, 2, 60), "heavy norms") + mu, noise(rng, (16, 2, 60)) + nu
        layers = recipe_of("gradient_alignment", a, b)
        assert not (layers["significant"] & ~(layers["cosine"] < 0)).any()
        modules = recipe_of("gradient_conflict", a, b)
        assert (modules["ci_high"] < 0).sum() == ((modules["ci_high"] < 0) & (modules["cosine_corrected"] < 0)).sum()
        pairs = recipe_of("sample_conflicts", a, b, alpha=0.2)
        assert not (pairs["significant"] & ~(pairs["cosine"] < 0)).any()
        false, seen = false + int((modules["ci_high"] < 0).sum()), seen + modules.sizes["module"]
    assert false / seen <= 0.025 + slack(0.025, seen)


def test_a_conflict_planted_in_one_layer_is_found_there():
    rng, (mu, nu) = np.random.default_rng(3), means(200, 0.3, -0.7)
    one, other = noise(rng, (2, 24, 4, 200))
    one[:, 2] += mu
    other[:, 2] += nu
    layers = recipe_of("gradient_alignment", one, other)
    assert list(np.flatnonzero(layers["significant"].values)) == [2]
    modules = recipe_of("gradient_conflict", one, other)
    assert float(modules["ci_low"][2]) < -0.7 < float(modules["ci_high"][2]) < 0


def whitened(one, other, ridge):
    """The scores of qkov_interference for gradients that we say, by its own reducer."""
    n, m = len(one), len(other)
    every = np.arange(n + m)
    two = TwoTasks(ts.Samples.tensors(torch.zeros(n + m, 1), torch.zeros(n + m)), every[:n], every[n:], every)
    part = Part(("Q", 0, 0), 0, 0, one.shape[1])
    g = torch.tensor(np.concatenate([one, other]), dtype=torch.float32)
    pairs = HeadPairs(two, {"w": [part]}, "signed", 0.0, ridge)
    pairs.begin(n + m)
    pairs.totals["w"] = torch.stack([(g[rows] ** 2).sum(0)[:, None] for rows in two.halves])
    pairs.seen = n + m

    class W:
        name = "w"

    pairs.take(W(), part, Place(slice(0, one.shape[1]), slice(0, 1)), g, g, 0, 0)
    return pairs.values[part.key].numpy()


def balanced(d, size):
    """Two means that are alike in one half of the weights and opposed in the other, so that their product is 0 in any Fisher
    that is alike in both."""
    one = size * np.repeat(np.abs(np.random.default_rng(5).standard_normal(d // 2)), 2)
    return one, one * np.tile([1, -1], d // 2)


@pytest.mark.parametrize("ridge", [1e-8, "relative"])
@pytest.mark.parametrize("n, m", [(8, 8), (10, 32), (16, 16)])
@pytest.mark.parametrize("kind", ["many directions", "heavy norms", "t3"])
def test_size_of_interference_on_its_own_scores(kind, n, m, ridge):
    rng, times = np.random.default_rng(6), 250
    for size in (0, 0.3):
        mu, nu = balanced(60, size)
        tables = [
            whitened(0.01 * (noise(rng, (n, 60), kind) + mu), 0.01 * (noise(rng, (m, 60), kind) + nu), ridge)
            for _ in range(times)
        ]
        p = mean_test(np.stack(tables)).above
        assert (p <= 0.05).mean() <= 0.05 + slack(0.05, times) and (p <= 0.01).mean() <= 0.01 + slack(0.01, times)


def test_interference_is_found_where_it_is_planted():
    rng, (mu, nu) = np.random.default_rng(7), means(60, 0.4, -0.7)
    tables = [whitened(noise(rng, (16, 60)) + mu, noise(rng, (16, 60)) + nu, 1e-8) for _ in range(60)]
    assert (mean_test(np.stack(tables)).above <= 0.01).mean() > 0.95
    synergy = [whitened(noise(rng, (16, 60)) + mu, noise(rng, (16, 60)) - nu, 1e-8) for _ in range(60)]
    assert (mean_test(np.stack(synergy)).above <= 0.05).mean() == 0
