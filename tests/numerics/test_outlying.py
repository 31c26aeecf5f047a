"""Pairs of samples against pairs within the tasks: sizes and power over simulated gradients, as sample_conflicts does it."""

from functools import cache

import numpy as np
import pytest
from simulated_gradients import noise, slack

from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.numerics.outlying import depth, lower_tail, recentred


def cosines(g):
    g = g / np.linalg.norm(g, axis=1, keepdims=True)
    return g @ g.T


def table_and_null(one, other):
    n, c = len(one), cosines(np.concatenate([one, other]))
    return c[:n, n:], np.concatenate([recentred(c[:n, :n]), recentred(c[n:, n:])])


def draw(rng, n, law, d=100):
    one, other = noise(rng, (2, n, d), "heavy norms" if law == "heavy norms" else "many directions")
    if law == "one law":
        return one + 0.5, other + 0.5
    if law in ("orthogonal", "heavy norms", "scales"):
        one[:, 0] += 5
        other[:, 1] += 5
    if law == "scales":
        other *= 3
    if law == "one support":  # independent signs on shared heavy-tailed weights: cosines of two modes
        scale = np.exp(2 * rng.standard_normal(d))
        return rng.choice([-1, 1], (n, d)) * scale, rng.choice([-1, 1], (n, d)) * scale
    if law == "topics":  # four in each, the same ones
        topics = 0.7 * rng.standard_normal((4, d))
        one, other = one + topics[rng.integers(0, 4, n)], other + topics[rng.integers(0, 4, n)]
    return one, other


@cache
def sizes(law, n, times):
    """Shares of p ≤ .05 and ≤ .01, and of trials with any discovery at q ≤ .05 and ≤ .01."""
    rng, found = np.random.default_rng(0), []
    for _ in range(times):
        table, null = table_and_null(*draw(rng, n, law))
        p = lower_tail(table, null)
        q = np.where(table < 0, q_values(p), 1)
        found.append([(p <= 0.05).mean(), (p <= 0.01).mean(), (q <= 0.05).any(), (q <= 0.01).any()])
    return np.mean(found, 0)


@pytest.mark.parametrize("law", ["no means", "one law", "orthogonal", "scales", "heavy norms", "topics", "one support"])
@pytest.mark.parametrize("n", [6, 12, 16, 32, 64])
def test_size(law, n):
    times = 300 if n <= 16 else 120 if n == 32 else 30
    one, strict, any_05, any_01 = sizes(law, n, times)
    assert one <= (0.06 if law in ("no means", "one law", "topics") else 0.09) + (0.01 if n < 12 else 0)
    assert strict <= 0.02
    assert any_05 <= 0.05 + slack(0.05, times) and any_01 <= 0.01 + slack(0.01, times)


@pytest.mark.parametrize("n", [6, 12, 32])
def test_size_of_one_set_against_itself(n):
    rng, found = np.random.default_rng(1), []
    for _ in range(200):
        c = cosines(noise(rng, (n, 100)))
        p = lower_tail(c[np.triu_indices(n, 1)], recentred(c))
        found.append([(p <= 0.05).mean(), (p <= 0.01).mean(), (q_values(p) <= 0.05).any()])
    one, strict, any_05 = np.mean(found, 0)
    assert one <= 0.06 and strict <= 0.02 and any_05 <= 0.05 + slack(0.05, 200)


@pytest.mark.parametrize("cosine, least", [(-0.35, 0.9), (-0.6, 1.0)])
def test_one_planted_pair_among_1024(cosine, least):
    rng, hits, others = np.random.default_rng(2), 0, 0
    for _ in range(40):
        one, other = noise(rng, (2, 32, 1000))
        i, j = rng.integers(0, 32, 2)
        x = one[i] / np.linalg.norm(one[i])
        rest = other[j] - (other[j] @ x) * x
        other[j] = cosine * x + np.sqrt(1 - cosine**2) * rest / np.linalg.norm(rest)
        table, null = table_and_null(one, other)
        found = set(zip(*np.nonzero((q_values(lower_tail(table, null)) <= 0.01) & (table < 0)), strict=True))
        hits += (i, j) in found
        others += len(found - {(i, j)})
    assert hits >= least * 40 and others <= 2


def test_p_is_the_rank_and_below_it_an_exponential():
    null = np.linspace(-1, 1, 1001)
    p = lower_tail(np.array([1.5, 0.0, -0.799, -0.9, -3.0, np.nan]), null)
    assert p[0] == 1 and p[1] == pytest.approx(0.5, abs=0.002) and p[2] == pytest.approx(0.102, abs=0.001)
    assert p[3] == pytest.approx(0.1 * np.exp(-1), rel=0.02), "one mean excess below the lowest tenth"
    assert p[4] < 1e-9 and np.isnan(p[5])
    values = np.sort(np.random.default_rng(3).normal(0, 2, 500))
    assert (np.diff(lower_tail(values, null)) >= -1e-12).all(), "monotone, also where rank and tail meet"


def test_a_small_null_has_ranks_only():
    null = np.arange(100.0)
    assert lower_tail(np.array([-1e9]), null)[0] == pytest.approx(1 / 101)
    assert np.isnan(lower_tail(np.zeros((2, 3)), np.array([]))).all() and np.isnan(depth(np.zeros(2), np.array([]))).all()


def test_depth_is_in_standard_deviations_of_a_normal_null():
    null = np.random.default_rng(4).normal(0, 0.2, 100_000)
    assert depth(np.array([-0.6]), null)[0] == pytest.approx(3, rel=0.02)
    assert np.isnan(depth(np.array([-0.6]), np.zeros(9))).all()
