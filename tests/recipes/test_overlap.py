"""Fisher overlap: between what one task has with itself and chance, against the matrix formula."""

import numpy as np
import pytest
import torch
from model_zoo import build
from scipy.linalg import sqrtm
from two_tasks import dense, known_gradients, texts

import tensorscope_nb as ts
from tensorscope_nb.numerics.overlap import bhattacharyya, bhattacharyya_by_chance, largest, shared, shared_by_chance

rng = np.random.default_rng(0)


def test_it_is_the_trace_formula_of_elastic_weight_consolidation():
    """1 − ½ tr(F + F' − 2 (F F')^½) of diagonal Fishers with unit trace."""
    f, g = (x / x.sum() for x in rng.exponential(size=(2, 6)))
    matrix = 1 - 0.5 * np.trace(np.diag(f) + np.diag(g) - 2 * np.real(sqrtm(np.diag(f) @ np.diag(g))))
    f, g = (torch.tensor(x).sqrt() for x in (f, g))
    assert np.isclose(bhattacharyya([f[:2], f[2:]], [g[:2], g[2:]]), matrix)


@pytest.mark.parametrize("name", ["gpt2", "llama tied"])
def test_it_is_that_of_the_dense_squares(name):
    scope, one, other = texts(name, 6, 5)
    a, b = dense(scope, one), dense(scope, other)
    found = ts.recipes.fisher_overlap(scope, one, other)

    def overlap(rows_a, rows_b, part=""):
        x, y = (np.concatenate([(g[n][rows] ** 2).mean(0) for n in g if part in n]) for g, rows in ((a, rows_a), (b, rows_b)))
        return np.sqrt(x * y).sum() / np.sqrt(x.sum() * y.sum())

    every = slice(None)
    layers = "transformer.h.{}." if name == "gpt2" else "model.layers.{}."
    assert np.isclose(found["total"], overlap(every, every))
    assert np.allclose(found["overlap"], [overlap(every, every, layers.format(i)) for i in (0, 1)])
    halves = [overlap(slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
    assert np.isclose(found["total_of_halves"], np.mean(halves)) and np.isclose(found["total_of_halves_low"], min(halves))
    b = a
    one_task = overlap(slice(0, None, 2), slice(1, None, 2))
    assert np.isclose(found["total_ceiling_low"], one_task) or np.isclose(found["total_ceiling_high"], one_task)


def test_one_with_itself_and_with_something_disjoint():
    scope, one, _ = texts()
    importance = ts.recipes.fisher_importance(scope, one)
    doubled = {name: 2 * value for name, value in importance.items()}
    assert float(ts.recipes.fisher_overlap(scope, importance, doubled)["total"]) == pytest.approx(1)
    half = {name: torch.arange(v.nelement()).reshape(v.shape) % 2 == 0 for name, v in importance.items()}
    apart = {name: v * half[name] for name, v in importance.items()}, {name: v * ~half[name] for name, v in importance.items()}
    assert float(ts.recipes.fisher_overlap(scope, *apart)["total"]) == 0
    masks = ts.recipes.fisher_overlap(scope, half, {name: ~value for name, value in half.items()})
    assert float(masks["total"]) == 0 and float(masks["jaccard"]) == 0
    same = ts.recipes.fisher_overlap(scope, half, half)
    assert float(same["total"]) == 1 and float(same["jaccard"]) == 1


def test_importances_may_be_arrays_and_batches_are_samples():
    scope, one, other = texts("gpt2", 6, 5)
    one, other = ts.recipes.fisher_importance(scope, one), ts.recipes.fisher_importance(scope, other)
    arrays = ({name: value.numpy() for name, value in x.items()} for x in (one, other))
    assert ts.recipes.fisher_overlap(scope, one, other).equals(ts.recipes.fisher_overlap(scope, *arrays))
    few = ts.recipes.fisher_overlap(scope, one, other, method="mask", top_fraction=0.005)
    assert few["total"].attrs["long_name"].startswith("overlap of the top 0.5% of weights")
    x = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [{"pixel_values": x[rows], "labels": torch.arange(5)} for rows in (slice(5), slice(5, 10))]
    vision = ts.Scope(build("vit"))
    tasks = [vision.samples(dict(batch), task=task) for batch, task in zip(batches, "ab")]
    assert float(ts.recipes.fisher_overlap(vision, *batches)["total"]) == float(
        ts.recipes.fisher_overlap(vision, *tasks)["total"]
    )


def test_identical_masks_overlap_fully_however_sparse():
    """Dividing by all weights instead of by the chosen ones gives .1 here."""
    scope, one, _ = texts()
    importance = ts.recipes.fisher_importance(scope, one)
    assert float(ts.recipes.fisher_overlap(scope, importance, importance, method="mask", top_fraction=0.1)["total"]) == 1


def test_it_is_symmetric_and_does_not_know_the_scale_of_the_loss():
    g_a, g_b = rng.normal(0.3, 1, (8, 10)), rng.normal(-0.2, 2, (8, 10))
    plain, scaled = (ts.recipes.fisher_overlap(*known_gradients(g_a, g_b, scale=c)) for c in (1.0, 5.0))
    turned = ts.recipes.fisher_overlap(*known_gradients(g_b, g_a))
    for name in plain.data_vars:
        assert np.allclose(plain[name], scaled[name], equal_nan=True) and np.allclose(
            plain[name], turned[name], equal_nan=True
        ), name


def test_chance_is_what_shuffled_weights_have():
    values = [torch.tensor(rng.exponential(size=n)) ** 3 for n in (200, 300)]
    others = [torch.tensor(rng.exponential(size=n)) ** 3 for n in (200, 300)]
    shuffled = [
        bhattacharyya(values, [v[torch.randperm(len(v), generator=torch.Generator().manual_seed(s))] for v in others])
        for s in range(200)
    ]
    assert bhattacharyya_by_chance(values, others) == pytest.approx(np.mean(shuffled), abs=4 * np.std(shuffled) / np.sqrt(200))
    masks = largest(values, 0.1)
    found = [
        shared(
            masks,
            list(
                torch.cat(largest(others, 0.1))[torch.randperm(500, generator=torch.Generator().manual_seed(s))].split([200, 300])
            ),
        )
        for s in range(200)
    ]
    assert shared_by_chance(masks, largest(others, 0.1)) == 0.1
    assert np.mean(found) == pytest.approx(0.1, abs=4 * np.std(found) / np.sqrt(200))


def test_two_halves_of_one_task_are_at_the_ceiling():
    """With the same law in both, the halves of one and of both have the same overlap: that is what the ceiling is for."""
    g = rng.normal(0, np.exp(rng.normal(size=40)), (128, 40))
    found = ts.recipes.fisher_overlap(*known_gradients(g[:64], g[64:]))
    assert float(found["total_of_halves"]) == pytest.approx(float(found["total_ceiling"]), abs=0.02)
    assert float(found["total"]) > float(found["total_of_halves"]) > float(found["chance"])


def test_bad_input_gets_one_clear_line():
    scope, one, other = texts()
    importance = ts.recipes.fisher_importance(scope, one)
    with pytest.raises(ValueError, match="method is 'jaccard': choose"):
        ts.recipes.fisher_overlap(scope, one, other, method="jaccard")
    with pytest.raises(ValueError, match="top_fraction is 1"):
        ts.recipes.fisher_overlap(scope, one, other, top_fraction=1)
    with pytest.raises(ValueError, match="task 'other' has 3 samples: this takes at least 4 of each"):
        ts.recipes.fisher_overlap(scope, one, other[:3])
    with pytest.raises(TypeError, match="a is a Samples, the other holds weights"):
        ts.recipes.fisher_overlap(scope, one, importance)
    with pytest.raises(ValueError, match="different parameters"):
        ts.recipes.fisher_overlap(scope, importance, dict(list(importance.items())[1:]))
    with pytest.raises(LookupError, match="'nothing', which is no parameter"):
        ts.recipes.fisher_overlap(scope, importance, {"nothing": torch.ones(2)})
    with pytest.raises(ValueError, match="a holds no parameter"):
        ts.recipes.fisher_overlap(scope, {}, {})
    with pytest.raises(ValueError, match="negative or not finite"):
        ts.recipes.fisher_overlap(scope, importance, {name: -value for name, value in importance.items()})
    with pytest.raises(ValueError, match="some of a and b are masks"):
        ts.recipes.fisher_overlap(scope, importance, importance.mask(0.1))


def test_zero_gradients_have_no_overlap():
    g = rng.normal(size=(4, 6))
    silent = g.copy()
    silent[:, :3] = 0
    found = ts.recipes.fisher_overlap(*known_gradients(g, silent * 0))
    assert np.isnan(found["total"]) and np.isnan(found["total_ceiling"])
    assert np.isnan(ts.recipes.fisher_overlap(*known_gradients(g, silent * 0), method="mask")["total"])
