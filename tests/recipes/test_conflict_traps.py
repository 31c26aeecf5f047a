"""What other tools get wrong about conflicts, each by name, and that it is not so here."""

import numpy as np
import pytest
import torch
from two_tasks import dense, known_gradients, texts

import tensorscope_nb as ts

rng = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:Only")


def heavy_support(n, d, scale):
    """Independent signs on one heavy-tailed support: exchangeable over samples, and not over coordinates."""
    return rng.choice([-1, 1], (n, d)) * scale


def test_p_does_not_come_from_the_coordinates():
    """Permuting coordinates rejects nearly half of these independent gradients at 5 %."""
    scale = np.exp(2 * rng.normal(size=500))
    found = ts.recipes.sample_conflicts(*known_gradients(heavy_support(32, 500, scale), heavy_support(32, 500, scale)))
    assert float((found["p_value"] < 0.05).mean()) < 0.08 and int(found["significant"].sum()) == 0
    cosines = found["cosine"].values.ravel()
    by_coordinates = np.abs(cosines) * np.sqrt(500) > 1.96  # what a permutation of coordinates comes to
    assert by_coordinates.mean() > 0.2


def test_the_number_of_weights_makes_nothing_significant():
    """At a cosine of −.1 in 20,000 dimensions a coordinate permutation gives p = 0."""
    found = ts.recipes.sample_conflicts(*known_gradients(rng.normal(size=(16, 20_000)), rng.normal(size=(16, 20_000))))
    assert not found["significant"].any() and (found["p_value"] > 1e-4).all()
    repeated = [np.repeat(rng.normal(size=(16, 40)), 50, axis=1) for _ in "ab"]
    wide = ts.recipes.sample_conflicts(*known_gradients(*repeated))
    narrow = ts.recipes.sample_conflicts(*known_gradients(*(g[:, ::50] for g in repeated)))
    assert np.allclose(wide["p_value"], narrow["p_value"])


def test_squares_cannot_see_a_conflict_and_gradients_can():
    g = rng.normal(size=(24, 60))
    found = ts.recipes.sample_conflicts(*known_gradients(g, -g))
    c, s = np.diagonal(found["cosine"].values), g**2 / np.linalg.norm(g**2, axis=1)[:, None]
    assert np.allclose(c, -1) and (s @ s.T >= 0).all()
    pairs = ts.recipes.conflict_pairs(found).iloc[:24]
    assert (pairs["sample_a_idx"] + 24 == pairs["sample_b_idx"]).all() and pairs["fdr_significant"].all()


def test_the_effect_size_is_no_function_of_the_cosine():
    """The same cosine stands out of narrow nulls and not of wide ones."""
    sizes = []
    for d in (20, 2000):
        g_a, g_b = rng.normal(size=(24, d)), rng.normal(size=(24, d))
        a = g_a[0] / np.linalg.norm(g_a[0])
        rest = g_b[0] - (g_b[0] @ a) * a
        g_b[0] = -0.4 * a + np.sqrt(1 - 0.16) * rest / np.linalg.norm(rest)
        found = ts.recipes.sample_conflicts(*known_gradients(g_a, g_b))
        assert np.isclose(found["cosine"][0, 0], -0.4)
        sizes.append(float(found["effect_size"][0, 0]))
    assert sizes[1] > 5 * sizes[0]


def test_every_pair_is_tested_wherever_it_stands():
    """No preselection, no running correction, no end after so many comparisons: the order of the samples changes nothing."""
    g_a, g_b = rng.normal(size=(20, 300)), rng.normal(size=(20, 300))
    g_b[19] = -0.5 * np.linalg.norm(g_b[19]) / np.linalg.norm(g_a[19]) * g_a[19] + 0.8 * g_b[19]
    found = ts.recipes.sample_conflicts(*known_gradients(g_a, g_b))
    turned = ts.recipes.sample_conflicts(*known_gradients(g_a[::-1].copy(), g_b[::-1].copy()))
    assert bool(found["significant"][19, 19]) and np.isfinite(found["q_value"]).all()
    for name in ("p_value", "q_value", "effect_size"):
        assert np.allclose(found[name], turned[name][::-1, ::-1]), name


def test_p_is_never_zero_by_counting():
    found = ts.recipes.sample_conflicts(*known_gradients(rng.normal(size=(6, 50)), rng.normal(size=(6, 50)) - 3))
    assert (found["p_value"] >= 1 / (1 + 30)).all()


def test_scores_without_a_sign_have_no_p():
    """A test of positive numbers against zero is always significant."""
    scope, one, other = texts("gpt2", 6, 6)
    for mode in ("magnitude", "symmetric"):
        found = ts.recipes.qkov_interference(scope, one, other, mode=mode)
        assert (found["score"] > 0).all() and found["p_value"].isnull().all() and not found["significant"].any()


def test_p_is_not_one_whatever_the_data():
    """Permuting rows and averaging over all pairs changes nothing and gives p = 1."""
    scope, one, other = texts("gpt2", 6, 6)
    p = ts.recipes.qkov_interference(scope, one, other)["p_value"]
    assert 0 < float(p.min()) < 0.9 and float(p.std()) > 0.05


def test_what_is_kept_of_a_sample_is_its_own_gradient():
    """Not the square of a batch's, under the last sample's name."""
    scope, one, other = texts("gpt2", 5, 4)
    study = ts.Study(scope, one + other)
    assert list(study.contributions["one"]) == list(one.ids)
    g = dense(scope, one)
    for i, name in enumerate(one.ids):
        kept = study.contributions["one"][name]["transformer.h.0.attn.c_proj.weight"]
        assert np.allclose(kept.flatten(), g["transformer.h.0.attn.c_proj.weight"][i] ** 2)


def test_tasks_are_told_apart_by_their_whole_name():
    scope, *_ = texts("gpt2", 6, 4)
    names = ["math", "math_hard", "my_task"]
    generator = torch.Generator().manual_seed(3)
    tasks = [ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=generator), task=name) for name in names]
    study = ts.Study(scope, tasks[0] + tasks[1] + tasks[2]).run(ts.recipes.gradient_conflict)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        alone = ts.recipes.gradient_conflict(scope, tasks[a], tasks[b])
        here = study["gradient_conflict"].sel(tasks=f"{names[a]} × {names[b]}")
        assert np.allclose(here["dot"], alone["dot"], rtol=1e-7)
    assert list(study.contributions["math"]) == list(tasks[0].ids)


def test_numbers_of_a_pair_mean_one_sample_each_in_one_list():
    """The snippet of the seed takes numbers of two lists out of one."""
    scope, one, other = texts("gpt2", 5, 4)
    pairs = ts.recipes.conflict_pairs(ts.recipes.sample_conflicts(scope, one, other))
    every = one + other
    assert all(every.ids[i] == a for i, a in zip(pairs["sample_a_idx"], pairs["sample_a"]))
    assert all(every.ids[j] == b for j, b in zip(pairs["sample_b_idx"], pairs["sample_b"]))
