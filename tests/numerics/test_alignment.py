"""CKA of rows: dense references, invariances, what independent rows give, and how often intervals hold the truth."""

import numpy as np
import pytest

from tensorscope_nb.numerics.alignment import Rows, across_by_columns, across_by_rows, linear_alignment
from tensorscope_nb.numerics.intervals import jackknife_interval

ALONE, EQUAL = np.arange(24), np.repeat(np.arange(6), 4)
UNEQUAL = np.repeat(np.arange(6), [2, 7, 1, 6, 3, 5])
HALF = np.repeat(np.arange(5), [12, 3, 3, 2, 4])  # one unit has half of the rows
UNITS = {"alone": ALONE, "equal": EQUAL, "unequal": UNEQUAL, "half": HALF}


def rows(seed=0, n=24):
    """Layers of two models that share something, of different widths, off centre."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 3))
    sides = [[common @ rng.normal(size=(3, d)) + rng.normal(size=(n, d)) + 3 for d in widths] for widths in ((5, 40), (3, 6, 9))]
    return sides[0], sides[1]


def every(unit):
    return [np.ones(len(unit), dtype=bool)]


def cka(x, y, unit, unbiased=True):
    return linear_alignment(x, y, unit, every(unit), unbiased=unbiased)[0]


def song(k, l):
    """The unbiased HSIC as it is printed (Song et al. 2012)."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    return ((k * l).sum() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(0) @ l.sum(0) / (n - 2)) / (n * (n - 3))


def gretton(k, l):
    """tr(K H L H)."""
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ l @ h)


def of_kernels(x, y, hsic):
    k, l = x @ x.T, y @ y.T
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def least_squares(x, y, unit):
    """The kernels over pairs of different units, each less its nearest aᵢ + aⱼ, and their cosine."""
    i, j = np.nonzero(np.triu(unit[:, None] != unit))
    design = np.zeros((len(i), len(unit)))
    design[np.arange(len(i)), i] = design[np.arange(len(i)), j] = 1
    k, l = ((z @ z.T)[i, j] for z in (x, y))
    k, l = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (k, l))
    return k @ l / np.sqrt(k @ k * (l @ l))


def table(x, y, function):
    return np.array([[function(a, b) for b in y] for a in x])


@pytest.mark.parametrize("unbiased, hsic", [(True, song), (False, gretton)])
def test_with_a_row_for_each_unit_it_is_the_ratio_of_hsics(unbiased, hsic):
    x, y = rows()
    assert np.allclose(cka(x, y, ALONE, unbiased).value, table(x, y, lambda a, b: of_kernels(a, b, hsic)), atol=1e-10)


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_with_several_it_is_the_cosine_of_what_least_squares_leave(unit):
    x, y = rows()
    assert np.allclose(cka(x, y, unit).value, table(x, y, lambda a, b: least_squares(a, b, unit)), atol=1e-10)


def test_the_biased_one_has_a_closed_form_in_features():
    x, y = rows()
    x, y = ([z - z.mean(0) for z in side] for side in (x, y))
    norm = np.linalg.norm
    expected = table(x, y, lambda a, b: norm(b.T @ a) ** 2 / norm(a.T @ a) / norm(b.T @ b))
    assert np.allclose(cka(x, y, UNEQUAL, unbiased=False).value, expected)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_the_interval_is_that_of_values_without_each_unit(unit, unbiased):
    x, y = rows()
    found = cka(x, y, unit, unbiased)
    without = []
    for g in range(unit[-1] + 1):
        kept = unit != g
        renumbered = np.unique(unit[kept], return_inverse=True)[1]
        without.append(cka([z[kept] for z in x], [z[kept] for z in y], renumbered, unbiased).value)
    value, low, high = jackknife_interval(found.value, np.array(without))
    assert np.allclose(found.low, low) and np.allclose(found.high, high)
    assert (low < value).all() and (value < high).all()


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_kernels_and_columns_give_the_same_sums(unit):
    x, y = rows()
    layers, kept = Rows([*x, *y], np.arange(24) > 3), [np.ones(24, dtype=bool), np.arange(24) % 5 > 0]
    wanted = np.ones((5, 5), dtype=bool)
    one, other = across_by_rows(layers, unit, kept), across_by_columns(layers, unit, kept, wanted)
    assert np.allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(one).max())


def test_rows_that_are_left_out_are_as_if_they_had_not_come():
    x, y = rows()
    kept = np.arange(24) % 4 > 0
    among = linear_alignment(x, y, UNEQUAL, [*every(UNEQUAL), kept])[1]
    unit = np.unique(UNEQUAL[kept], return_inverse=True)[1]
    alone = cka([z[kept] for z in x], [z[kept] for z in y], unit)
    for found, expected in zip(among, alone, strict=True):
        assert np.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("unit", [ALONE, UNEQUAL], ids=["alone", "unequal"])
def test_turning_scaling_and_shifting_change_nothing_and_stretching_does(unit, unbiased):
    x, y = rows()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 40)))[0]
    before = cka(x, y, unit, unbiased).value
    after = cka([x[0], 7 * x[1] @ turn + 100], y, unit, unbiased).value
    assert np.allclose(after, before, atol=1e-9)
    stretched = cka([x[0], x[1] * np.linspace(0.1, 5, 40)], y, unit, unbiased).value
    assert np.abs(stretched[1] - before[1]).max() > 0.01
    assert np.allclose(stretched[0], before[0])


def test_a_layer_with_itself_is_one_and_its_interval_too():
    x, y = rows()
    found = cka([*x, *y], None, UNEQUAL)
    for each in found[:3]:
        assert np.allclose(np.diag(each), 1, atol=1e-10)
        assert np.allclose(each, each.T, equal_nan=True)
    assert np.allclose(found.value[:2, 2:], cka(x, y, UNEQUAL).value)
    assert (found.value < 1 + 1e-12).all()


@pytest.mark.parametrize("n, biased", [(16, 0.98), (64, 0.92), (256, 0.75)])
def test_independent_rows_of_width_768_are_near_zero_but_for_the_biased_one(n, biased):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 768)).astype(np.float32) for _ in range(2))
    found = cka([x], [y], np.arange(n))
    assert abs(found.value[0, 0]) < 3 * np.sqrt(2) / n
    assert found.low[0, 0] < 0 < found.high[0, 0]
    assert cka([x], [y], np.arange(n), unbiased=False).value[0, 0] == pytest.approx(biased, abs=0.01)


def test_what_a_unit_shares_within_itself_is_no_agreement():
    """Independent, and half of the variance is the unit's own: over all pairs of rows the unbiased estimate is .49."""
    rng, found, usual = np.random.default_rng(0), [], []
    unit = np.repeat(np.arange(16), 16)
    for _ in range(20):
        x, y = (np.sqrt(0.5) * (rng.normal(size=(16, 1, 64)) + rng.normal(size=(16, 16, 64))) for _ in range(2))
        x, y = x.reshape(256, 64), y.reshape(256, 64)
        found.append(cka([x], [y], unit).value[0, 0])
        usual.append(of_kernels(x, y, song))
    assert abs(np.mean(found)) < 0.025
    assert np.mean(usual) == pytest.approx(0.49, abs=0.02)


def test_huge_means_and_single_precision_cost_no_digits():
    """Means of 10⁴ over a spread of 1: single precision holds the rows to 10⁻³, and nothing more is lost."""
    x, y = rows(n=24)
    shifted = [(z + 1e4).astype(np.float32) for z in y]
    assert np.allclose(cka(x, shifted, UNEQUAL).value, cka(x, y, UNEQUAL).value, atol=2e-3)
    held = [z.astype(np.float64) - 1e4 for z in shifted]
    assert np.allclose(cka(x, shifted, UNEQUAL).value, cka(x, held, UNEQUAL).value, atol=1e-9)


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_massive_rows_that_are_left_out_cost_the_others_no_digits(size):
    x, y = rows()
    first = np.arange(24) % 4 == 0
    x, y = ([np.where(first[:, None], z + size * (np.arange(z.shape[1]) == i), z) for i, z in enumerate(side)] for side in (x, y))
    found = linear_alignment(x, y, EQUAL, [*every(EQUAL), ~first])[1]
    alone = cka([z[~first] for z in x], [z[~first] for z in y], EQUAL[~first])
    assert np.allclose(found[:3], alone[:3], rtol=0, atol=1e-9)


def test_a_constant_layer_has_no_number_and_costs_the_others_none():
    x, y = rows()
    for constant in (np.full((24, 4), 2.5), np.full((24, 4), 0.1, dtype=np.float32), np.zeros((24, 4))):
        found = cka([x[0], constant], y, UNEQUAL)
        for each, expected in zip(found[:3], cka([x[0]], y, UNEQUAL)[:3], strict=True):
            assert np.isnan(each[1]).all()
            assert np.allclose(each[0], expected[0])


def test_few_units_have_no_interval_and_three_no_value():
    x, y = rows(n=5)
    found = cka(x, y, np.arange(5))
    assert np.isfinite(found.low).all() and np.isfinite(found.value).all()
    found = cka([z[:4] for z in x], [z[:4] for z in y], np.arange(4))
    assert np.isfinite(found.value).all() and np.isnan(found.low).all() and np.isnan(found.high).all()
    assert np.isnan(cka([z[:3] for z in x], [z[:3] for z in y], np.arange(3)).value).all()


def simulated(rng, n, rho, decay, tokens, heavy):
    """Two layers of width 30 whose CKA is ρ²: equal spectra, the second a part ρ of the first."""
    spectrum = np.arange(1, 31.0) ** -decay
    size = np.exp(heavy * rng.normal(size=(n, 1, 1)))
    z, e = (np.sqrt(0.5) * (rng.normal(size=(n, 1, 30)) + rng.normal(size=(n, tokens, 30))) for _ in range(2))
    return [(size * v * spectrum).reshape(n * tokens, 30) for v in (z, rho * z + np.sqrt(1 - rho**2) * e)]


@pytest.mark.parametrize("decay, heavy", [(0, 0), (1, 0), (0.5, 0.5)])
@pytest.mark.parametrize("rho", [0, 0.5, 0.9])
@pytest.mark.parametrize("n, tokens", [(8, 1), (16, 1), (32, 1), (12, 5)])
def test_coverage(n, tokens, rho, decay, heavy):
    rng, times, unit = np.random.default_rng(0), 150, np.repeat(np.arange(n), tokens)
    hits = 0
    for _ in range(times):
        x, y = simulated(rng, n, rho, decay, tokens, heavy)
        found = cka([x], [y], unit)
        hits += found.low[0, 0] <= rho**2 <= found.high[0, 0]
    assert hits / times >= 0.91 - 2 * np.sqrt(0.91 * 0.09 / times)


def test_the_interval_sees_what_is_there():
    """Of 64 samples with a true value of .25, most intervals are above 0."""
    rng = np.random.default_rng(0)
    found = [cka([x], [y], np.arange(64)).low[0, 0] for x, y in (simulated(rng, 64, 0.5, 0.5, 1, 0) for _ in range(60))]
    assert np.mean(np.array(found) > 0) > 0.8


@pytest.mark.parametrize("shape", ["equidistant", "one apart"])
def test_a_kernel_of_which_nothing_is_left_has_no_number_and_not_that_of_its_rounding(shape):
    turn, x = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0], rows()[0]
    flat = np.eye(24) if shape == "equidistant" else np.outer(np.arange(24) == 3, turn[0]) + 1
    flat, turned = flat.astype(np.float32), (flat @ turn).astype(np.float32)
    found = cka([*x, flat, turned], [flat, *x], ALONE)
    assert found.has_x.tolist() == [True, True, False, False] and found.has_y.tolist() == [False, True, True]
    for values in (found.value, found.low, found.high):
        assert np.isnan(values[2:]).all() and np.isnan(values[:, 0]).all() and np.isfinite(values[:2, 1:]).all()
    if shape == "equidistant":  # without the pairs of a row with itself; with them it is the alignment of what was turned
        assert cka([flat], [turned], ALONE, unbiased=False).value[0, 0] == pytest.approx(1)


def test_one_row_far_away_leaves_the_others_their_number():
    x, y = ([z + 0 for z in side] for side in rows())
    for z in (*x, *y):
        z[5] += 1e5
    assert np.allclose(
        cka(x, y, ALONE).value, table(x, y, lambda a, b: of_kernels(a - a.mean(0), b - b.mean(0), song)), atol=1e-4
    )
    assert np.isfinite(cka(x, y, ALONE).value).all()
