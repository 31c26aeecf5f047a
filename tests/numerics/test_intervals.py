import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tensorscope_nb.numerics import bootstrap_ratio, t_interval


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


def test_bootstrap_ratio_covers_and_is_seeded():
    """A ratio of sums over 40 units of unequal size, true value 2."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        weight = rng.integers(1, 20, 40).astype(float)
        low, high = bootstrap_ratio(2 * weight + rng.normal(0, np.sqrt(weight)), weight, n_resamples=400)
        hits += low <= 2 <= high
    assert 0.88 <= hits / 200 <= 0.99
    a, b = np.arange(1.0, 9), np.ones(8)
    assert bootstrap_ratio(a, b, seed=3) == bootstrap_ratio(a, b, seed=3) != bootstrap_ratio(a, b, seed=4)
    assert np.isnan(bootstrap_ratio(a[:1], b[:1])).all()
