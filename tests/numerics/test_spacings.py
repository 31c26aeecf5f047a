import numpy as np
import pytest
from scipy import stats

from tensorscope_nb.numerics.spacings import SHORTEST, TAIL, Null, dimension, nulls, spacings, splits


def exponential(n, size, seed=0):
    return np.random.default_rng(seed).exponential(size=(n, size))


@pytest.mark.parametrize(("d", "first"), [(1, 1), (3, 1), (10, 10)])
def test_spacings_of_a_uniform_ball_are_independent_exponentials_of_mean_one_over_d(d, first):
    rng = np.random.default_rng(d)
    radii = np.sort(rng.uniform(size=(400, 300)) ** (1 / d), axis=1)[:, first - 1 : 60]
    e = d * spacings(radii, first)
    assert stats.kstest(e.ravel(), "expon").pvalue > 0.01
    neighbouring = [np.corrcoef(e[:, i], e[:, i + 1])[0, 1] for i in range(e.shape[1] - 1)]
    assert abs(np.mean(neighbouring)) < 4 / np.sqrt(400 * len(neighbouring))


def test_the_dimension_is_that_of_levina_and_bickel_and_its_interval_is_exact():
    rng = np.random.default_rng(0)
    r = np.sort(rng.uniform(size=(4000, 40)) ** (1 / 5), axis=1)
    found, low, high = dimension(spacings(r, 1))
    assert np.allclose(found, 39 / np.log(r[:, -1:] / r[:, :-1]).sum(1))
    inside = ((low <= 5) & (high >= 5)).mean()
    assert abs(inside - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 4000)


def test_the_best_split_is_the_best_of_all_likelihoods():
    """The reference takes the exponential log-likelihood of each side, split by split."""
    log_likelihood = lambda e: -len(e) * np.log(e.mean()) - len(e)
    e = exponential(20, 33)
    change, increase = splits(e)
    for row, statistic, at, up, up_at in zip(e, change.statistic, change.at, increase.statistic, increase.at, strict=True):
        gains = {
            s: log_likelihood(row[:s]) + log_likelihood(row[s:]) - log_likelihood(row)
            for s in range(SHORTEST, len(row) - SHORTEST + 1)
        }
        rising = {s: g for s, g in gains.items() if row[s:].mean() < row[:s].mean()}
        assert np.isclose(statistic, max(gains.values())) and at == max(gains, key=gains.get)
        assert np.isclose(up, max(rising.values(), default=0)) and (not rising or up_at == max(rising, key=rising.get))


def test_a_change_is_found_where_it_is_with_its_ratio():
    e = exponential(500, 90)
    e[:, 40:] /= 6
    change, increase = splits(e)
    assert abs(np.median(change.at) - 40) <= 1 and 5 < np.median(change.ratio) < 7
    assert np.array_equal(change.at, increase.at)
    falling, none = splits(e[:, ::-1])
    assert np.median(falling.ratio) < 0.2 and np.median(none.statistic) < 1


@pytest.mark.parametrize("n", [30, 49, 90])
def test_p_is_uniform_for_exponential_spacings_of_any_mean(n):
    e = exponential(20_000, n, 1) / np.random.default_rng(2).uniform(0.5, 50, size=(20_000, 1))
    for null, split in zip(nulls(n), splits(e), strict=True):
        p = null.p(split.statistic)
        below = p[split.statistic > 0]  # where there is no increase at all, p is 1
        assert stats.kstest(below, stats.uniform(scale=np.mean(split.statistic > 0)).cdf).pvalue > 0.01
        for level in (0.05, 0.01, 0.001):
            assert abs((p <= level).mean() - level) < 4 * np.sqrt(level / 20_000)


def test_beyond_the_draws_p_falls_on_and_agrees_with_many_more_draws():
    any_, _ = nulls(49)
    x = np.linspace(0, 60, 2000)
    p = any_.p(x)
    assert (np.diff(p) <= 0).all() and (p > 0).all() and p[-1] < 1e-20 and p[0] == 1
    at_edge = any_.p(np.array([any_.edge, any_.edge + 1e-9]))
    assert np.allclose(at_edge, TAIL, rtol=0.01)
    rng = np.random.default_rng(7)
    more = np.concatenate([splits(rng.exponential(size=(100_000, 49)))[0].statistic for _ in range(20)])
    for level, fewest in ((1e-3, 0.8), (1e-4, 0.6), (1e-5, 0.2)):  # the tail is fitted at 1e-2, and errs towards larger p
        assert fewest < (any_.p(more) <= level).mean() / level < 1.5, level


def test_the_null_is_the_same_each_time_and_leaves_the_global_state_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = nulls(31)[0].ordered
    nulls.cache_clear()
    assert np.array_equal(first, nulls(31)[0].ordered) and np.array_equal(before, np.random.get_state()[1])
    assert np.isnan(Null(np.arange(1000.0)).p(np.array([np.nan]))).all()
