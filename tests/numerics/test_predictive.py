"""Whether a prediction has the order of what is measured: size, coverage, and the ceiling that noise sets."""

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from tensorscope_nb.numerics.predictive import predictive, rank_correlation


def test_the_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12)).round(1)
    assert np.isclose(rank_correlation(a, b), spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(a[:3], b[:3])) and np.isnan(rank_correlation(a, np.ones(12)))
    assert np.isnan(rank_correlation(a, np.append(b[:-1], np.inf)))


def test_a_prediction_that_knows_nothing_has_a_uniform_p():
    rng = np.random.default_rng(0)
    p = [predictive(rng.normal(size=(1, 12)), rng.normal(size=(12, 3)), np.ones(3), seed)[4] for seed in range(200)]
    assert kstest(p, "uniform").pvalue > 0.01
    same = np.arange(12.0)
    assert predictive(same[None], same[:, None], np.ones(1), 0)[4] == 1 / 10000
    assert predictive(-same[None], same[:, None], np.ones(1), 0)[4] == 1


@pytest.mark.slow
@pytest.mark.parametrize("noise, least", [(0.4, 0.93), (2.0, 0.93), (10.0, 0.9)])
def test_the_interval_holds_what_as_many_samples_show(noise, least):
    rng = np.random.default_rng(1)
    truth = np.exp(rng.normal(size=15))
    predicted = truth * np.exp(rng.normal(size=15))
    sizes = rng.integers(5, 20, size=24).astype(float)
    found = np.array([
        predictive(predicted[None], (truth[:, None] + noise * rng.normal(size=(15, 24))) * sizes, sizes, seed)
        for seed in range(200)
    ])  # fmt: skip
    inside = (found[:, 1] <= found[:, 0].mean()) & (found[:, 0].mean() <= found[:, 2])
    assert inside.mean() > least
    perfect = [rank_correlation(truth, ((truth[:, None] + noise * rng.normal(size=(15, 24))) * sizes).sum(1)) for _ in range(200)]
    assert abs(np.median(found[:, 3]) - np.mean(perfect)) < 0.1  # the ceiling is what the truth itself would reach


def test_noise_in_the_prediction_widens_the_interval():
    rng = np.random.default_rng(2)
    truth = np.arange(10.0)
    sums = truth[:, None] + 0.1 * rng.normal(size=(10, 30))
    sure = predictive(np.tile(truth, (15, 1)), sums, np.ones(30), 0)
    unsure = predictive(np.vstack([truth, truth + 3 * rng.normal(size=(14, 10))]), sums, np.ones(30), 0)
    assert sure[0] == unsure[0] == pytest.approx(1) and sure[1] > 0.95 > unsure[1]


def test_where_one_sample_says_everything_nothing_is_certain():
    sums = np.zeros((6, 4))
    sums[:, 0] = np.arange(6)
    found = predictive(np.arange(6.0)[None], sums, np.ones(4), 0)
    assert found[0] == pytest.approx(1) and np.isnan(found[1:4]).all()  # and not [−1, 1] below a ceiling of 0


def test_one_sample_has_no_interval():
    found = predictive(np.arange(5.0)[None], np.arange(5.0)[:, None], np.ones(1), 0)
    assert found[0] == pytest.approx(1) and np.isnan(found[1:4]).all()
