"""What chance makes of two maps in a row, against simulated rotations; and what a table's other cells lead to expect."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from tensorscope_nb.numerics.composed import beyond_the_others, chance, from_the_others, tail, third_moment
from tensorscope_nb.numerics.many import q_values

SPECTRA = {  # squared singular values
    "one": ([1.0], [1.0]),
    "flat": ([1.0] * 4, [1.0] * 6),
    "steep": (0.5 ** np.arange(8), 0.8 ** np.arange(8)),
    "one ahead": (1 / np.arange(1, 9), 1 / np.arange(1, 11)),
    "full": ([1.0] * 12, [3.0, 1.0]),
}


def purity(spectrum):
    shares = np.array(spectrum) / np.sum(spectrum)
    return float((shares**2).sum())


def law(a, b, d):
    """What ``tail`` takes."""
    a, b = (np.array(spectrum) / np.sum(spectrum) for spectrum in (a, b))
    moments = [x for s in (a, b) for x in ((s**2).sum(), (s**3).sum())]
    return [np.atleast_1d(x) for x in (*chance(moments[0], moments[2], d), third_moment(*moments, d))]


def simulated(a, b, d, n=4000, seed=0):
    """c² of ‖A R B‖² / (‖A‖² ‖B‖²), A and B made of their singular values, R a rotation drawn by another library."""
    turns = ortho_group.rvs(d, n, random_state=seed)
    left, right = (np.diag(np.sqrt(s)) for s in (a, b))
    made = left @ turns[:, : len(a), : len(b)] @ right
    return (made**2).sum((1, 2)) / np.sum(a) / np.sum(b)


@pytest.mark.parametrize("name", list(SPECTRA))
@pytest.mark.parametrize("d", [12, 30])
def test_mean_and_spread_are_those_of_random_rotations(name, d):
    a, b = SPECTRA[name]
    found = simulated(a, b, d)
    mean, sd = chance(purity(a), purity(b), d)
    error = sd / np.sqrt(len(found))
    assert abs(found.mean() - mean) < 4 * error + 1e-12
    kurtosis = ((found - mean) ** 4).mean() / max(sd, 1e-12) ** 4
    assert abs(found.var() / max(sd**2, 1e-12) - (sd > 0)) < 4 * np.sqrt(kurtosis / len(found)) + 1e-6
    if name == "full" and d == 12:
        assert sd == 0 and np.allclose(found, 1 / d)  # a map that keeps everything alike has no orientation


@pytest.mark.parametrize("name", SPECTRA)
def test_the_third_moment_is_that_of_random_rotations(name):
    found = simulated(*SPECTRA[name], 12, n=20_000)
    mean, _, third = law(*SPECTRA[name], 12)
    cubes = (found - mean) ** 3
    assert abs(cubes.mean() - third) < 4 * cubes.std() / np.sqrt(len(cubes)) + 1e-18


@pytest.mark.parametrize("name", ["one", "flat", "steep", "one ahead"])
@pytest.mark.parametrize("d", [12, 30])
def test_a_p_value_is_as_rare_as_it_says(name, d):
    """Within what draws show and what the docstring allows; a Beta law of two moments has 5 times .001 with one ahead."""
    p = tail(simulated(*SPECTRA[name], d, n=20_000), *law(*SPECTRA[name], d))
    for level, least, most in ((0.05, 0.85, 1.15), (0.01, 0.75, 1.3), (0.001, 0.25, 2.0)):
        error = 3 * np.sqrt(level / len(p))
        assert level * least - error < (p <= level).mean() < level * most + error, (level, (p <= level).mean())


def test_no_spread_is_no_p_value():
    for a in ([1.0] * 10, np.linspace(1, 1 + 1e-6, 10)):  # to rounding, too
        assert np.isnan(tail(np.array([0.1 + 1e-7]), *law(a, [1.0, 1.0], 10)))


def test_rows_and_columns_alone_leave_no_excess():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(2, 5, 1)) + rng.normal(size=(2, 1, 7))
    assert np.allclose(from_the_others(table), table)


def test_one_cell_does_not_change_what_is_expected_of_any():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(5, 1)) + rng.normal(size=(1, 8))
    planted = table.copy()
    planted[2, 3] += 10
    assert np.isclose((planted - from_the_others(planted))[2, 3], 10)
    # the medians of others step to a neighbour: by no more than the spread of the effects
    assert np.abs(np.delete((planted - from_the_others(planted)).ravel(), 2 * 8 + 3)).max() < np.ptp(table)


def test_medians_of_the_others_by_hand():
    table = np.array([[1.0, 5.0, 2.0], [0.0, 4.0, 9.0], [3.0, 3.0, 7.0]])
    rows, columns, both = (
        np.median([5.0, 2.0]),
        np.median([0.0, 3.0]),
        (np.median([6.5, 5.0]) + np.median([3.5, 8.0])) / 2,
    )
    assert np.isclose(from_the_others(table)[0, 0], rows + columns - both)


def test_rows_and_columns_that_are_missing_are_left_out():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(4, 5))
    padded = np.full((6, 6), np.nan)
    padded[np.ix_([0, 2, 3, 5], [0, 1, 2, 4, 5])] = table
    found = from_the_others(padded)
    assert np.allclose(found[np.ix_([0, 2, 3, 5], [0, 1, 2, 4, 5])], from_the_others(table))
    assert np.isnan(found[1]).all() and np.isnan(found[:, 3]).all()
    assert np.isnan(from_the_others(table[:2])).all()


def named(rng, heads, layers, n, noise):
    """The share of simulated models without circuits in which BH rejects for some cell."""
    pairs, found = layers * (layers - 1) // 2, 0
    for _ in range(n):
        effects = rng.normal(size=(pairs, heads, 1)) + rng.normal(size=(pairs, 1, 3 * heads))
        found += (q_values(beyond_the_others(effects + noise((pairs, heads, 3 * heads)))[2]) <= 0.05).any()
    return found / n


@pytest.mark.parametrize(("heads", "layers", "n"), [(3, 2, 600), (4, 2, 600), (4, 4, 400), (8, 2, 400), (8, 6, 200)])
def test_beyond_effects_of_rows_and_columns_normal_noise_names_few(heads, layers, n):
    rng = np.random.default_rng(100 * heads + layers)
    assert named(rng, heads, layers, n, lambda shape: rng.normal(size=shape)) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


def test_heavy_tails_name_more_than_the_level_as_is_stated():
    rng = np.random.default_rng(5)
    heavy = lambda shape: rng.standard_t(5, size=shape)
    assert named(rng, 3, 2, 400, heavy) < 0.1 and named(rng, 8, 6, 40, heavy) > 0.8


def test_what_is_beyond_does_not_depend_on_the_scale_and_finds_what_is_planted():
    rng = np.random.default_rng(6)
    table = rng.normal(size=(1, 6, 18))
    table[0, 2, 7] += 12
    expected, z, p = beyond_the_others(table)
    scaled = beyond_the_others(3 * table + 5)
    assert np.allclose(scaled[1], z) and np.allclose(scaled[2], p) and np.allclose(scaled[0], 3 * expected + 5)
    assert np.unravel_index(z.argmax(), z.shape) == (0, 2, 7) and p[0, 2, 7] < 1e-6
