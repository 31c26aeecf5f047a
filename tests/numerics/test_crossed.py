import numpy as np
import pytest
from simulated_gradients import means, noise, products, slack, tasks

from tensorscope_nb.numerics.crossed import cosine_interval, crossed_ratio_interval, mean_test, row_tests
from tensorscope_nb.numerics.intervals import ratio_interval

KINDS = ("many directions", "few directions", "heavy norms", "t3")


def sizes(test, times):
    assert len(test.below) == times
    for p in (test.below, test.above):
        assert (p <= 0.05).mean() <= 0.05 + slack(0.05, times)
        assert (p <= 0.01).mean() <= 0.01 + slack(0.01, times)


@pytest.mark.parametrize("n, m", [(8, 8), (16, 16), (32, 32), (8, 32)])
@pytest.mark.parametrize("kind", KINDS)
def test_size_without_means_and_with_orthogonal_ones(kind, n, m):
    rng, times = np.random.default_rng(0), 1500
    for size in (0, 0.1, 0.3):
        sizes(mean_test(products(*tasks(rng, times, n, m, 60, kind, size))), times)


def test_size_does_not_depend_on_how_many_weights_there_are():
    rng, times = np.random.default_rng(1), 500
    for size in (0, 0.1):
        sizes(mean_test(products(*tasks(rng, times, 8, 8, 2000, size=size))), times)


@pytest.mark.parametrize("n, m", [(8, 8), (32, 32), (8, 32)])
@pytest.mark.parametrize("along", [1, 1.5, 2, 3, 6])
def test_size_where_the_noise_has_one_direction_and_both_means_lie_along_it(along, n, m):
    """The means agree along the noise by ``along`` standard errors, and oppose each other as much where there is no noise."""
    rng, times = np.random.default_rng(2), 6000
    one = rng.standard_normal((times, n, 1)) + along / np.sqrt(n)
    other = rng.standard_normal((times, m, 1)) + along / np.sqrt(m)
    test = mean_test(products(one, other) - along**2 / np.sqrt(n * m))
    assert (test.below <= 0.05).mean() <= 0.05 + slack(0.05, times)
    assert (test.below <= 0.01).mean() <= 0.01 + slack(0.01, times)


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_against_itself_is_no_conflict(kind):
    test = mean_test(products(*tasks(np.random.default_rng(3), 1000, 16, 16, 60, kind, 0.3, 1.0)))
    assert (test.below <= 0.05).mean() < 0.01
    assert (test.above <= 0.05).mean() > 0.1, "and is synergy"


@pytest.mark.parametrize("n, least", [(8, 0.03), (16, 0.2), (32, 0.65)])
def test_power(n, least):
    test = mean_test(products(*tasks(np.random.default_rng(4), 800, n, n, 400, size=0.1, cosine=-0.5)))
    assert (test.below <= 0.05).mean() > least
    strong = mean_test(products(*tasks(np.random.default_rng(4), 300, n, n, 400, size=0.3, cosine=-0.5)))
    assert (strong.below <= 0.05).mean() > 0.9


def test_both_sides_mirror_each_other_and_scales_and_tasks_do_not_matter():
    tables = products(*tasks(np.random.default_rng(5), 50, 9, 14, 30, size=0.3, cosine=-0.4))
    test, mirrored = mean_test(tables), mean_test(-3 * tables)
    turned = mean_test(np.swapaxes(tables, 1, 2))
    assert np.allclose(test.mean, tables.mean((1, 2)))
    for other in (mirrored.above, turned.below):
        assert np.allclose(test.below, other)
    assert np.allclose(mean_test(tables[7]).below, test.below[7])


def test_the_second_order_parts_are_those_of_the_definition():
    """Where the covariances are known: Var V = 4 ȳ′ABAȳ + 4 x̄′BABx̄ + 2 tr ABAB, c = ȳ′ABx̄, in many tables' mean."""
    from tensorscope_nb.numerics.crossed import _second_order

    rng, n, m, scale = np.random.default_rng(6), 12, 10, np.array([1.5, 1.0, 0.5])
    mu, nu = np.array([1.0, 0.5, -1.0]), np.array([0.7, -0.2, 1.0])
    a, b = rng.standard_normal((40_000, n, 3)) * scale + mu, rng.standard_normal((40_000, m, 3)) * scale + nu
    tables = products(a, b)
    rows, columns = tables.mean(2) - tables.mean((1, 2))[:, None], tables.mean(1) - tables.mean((1, 2))[:, None]
    interaction = tables - rows[:, :, None] - columns[:, None, :] - tables.mean((1, 2))[:, None, None]
    spread, c = _second_order(rows, columns, interaction)
    A, B = np.diag(scale**2) / n, np.diag(scale**2) / m
    assert np.isclose(c.mean(), nu @ A @ B @ mu, rtol=0.05, atol=2e-5)
    # E ȳ′ABAȳ = ν′ABAν + tr ABAB
    expected = 4 * nu @ A @ B @ A @ nu + 4 * mu @ B @ A @ B @ mu + 10 * np.trace(A @ B @ A @ B)
    assert 0.9 < (spread**2).mean() / expected < 1.15, "unbiased but for what is cut off at 0"


def test_nothing_to_test():
    assert np.isnan(mean_test(np.ones((1, 5))).below) and np.isnan(mean_test(np.ones((4, 5))).below)
    assert np.isnan(mean_test(np.zeros((4, 5))).above)


def test_row_tests_ask_whether_this_sample_opposes_the_other_task():
    """Size where a sample has nothing along the other mean; and scipy's t."""
    from scipy.stats import ttest_1samp

    rng, times = np.random.default_rng(7), 4000
    for n in (6, 16, 32):
        columns = rng.standard_normal((n, 50)) + np.eye(50)[0] * 3
        rows = rng.standard_normal((times, 50))
        rows[:, 0] = 0
        found = []
        for block in np.split(rows, 40):  # the columns are drawn anew, so that the trials are not all of one draw
            columns = rng.standard_normal((n, 50)) + np.eye(50)[0] * 3
            table = block @ columns.T / np.linalg.norm(columns, axis=1)
            mean, p = row_tests(table)
            found.append(p)
            assert np.allclose(p, ttest_1samp(table, 0, axis=1, alternative="less").pvalue) and np.allclose(mean, table.mean(1))
        p = np.concatenate(found)
        assert (p <= 0.05).mean() <= 0.07 and (p <= 0.01).mean() <= 0.02
    table[0, 3:] = np.nan
    assert np.allclose(row_tests(table)[1][0], ttest_1samp(table[0, :3], 0, alternative="less").pvalue)
    table[0, 1:] = np.nan
    assert np.isnan(row_tests(table)[1][0])


@pytest.mark.parametrize("cosine", [-0.8, -0.3, 0, 0.3, 0.8, 1])
@pytest.mark.parametrize("n", [8, 32])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_interval_of_the_cosine_covers(kind, n, cosine):
    rng, times = np.random.default_rng(8), 500
    for size in (0.1, 0.2, 0.5):
        one, other = tasks(rng, times, n, n, 100, kind, size, cosine)
        value, low, high = cosine_interval(products(one, one), products(other, other), products(one, other))
        known = np.isfinite(low)
        missed = known & ((low > cosine) | (high < cosine))
        assert missed.sum() <= 0.07 * known.sum() + 3 * np.sqrt(0.07 * known.sum()) + 1
        if cosine >= 0:
            assert (high < 0).mean() <= 0.025 + slack(0.025, times), "no conflict where there is none"
        if size == 0.5 and kind == KINDS[0]:
            assert known.mean() > 0.95 and np.nanmedian(value) == pytest.approx(cosine, abs=0.05)
            assert cosine > -0.8 or (high < 0).mean() > 0.9


def test_the_interval_is_absent_where_a_mean_is_not_seen():
    """Noise of few directions and means below it: the cosine of what is left is about ±1, and says nothing."""
    rng = np.random.default_rng(9)
    one, other = tasks(rng, 1000, 32, 32, 100, "few directions", 0.15, 0.0)
    value, low, high = cosine_interval(products(one, one), products(other, other), products(one, other))
    assert np.isfinite(value).mean() > 0.2 and np.isfinite(low).mean() < 0.05
    assert ((low > 0) | (high < 0)).mean() < 0.01


def test_the_cosine_is_that_of_its_definition():
    rng = np.random.default_rng(10)
    one, other = noise(rng, (4, 6)) + means(6, 2, -0.4)[0], noise(rng, (5, 6)) + means(6, 2, -0.4)[1]

    def cosine(a, b):
        u = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (a @ a.T, b @ b.T)]
        return (a @ b.T).mean() / np.sqrt(u[0] * u[1])

    from scipy.stats import t

    value, low, high = cosine_interval(one @ one.T, other @ other.T, one @ other.T)
    assert np.isclose(value, cosine(one, other))
    left_out = [[cosine(np.delete(one, i, 0), other) for i in range(4)], [cosine(one, np.delete(other, j, 0)) for j in range(5)]]
    error = np.sqrt(sum((len(each) - 1) * np.var(each) for each in left_out))
    assert np.allclose([value - low, high - value], t.ppf(0.975, 3) * error)
    assert np.isnan(cosine_interval(one[:2] @ one[:2].T, other @ other.T, one[:2] @ other.T)[1])
    assert np.isnan(cosine_interval(one[:1] @ one[:1].T, other @ other.T, one[:1] @ other.T)[0])


EFFECTS = {"rows": (1, 0, 0.3), "columns": (0.1, 1, 0.3), "both": (1, 1, 1), "entries": (0, 0, 1), "rows and entries": (1, 0, 1)}


@pytest.mark.parametrize("n, m", [(6, 5), (16, 5), (40, 5), (16, 10)])
@pytest.mark.parametrize("kind", EFFECTS)
def test_the_interval_of_a_crossed_ratio_holds_it_as_often_as_it_says(kind, n, m):
    rng, times, (a, b, e) = np.random.default_rng(0), 1000, EFFECTS[kind]
    held = 0
    for _ in range(times):
        size = rng.integers(5, 30, n).astype(float)
        rates = 0.7 + a * rng.standard_normal((n, 1)) + b * rng.standard_normal(m) + e * rng.standard_normal((n, m))
        _, low, high = crossed_ratio_interval(rates * size[:, None], size)
        held += low <= 0.7 <= high
    assert held / times > 0.91 - slack(0.05, times)
    if kind != "entries":  # where the two terms both hold the variance of the entries, it is counted more than once
        assert held / times < 0.97 + slack(0.05, times)


@pytest.mark.parametrize("n", [4, 8, 32])
@pytest.mark.parametrize("kind", EFFECTS)
def test_the_interval_of_a_crossed_ratio_holds_it_where_sizes_are_very_unequal(kind, n):
    rng, times, (a, b, e) = np.random.default_rng(0), 1000, EFFECTS[kind]
    held = 0
    for _ in range(times):
        size = np.ceil(np.exp(rng.normal(3, 1.2, n)))
        rates = 0.7 + a * rng.standard_normal((n, 1)) + b * rng.standard_normal(5) + e * rng.standard_normal((n, 5))
        _, low, high = crossed_ratio_interval(rates * size[:, None], size)
        held += low <= 0.7 <= high
    assert held / times > 0.91 - slack(0.05, times)


def test_a_crossed_ratio_with_equal_columns_is_the_ratio_of_one_of_them():
    rng = np.random.default_rng(1)
    size, sums = rng.integers(5, 30, 12).astype(float), rng.standard_normal(12)
    found = crossed_ratio_interval(np.repeat(sums[:, None], 4, 1), size)
    np.testing.assert_allclose(found, ratio_interval(sums, size), rtol=1e-12)


def test_a_crossed_ratio_has_no_interval_over_one_row_or_one_column_and_none_is_wide_where_nothing_varies():
    assert np.isnan(crossed_ratio_interval(np.ones((1, 5)), np.ones(1))[1:]).all()
    assert np.isnan(crossed_ratio_interval(np.ones((5, 1)), np.ones(5))[1:]).all()
    assert crossed_ratio_interval(np.zeros((5, 3)), np.arange(1.0, 6)) == (0, 0, 0)
    assert np.isnan(crossed_ratio_interval(np.array([[1.0, 2], [0, 0]]), np.array([3.0, 0]))[1:]).all()
