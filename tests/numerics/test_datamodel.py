import numpy as np
import pytest
from scipy import stats

from tensorscope_nb.numerics.datamodel import datamodeling_score


def halves(rng, m, n):
    chosen = np.zeros((m, n), bool)
    for row in chosen:
        row[rng.permutation(n)[: n // 2]] = True
    return chosen


def test_of_a_model_whose_output_is_a_sum_over_its_samples_the_score_is_1():
    """One step of least squares from zero: f(x') = η Σ over its samples of y ⟨x, x'⟩, so influence is exact."""
    rng = np.random.default_rng(0)
    x, y, there = rng.normal(size=(30, 5)), rng.normal(size=30), rng.normal(size=(7, 5))
    chosen = halves(rng, 40, 30)
    trained = np.stack([0.1 * (y[row, None] * x[row]).sum(0) for row in chosen])
    influence = y[:, None] * (x @ there.T)
    found = datamodeling_score(influence, chosen, trained @ there.T)
    assert found.score == 1 and (found.each == 1).all() and np.isnan([found.low, found.high]).all()
    assert datamodeling_score(-influence, chosen, trained @ there.T).score == -1
    assert datamodeling_score(influence, chosen, np.exp(trained @ there.T)).score == 1  # ranks alone count


def test_each_correlation_is_scipys_also_without_one_subset_and_with_ties():
    rng = np.random.default_rng(1)
    chosen, influence = halves(rng, 12, 6), rng.integers(-2, 3, (6, 4)).astype(float)
    measured = rng.integers(0, 4, (12, 4)).astype(float)
    found = datamodeling_score(influence, chosen, measured)
    predicted = chosen @ influence
    assert len(np.unique(predicted[:, 0])) < 12  # ties
    rho = lambda rows: np.array([stats.spearmanr(predicted[rows, j], measured[rows, j])[0] for j in range(4)])
    assert np.allclose(found.each, rho(np.arange(12))) and np.isclose(found.score, rho(np.arange(12)).mean())
    for rows in (np.delete(np.arange(12), 3), np.arange(2, 12)):
        again = datamodeling_score(influence, chosen[rows], measured[rows])
        assert np.allclose(again.each, rho(rows))


def test_the_interval_is_the_jackknifes_over_both_groups():
    """By its definition, with every subset left out in truth."""
    rng = np.random.default_rng(2)
    m, t = 15, 6
    chosen, influence = halves(rng, m, 10), rng.normal(size=(10, t))
    measured = chosen @ influence + np.arange(t) * rng.normal(size=(m, t)) + rng.normal(size=(m, 1))
    measured = measured.round()
    assert len(np.unique(measured[:, 0])) < m  # ties
    found = datamodeling_score(influence, chosen, measured)
    without = [datamodeling_score(influence, *(np.delete(x, i, 0) for x in (chosen, measured))).each for i in range(m)]
    pseudo = m * found.each - (m - 1) * np.stack(without)
    rows, columns = pseudo.mean(1), pseudo.mean(0)
    rest = pseudo - rows[:, None] - columns + pseudo.mean()
    noise = (rest**2).sum() / (m - 1) / (t - 1) / (m * t)
    variance = rows.var(ddof=1) / m + columns.var(ddof=1) / t - noise
    assert variance > noise  # its floor
    error = np.sqrt(variance)
    half = stats.t.ppf(0.975, t - 1) * error / (1 - found.score**2)
    assert np.allclose(np.arctanh([found.low, found.high]), np.arctanh(found.score) + np.array([-half, half]))


def simulated(rng, m, t, noise, common):
    """Scores of one experiment; what is measured has noise of its own, and noise that all test samples of a model share."""
    n = 40
    influence = rng.normal(size=(n, t))
    chosen = halves(rng, m, n)
    signal = chosen @ influence
    measured = signal + n**0.5 / 2 * noise * (
        np.sqrt(1 - common) * rng.normal(size=(m, t)) + np.sqrt(common) * rng.normal(size=(m, 1))
    )
    return datamodeling_score(influence, chosen, measured)


@pytest.mark.parametrize(("noise", "common"), [(2.0, 0.0), (2.0, 0.8), (30.0, 0.8), (0.7, 0.5)])
def test_the_interval_covers(noise, common):
    """95 % within the error of the trials; the truth is the mean score over all of them."""
    rng = np.random.default_rng(3)
    found = [simulated(rng, 40, 20, noise, common) for _ in range(400)]
    truth = np.mean([each.score for each in found])
    assert 0.91 < np.mean([each.low <= truth <= each.high for each in found]) <= 1


@pytest.mark.parametrize(("m", "t"), [(4, 3), (5, 5), (8, 2)])
def test_few_models_that_are_ranked_right_by_luck_claim_no_certainty(m, t):
    """The truth is below 1, and a score of 1 comes often."""
    rng = np.random.default_rng(8)
    found = [simulated(rng, m, t, 0.1, 0.0) for _ in range(300)]
    scores, low, high = (np.array([getattr(each, name) for each in found]) for name in ("score", "low", "high"))
    perfect = scores > 1 - 1e-12
    assert 0.9 < scores.mean() < 0.99 and perfect.mean() > 0.03
    assert np.isnan(low[perfect]).all() and np.isfinite(low[~perfect]).all()
    assert np.mean((low <= scores.mean()) & (scores.mean() <= high), where=~perfect) > 0.93


def test_what_is_no_number_is_refused_and_not_left_out():
    rng = np.random.default_rng(9)
    chosen, influence = halves(rng, 12, 6), rng.normal(size=(6, 3))
    measured = chosen @ influence
    for spoilt in (influence, measured):
        kept, spoilt[2, 1] = spoilt[2, 1], np.nan
        with pytest.raises(ValueError, match="no finite number"):
            datamodeling_score(influence, chosen, measured)
        spoilt[2, 1] = kept


def test_random_influence_scores_nothing():
    rng = np.random.default_rng(4)
    chosen = halves(rng, 60, 50)
    measured = chosen @ rng.normal(size=(50, 40))
    found = datamodeling_score(rng.normal(size=(50, 40)), chosen, measured)
    assert found.low < 0 < found.high and abs(found.score) < 0.1


def test_a_test_sample_on_which_all_models_are_alike_is_left_out():
    rng = np.random.default_rng(5)
    chosen, influence = halves(rng, 20, 10), rng.normal(size=(10, 4))
    measured = chosen @ influence + rng.normal(size=(20, 4))
    full = datamodeling_score(influence[:, 1:], chosen, measured[:, 1:])
    measured[:, 0] = 3.0
    found = datamodeling_score(influence, chosen, measured)
    assert np.isnan(found.each[0]) and found.score == full.score and found.low == full.low
    nothing = datamodeling_score(influence[:, :1], chosen, measured[:, :1])
    assert np.isnan([nothing.score, nothing.low, nothing.high]).all()


def test_too_few_give_no_interval_and_what_does_not_fit_is_refused():
    rng = np.random.default_rng(6)
    chosen, influence = halves(rng, 20, 10), rng.normal(size=(10, 1))
    found = datamodeling_score(influence, chosen, chosen @ influence)
    assert found.score == 1 and np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match=r"influence is \(10, 1\), subsets \(20, 10\) and measured \(19, 1\)"):
        datamodeling_score(influence, chosen, np.zeros((19, 1)))
    chosen[0] = True
    with pytest.raises(ValueError, match="several sizes"):
        datamodeling_score(influence, chosen, np.zeros((20, 1)))
