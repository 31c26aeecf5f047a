"""Dissimilarities compared: dense references, and sizes and coverage."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from tensorscope_nb.numerics import dissimilarity
from tensorscope_nb.numerics.dissimilarity import COMPARES, DISTANCES, GROUPS, Tables, compared, exchanged, n_pairs
from tensorscope_nb.numerics.intervals import jackknife_interval

UNIT = np.repeat(np.arange(6), [2, 1, 3, 1, 2, 2])


def draw(rng, n, rho, decay=0.5, heavy=0.0, d=30):
    spectrum, size = np.arange(1, d + 1.0) ** -decay, np.exp(heavy * rng.normal(size=(n, 1)))
    z, e = rng.normal(size=(2, n, d))
    return size * z * spectrum, size * (rho * z + np.sqrt(1 - rho**2) * e) * spectrum


def dense(x, distance):
    """The whole table, row by row."""
    if distance == "correlation":
        return 1 - np.corrcoef(x)
    if distance == "cosine":
        return 1 - x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    return np.linalg.norm(x[:, None] - x, axis=2)


@pytest.mark.parametrize("compare", COMPARES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("unit", [np.arange(11), UNIT], ids=["alone", "several"])
def test_it_is_the_correlation_of_the_tables_above_their_diagonals(unit, distance, compare):
    x, y = draw(np.random.default_rng(0), 11, 0.6)
    kept = np.triu(unit[:, None] != unit)
    other = {"spearman": spearmanr, "pearson": pearsonr}[compare]
    expected = other(dense(x, distance)[kept], dense(y, distance)[kept]).statistic
    a, b = Tables.of([x], unit, distance), Tables.of([y], unit, distance)
    assert a.values.shape == (1, n_pairs(unit)) == (1, kept.sum())
    value, low, high = compared(a, b, unit, compare, 0)
    assert value[0, 0] == pytest.approx(expected) and low < value < high
    without = []
    for g in range(unit[-1] + 1):
        some = kept & (unit != g) & (unit[:, None] != g)
        without.append([[other(dense(x, distance)[some], dense(y, distance)[some]).statistic]])
    assert np.allclose((value, low, high), jackknife_interval(value, np.array(without)))


def test_of_many_units_groups_are_left_out():
    x, y = draw(np.random.default_rng(0), 90, 0.6)
    unit = np.arange(90)
    a, b = Tables.of([x], unit, "cosine"), Tables.of([y], unit, "cosine")
    value, low, high = compared(a, b, unit, "pearson", 3)
    group = np.random.default_rng(3).permutation(90) % GROUPS
    without = []
    for g in range(GROUPS):
        some = np.triu(np.ones((90, 90), dtype=bool), 1) & (group != g) & (group[:, None] != g)
        without.append([[np.corrcoef(dense(x, "cosine")[some], dense(y, "cosine")[some])[0, 1]]])
    assert np.allclose((value, low, high), jackknife_interval(value, np.array(without)))
    assert not np.allclose(low, compared(a, b, unit, "pearson", 4)[1])


def test_p_counts_the_exchanges_that_reach_the_value():
    x, y = draw(np.random.default_rng(1), 9, 0.5)
    unit = np.arange(9)
    a, b = Tables.of([x], unit, "euclidean"), Tables.of([y], unit, "euclidean")
    p = exchanged(a, b, unit, "spearman", 400, 5)
    rng, upper = np.random.default_rng(5), np.triu_indices(9, 1)
    one, other = dense(x, "euclidean"), dense(y, "euclidean")
    value, reached = spearmanr(one[upper], other[upper]).statistic, 1
    for _ in range(400):
        order = rng.permutation(9)
        reached += spearmanr(one[upper], other[order][:, order][upper]).statistic >= value - 1e-9
    assert p[0, 0] == pytest.approx(reached / 401)
    assert 0.02 < p[0, 0] < 0.9, "or the count would say nothing"


def test_units_of_several_rows_are_exchanged_whole():
    rng, unit = np.random.default_rng(0), np.repeat(np.arange(5), 3)
    x = rng.normal(size=(15, 8))
    a = Tables.of([x], unit, "cosine")
    y = x + rng.normal(size=(15, 8))
    b = Tables.of([y], unit, "cosine")
    p = exchanged(a, b, unit, "pearson", 60, 2)
    upper, one, other = np.triu(unit[:, None] != unit), dense(x, "cosine"), dense(y, "cosine")
    again, reached = np.random.default_rng(2), 1
    for _ in range(60):
        order = (3 * again.permutation(5)[:, None] + np.arange(3)).ravel()
        moved = np.corrcoef(one[upper], other[order][:, order][upper])[0, 1]
        reached += moved >= np.corrcoef(one[upper], other[upper])[0, 1] - 1e-9
    assert p[0, 0] == pytest.approx(reached / 61) and reached < 30


def test_p_is_below_a_level_as_often_as_the_level_says():
    rng, times, p = np.random.default_rng(0), 600, []
    for i in range(times):
        x, y = draw(rng, 10, 0.0)
        unit = np.arange(10)
        p.append(
            exchanged(Tables.of([x], unit, "correlation"), Tables.of([y], unit, "correlation"), unit, "spearman", 99, i)[0, 0]
        )
    for level in (0.05, 0.2):
        assert abs(np.mean(np.array(p) <= level) - level) < 3 * np.sqrt(level * (1 - level) / times)


@pytest.mark.parametrize("rho, decay, heavy", [(0, 0.5, 0), (0.6, 0.5, 0), (0.9, 1, 0.3)])
@pytest.mark.parametrize("distance, compare", [("correlation", "spearman"), ("euclidean", "pearson")])
@pytest.mark.parametrize("n", [8, 24])
def test_coverage(n, distance, compare, rho, decay, heavy):
    rng, unit = np.random.default_rng(0), np.arange(600)
    sides = zip(*(draw(rng, 600, rho, decay, heavy) for _ in range(2)), strict=True)
    x, y = (np.stack(side) for side in sides)
    tables = [Tables.of(side, unit, distance).values for side in (x, y)]
    truth = np.mean(np.diag(dissimilarity._correlations(*tables, compare)))
    times, hits, unit = 150, 0, np.arange(n)
    for i in range(times):
        x, y = draw(rng, n, rho, decay, heavy)
        _, low, high = compared(Tables.of([x], unit, distance), Tables.of([y], unit, distance), unit, compare, i)
        hits += low[0, 0] <= truth <= high[0, 0]
    assert hits / times >= 0.92 - 2 * np.sqrt(0.92 * 0.08 / times)


def test_what_does_not_vary_has_no_number():
    x, y = draw(np.random.default_rng(0), 8, 0.6)
    unit = np.arange(8)
    flat = np.tile(np.arange(30.0), (8, 1)) + 0.1  # the same row each time: its distances are rounding
    for distance in DISTANCES:
        a, b = Tables.of([x, flat], unit, distance), Tables.of([y], unit, distance)
        value, low, high = compared(a, b, unit, "spearman", 0)
        p = exchanged(a, b, unit, "spearman", 19, 0)
        for each in (value, low, high, p):
            assert np.isfinite(each[0]).all() and np.isnan(each[1]).all()


def test_below_five_units_there_is_no_interval():
    x, y = draw(np.random.default_rng(0), 4, 0.6)
    value, low, high = compared(*(Tables.of([z], np.arange(4), "cosine") for z in (x, y)), np.arange(4), "spearman", 0)
    assert np.isfinite(value).all() and np.isnan(low).all() and np.isnan(high).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_rows_that_are_equally_far_apart_have_no_number_and_not_that_of_their_rounding(distance):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    x, _ = draw(np.random.default_rng(0), 12, 0.6)
    tables = Tables.of([x, np.eye(12).astype(np.float32) @ turn.astype(np.float32)], np.arange(12), distance)
    assert tables.has.tolist() == [True, False]
    assert np.isnan(compared(tables, tables, np.arange(12), "spearman", 0)[0]).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("distance", ["correlation", "cosine"])
def test_rows_along_one_line_tie(distance):
    line = np.random.default_rng(0).normal(size=30)
    line -= line.mean()
    along = np.outer([3, -1, 0.7, 2, -5, -0.1], line).astype(np.float32)
    found = Tables.of([along], np.arange(6), distance).values[0]
    assert set(np.round(found, 6)) == {0, 2} and len(set(found)) == 2


def test_an_exchange_that_leaves_all_as_it_was_reaches_the_value():
    tables = Tables.of([draw(np.random.default_rng(0), 4, 0.6)[0]], np.arange(4), "euclidean")
    p = exchanged(tables, tables, np.arange(4), "pearson", 2399, 0)[0, 0]
    assert abs(p - 1 / 24) < 4 * np.sqrt(1 / 24 / 2400)  # one of the 24 orders is the one that there is
