import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tensorscope_nb.numerics import ratio_interval, t_interval
from tensorscope_nb.numerics.intervals import correlation_interval, t_test


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
