"""Intervals by balanced halves: exact for a mean, and sound for counts among the largest."""

import numpy as np
import pytest
from scipy.stats import t

from tensorscope_nb.numerics.halves import dealt, groups_of, halves_interval, splits


@pytest.mark.parametrize("n_groups", [2, 4, 8])
def test_for_a_mean_it_is_students_interval_over_the_groups(n_groups):
    x = np.random.default_rng(n_groups).normal(size=(n_groups, 3))
    first = splits(n_groups)
    assert first.shape == (n_groups - 1, n_groups) and (first.sum(1) == n_groups / 2).all()
    signs = np.where(first, 1, -1)
    assert (signs @ signs.T == n_groups * np.eye(n_groups - 1)).all()  # no split repeats another
    value, low, high = halves_interval(np.array([x[rows].mean(0) for rows in [..., *first, *~first]]))
    half = t.ppf(0.975, n_groups - 1) * x.std(0, ddof=1) / np.sqrt(n_groups)
    assert np.allclose(value, x.mean(0)) and np.allclose(high - value, half) and np.allclose(value - low, half)


def test_without_halves_there_is_no_interval():
    value, low, high = halves_interval(np.array([[3.0]]))
    assert value == 3 and np.isnan([low, high]).all()
    assert [groups_of(n) for n in (1, 2, 3, 4, 7, 8, 100)] == [1, 2, 2, 4, 4, 8, 8]


def test_samples_are_dealt_evenly_and_by_the_seed():
    groups = dealt(29, 8, seed=1)
    assert sorted(np.bincount(groups)) == [3, 3, 3, 4, 4, 4, 4, 4]
    assert (groups == dealt(29, 8, seed=1)).all() and (groups != dealt(29, 8, seed=2)).any()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.5, 4.0])
def test_counts_among_the_largest_are_covered(noise):
    """Weights in five modules, gradients of groups of samples around a true one: how many of the k largest |ḡ| each module has.

    At noise 4 half of the list is another one with other samples. Covered is what as many samples find on average.
    """
    rng = np.random.default_rng(0)
    modules, k = np.repeat(np.arange(5), 200), 80
    truth = rng.normal(size=1000) * np.repeat([0.5, 0.8, 1.0, 1.2, 1.6], 200)
    halves = [rows for first in splits(8) for rows in (first, ~first)]

    def counts(gradient):
        return np.bincount(modules[np.argsort(-np.abs(gradient))[:k]], minlength=5)

    found = []
    for _ in range(400):
        groups = truth + rng.normal(size=(8, 1000)) * noise / np.sqrt(8)
        found.append(halves_interval(np.array([counts(groups[rows].mean(0)) for rows in [..., *halves]])))
    value, low, high = (np.array(each) for each in zip(*found, strict=True))
    expected = value.mean(0)
    inside = ((low <= expected) & (expected <= high)).mean(0)
    assert (inside > 0.93).all() and (inside[expected > 10] < 0.985).all(), inside
