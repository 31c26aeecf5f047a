import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tensorscope_nb.numerics import ratio_interval, t_interval
from tensorscope_nb.numerics.intervals import correlation_interval, freedom_of, t_test


@given(st.integers(2, 12), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_t_interval_equals_scipy(n, seed):
    values = np.random.default_rng(seed).normal(3, 2, (n, 4))
    mean, low, high = t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert np.allclose(mean, values.mean(0)) and np.allclose(low, expected.low) and np.allclose(high, expected.high)


def test_t_interval_leaves_out_what_is_not_there():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [4.0, 5.0]])
    mean, low, high = t_interval(values)
    kept = t_interval(values[[0, 1, 3], :1])
    assert np.allclose([mean[0], low[0], high[0]], [x[0] for x in kept])
    assert mean[1] == 5 and np.isnan(low[1]) and np.isnan(high[1])


def test_t_interval_covers():
    """Coverage of the 95 % interval for n = 8 normal values: 0.95 within the error of 4,000 trials."""
    values = np.random.default_rng(0).normal(0, 1, (8, 4000))
    _, low, high = t_interval(values)
    assert 0.94 < ((low <= 0) & (high >= 0)).mean() < 0.96


def test_ratio_interval_covers_also_with_few_units():
    """A ratio of sums over units of unequal size, true value 2."""
    rng = np.random.default_rng(1)
    for n in (3, 8, 40):
        hits = 0
        for _ in range(1500):
            weight = rng.integers(10, 20, n).astype(float)
            ratio, low, high = ratio_interval(2 * weight + rng.normal(0, np.sqrt(weight)), weight)
            assert low <= ratio <= high
            hits += low <= 2 <= high
        assert 0.93 < hits / 1500 < 0.97
    assert np.isnan(ratio_interval(np.ones(1), np.ones(1))[1])
    equal = np.random.default_rng(0).normal(1, 1, 9)
    assert np.allclose(ratio_interval(equal, np.ones(9)), [x.item() for x in t_interval(equal)])


@pytest.mark.parametrize("spread", [0.6, 1.2])
@pytest.mark.parametrize("n", [3, 8, 30])
@pytest.mark.parametrize("kind", ["units differ", "terms differ"])
def test_ratio_interval_covers_where_sizes_are_very_unequal(kind, n, spread):
    """With log sizes that vary with σ = 1.2 the largest of 3 units is often most of all."""
    rng, hits, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        size = np.ceil(np.exp(rng.normal(3, spread, n)))
        noise = rng.normal(size=n) / (1 if kind == "units differ" else np.sqrt(size / 20))
        _, low, high = ratio_interval(size * (0.7 + noise), size)
        hits += low <= 0.7 <= high
    assert 0.93 < hits / times < 0.997


def test_the_degrees_of_freedom_are_the_traces_of_their_matrix():
    for share in (np.full(6, 1 / 6), np.array([0.7, 0.2, 0.06, 0.04]), np.array([0.5, 0.5])):
        m = np.eye(len(share)) - share
        g = m.T @ np.diag(share**2 / (1 - share)) @ m
        assert np.isclose(freedom_of(share), max(1, np.trace(g) ** 2 / np.trace(g @ g)))
    assert np.isclose(freedom_of(np.full(6, 1 / 6)), 5)


def test_where_one_unit_is_all_there_is_no_interval():
    assert np.isnan(ratio_interval(np.array([3.0, 0, 0]), np.array([10.0, 0, 0]))[1:]).all()
    assert ratio_interval(np.array([2.0, 4, 6]), np.array([1.0, 2, 3])) == (2, 2, 2)


def test_t_test_equals_scipy_and_leaves_out_what_is_not_there():
    values = np.random.default_rng(0).normal(0.5, 1, (7, 3))
    assert np.allclose(t_test(values), stats.ttest_1samp(values, 0).pvalue)
    gaps = np.concatenate([values, np.full((2, 3), np.nan)])
    assert np.allclose(t_test(gaps), t_test(values))
    assert np.isnan(t_test(values[:1])).all() and np.isnan(t_test(np.ones((4, 2)))).all()


def test_a_correlation_interval_stays_within_its_bounds():
    """Also where one correlation is 1, and it turns with the sign."""
    r = np.array([[0.2, 0.999], [0.4, 1.0], [0.5, 1.0], [0.1, 0.99]])
    mean, low, high = correlation_interval(r)
    assert np.isclose(mean[0], np.tanh(np.arctanh(r[:, 0]).mean()))
    assert (low < mean).all() and (mean < high).all() and (high <= 1).all() and (low >= -1).all()
    flipped = correlation_interval(-r)
    assert np.allclose(flipped[1], -high) and np.allclose(flipped[2], -low)
