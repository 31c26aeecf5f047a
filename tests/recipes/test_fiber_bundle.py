import json

import numpy as np
import pytest
import torch
from scipy import stats

import tensorscope_nb as ts
from tensorscope_nb.numerics.bundles import Window, gaussian_like, local_tests
from tensorscope_nb.recipes.fiber_bundle import Rule


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def test(points, **options):
    return ts.recipes.fiber_bundle_test(points, **{"surrogate": False} | options)


test.__test__ = False


def ball(n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(size=(n, 1)) ** (1 / d)


def centres(n_clouds, make, **options):
    """Independent tests: of the first point alone, in clouds of their own."""
    return [test(make(seed), rows=[0], **options) for seed in range(n_clouds)]


def sphere(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def at_origin(points):
    return np.concatenate([np.zeros((1, points.shape[1])), points])


def strip(seed, n=6000, width=0.06, length=4.0):
    """Two dimensions up to half its width, one beyond."""
    rng = np.random.default_rng(seed)
    return at_origin(np.stack([rng.uniform(-length, length, n), rng.uniform(-width, width, n)], 1))


def whisker(seed, n_line=40, n_ball=4000):
    """The tip of a line that ends in a ball: one dimension, and three further out."""
    rng = np.random.default_rng(seed)
    line = np.zeros((n_line, 3))
    line[:, 0] = rng.uniform(0, 1, n_line)
    return at_origin(np.concatenate([line, ball(n_ball, 3, seed) * 0.5 + [1.5, 0, 0]]))


@pytest.mark.parametrize("d", [3, 10])
def test_in_the_middle_of_a_ball_p_is_uniform(d):
    found = centres(300, lambda seed: at_origin(ball(200, d, seed)))
    p = np.array([float(each["p_manifold"][0]) for each in found])
    fiber = np.array([float(each["p_fiber"][0]) for each in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert stats.kstest(fiber[fiber < 0.9], stats.uniform(scale=0.9).cdf).pvalue > 0.01
    dims = np.array([float(each["dim"][0]) for each in found])
    assert abs(dims.mean() / (d * 49 / 48) - 1) < 3 / np.sqrt(49 * 300)  # E of 1 / mean is n / (n − 1) times d
    covered = [float(each["dim_ci_low"][0]) <= d <= float(each["dim_ci_high"][0]) for each in found]
    assert abs(np.mean(covered) - 0.95) < 0.04


@pytest.mark.parametrize(
    "cloud",
    [
        lambda: (sphere(4000, 2, 0), slice(None)),
        lambda: (at_origin(ball(4000, 3)), np.linalg.norm(at_origin(ball(4000, 3)), axis=1) < 0.6),
        lambda: (ball(4000, 2) @ np.random.default_rng(1).normal(size=(2, 12)), np.linalg.norm(ball(4000, 2), axis=1) < 0.8),
    ],
    ids=["sphere", "inside of a ball", "inside of a flat disc"],
)
def test_a_smooth_manifold_is_not_rejected(cloud):
    """The hypotheses are turned round nowhere: no change of slope is a manifold."""
    points, inside = cloud()
    found = test(points).isel(point=inside)
    assert float((found["p_manifold"] <= 0.05).mean()) < 0.08 and float((found["p_manifold"] <= 0.001).mean()) < 0.005
    assert float((found["p_fiber"] <= 0.05).mean()) < 0.08
    assert not found["violates_manifold"].any() and not found["violates_fiber"].any()


def test_in_a_strip_the_manifold_is_rejected_and_the_fiber_bundle_is_not():
    found = centres(40, strip, k_max=400)
    assert np.mean([float(each["p_manifold"][0]) <= 1e-3 for each in found]) > 0.7
    assert all(float(each["p_fiber"][0]) > 1e-3 for each in found)
    flagged = np.mean([bool(each["violates_manifold"][0]) for each in found])
    assert 0.2 < flagged < 0.8, "the ratio is 2, and what is estimated of it falls on both sides of 2"
    assert not any(bool(each["violates_fiber"][0]) for each in found)
    assert np.median([float(each["dim_small"][0]) for each in found]) == pytest.approx(2, abs=0.4)
    assert np.median([float(each["dim_large"][0]) for each in found]) == pytest.approx(1, abs=0.15)
    assert 0.03 < np.median([float(each["transition_radius"][0]) for each in found]) < 0.15


def test_at_the_tip_of_a_whisker_on_a_ball_the_fiber_bundle_is_rejected_too():
    found = centres(40, whisker, k_max=100)
    assert np.mean([bool(each["violates_fiber"][0]) for each in found]) > 0.9
    assert all(bool(each["violates_manifold"][0]) for each in found if bool(each["violates_fiber"][0]))
    assert np.median([float(each["transition_radius"][0]) for each in found]) == pytest.approx(1, abs=0.15)


def test_p_fiber_says_whether_the_increase_is_at_small_or_at_large_radii():
    for n_line, low, high in ((20, "p_fiber_small", "p_fiber_large"), (75, "p_fiber_large", "p_fiber_small")):
        found = centres(20, lambda seed, n=n_line: whisker(seed, n_line=n), k_max=100)
        assert np.mean([float(each[low][0]) < 1e-3 for each in found]) > 0.8
        assert np.mean([float(each[high][0]) == 1 for each in found]) > 0.9
        assert all(min(float(each[low][0]), float(each[high][0])) == float(each["p_fiber"][0]) for each in found)


@pytest.mark.parametrize(("n", "least", "most"), [(50, 0.38, 0.62), (91, 0.83, 0.97)])
def test_the_power_for_dimensions_apart_by_three_is_what_the_docstring_says(n, least, most):
    """Radii of one dimension up to the middle neighbour and of three beyond, drawn exactly."""
    rng = np.random.default_rng(n)
    rejected = []
    for _ in range(300):
        e = rng.exponential(size=n - 1) / np.where(np.arange(n - 1) < (n - 1) // 2, 1, 3)
        r = np.exp(np.concatenate([[0], np.cumsum(e / np.arange(1, n))]) - 10)
        points = np.concatenate([[0.0], r])[:, None]
        found = test(np.concatenate([points, np.full((1, 1), 1e9)]), rows=[0], k_max=n)
        rejected.append(float(found["p_fiber"][0]) <= 1e-3)
    assert least < np.mean(rejected) < most


def test_the_numbers_follow_from_the_distances_alone():
    """A reference in a few lines, from all distances."""
    points = ball(120, 4)
    found = test(points, k_min=3, k_max=60)
    for i in (0, 7, 119):
        r = np.sort(np.linalg.norm(points - points[i], axis=1))[1:]
        e = np.array([k * np.log(r[k] / r[k - 1]) for k in range(3, 60)])
        gain = {
            s: len(e) * np.log(e.mean()) - s * np.log(e[:s].mean()) - (len(e) - s) * np.log(e[s:].mean()) for s in range(5, 53)
        }
        s = max(gain, key=gain.get)
        row = found.isel(point=i)
        expected = {
            "dim": 1 / e.mean(),
            "dim_small": 1 / e[:s].mean(),
            "dim_large": 1 / e[s:].mean(),
            "transition_radius": r[s + 2],
        }
        expected |= {"nearest": r[0], "knn_radius": r[59], "n_spacings": 57, "dim_ratio": e[:s].mean() / e[s:].mean()}
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-9)


def test_scale_rotation_and_shift_change_nothing_but_radii():
    points = ball(300, 5)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    one, other = test(points), test(1e3 * points @ turn + 7)
    for name in ("dim", "p_manifold", "p_fiber_small", "p_fiber_large", "dim_small", "dim_large", "density"):
        assert np.allclose(one[name], other[name], rtol=1e-6), name
    assert np.allclose(1e3 * one["transition_radius"], other["transition_radius"], rtol=1e-6)


def test_equal_points_are_one_place_and_are_counted():
    points = ball(200, 3)
    doubled = np.concatenate([points, points[:50], points[:50], points[[3]]])
    alone, found = test(points), test(doubled)
    for name in ("dim", "p_manifold", "p_fiber", "p_manifold_adjusted", "density", "nearest"):
        assert np.array_equal(found[name][:200], alone[name]) and np.array_equal(found[name][200:250], alone[name][:50]), name
    assert found["n_duplicates"].values[[0, 3, 60, 250]].tolist() == [2, 3, 0, 2]
    assert json.loads(found.attrs["tensorscope"])["n_different"] == 200


def test_on_a_lattice_nothing_is_said():
    lattice = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), -1).reshape(-1, 3)
    for points in (lattice, 0.1 * lattice + 0.3, (0.1 * lattice).astype(np.float32), np.eye(60)):
        found = test(points)
        assert found["p_manifold"].isnull().all() and found["dim"].isnull().all() and not found["violates_manifold"].any()
        assert np.isnan(found["rate_manifold"]) and "as on a lattice" in json.loads(found.attrs["tensorscope"])["notes"][0]


def test_one_tie_among_many_distances_decides_nothing():
    points = at_origin(ball(200, 3))
    order = np.argsort(np.linalg.norm(points, axis=1))
    points[order[20]] = -points[order[21]]
    found = test(points, rows=[0])
    assert float(found["n_ties"][0]) == 1 and float(found["p_manifold"][0]) > 0.001


def test_reach_drops_the_neighbours_beyond_it():
    points = at_origin(ball(400, 3))
    r = np.sort(np.linalg.norm(points, axis=1))[1:]
    found = test(points, rows=[0], reach=(r[39] + r[40]) / 2)
    short = test(points, rows=[0], k_max=40)
    assert float(found["n_spacings"][0]) == 39
    for name in ("dim", "p_manifold", "p_fiber", "dim_small", "transition_radius"):
        assert float(found[name][0]) == float(short[name][0]), name
    near = test(points, rows=[0], reach=float(r[20]))
    assert (
        np.isnan(near["p_manifold"][0]) and "fewer than 30 spacings within" in json.loads(near.attrs["tensorscope"])["notes"][0]
    )


def test_flags_ask_for_an_adjusted_p_and_for_a_ratio_of_two(monkeypatch):
    strips = np.concatenate([strip(i, 1500) + [0, 10 * i] for i in range(2)])
    found = test(strips, k_max=200, alpha=0.05)
    from tensorscope_nb.numerics.many import holm, q_values

    assert np.allclose(found["p_manifold_adjusted"], holm(found["p_manifold"].values))
    ratio = np.maximum(found["dim_ratio"], 1 / found["dim_ratio"])
    expected = (found["p_manifold_adjusted"] <= 0.05) & (ratio >= 2)
    assert np.array_equal(found["violates_manifold"], expected) and 0 < expected.sum() < (ratio >= 2).sum()
    monkeypatch.setattr("tensorscope_nb.recipes.fiber_bundle.LEAST_RATIO", 4.0)
    stricter = test(strips, k_max=200, alpha=0.05)["violates_manifold"]
    assert np.array_equal(stricter, expected & (ratio >= 4)) and 0 < stricter.sum() < expected.sum()
    monkeypatch.undo()
    assert float(found["rate_manifold"]) == float(expected.mean())
    by_bh = test(strips, k_max=200, alpha=0.05, correction="bh")
    assert np.allclose(by_bh["p_fiber_adjusted"], q_values(found["p_fiber"].values))
    assert by_bh["violates_manifold"].sum() > found["violates_manifold"].sum()


def test_a_fiber_bundle_is_rejected_where_a_manifold_is_and_the_increase_is_twofold():
    flags = Rule(0.01, "holm").flags(
        {
            "p_manifold": np.array([1e-9, 1e-9, 0.5, 1e-9, np.nan]),
            "p_fiber": np.array([1e-9, 1e-9, 1e-9, 0.5, np.nan]),
            "dim_ratio": np.array([3.0, 0.3, 3.0, 0.3, np.nan]),
            "increase_ratio": np.array([3.0, 1.9, 3.0, 3.0, np.nan]),
        }
    )
    assert flags["violates_manifold"].tolist() == [True, True, False, True, False]
    assert flags["violates_fiber"].tolist() == [True, False, False, False, False]
    assert np.allclose(flags["p_manifold_adjusted"][[0, 2]], [4e-9, 0.5]) and np.isnan(flags["p_fiber_adjusted"][4])


def test_tied_distances_in_a_row_leave_every_number_finite():
    r = np.sort(np.random.default_rng(0).uniform(size=(1, 100)) ** 0.2)
    r[:, :6] = r[:, [0]]
    found = local_tests(r, Window(1, 100), 1e-15)
    assert found["n_ties"] == 5 and 0 < found["p_manifold"][0] < 1e-6 and all(np.isfinite(found[name]).all() for name in found)
    r[:, :12] = r[:, [0]]
    assert np.isnan(local_tests(r, Window(1, 100), 1e-15)["p_manifold"]).all()


def test_density_is_the_share_of_flagged_neighbours():
    points = np.concatenate([strip(0, 1500), ball(500, 2) + 20])
    found = test(points, k_max=200, alpha=0.05)
    flagged = found["violates_manifold"].values
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    near = np.argsort(distances, 1)[:, 1:201]
    assert np.allclose(found["density"], flagged[near].mean(1)) and 0 < float(found["density"].mean()) < 1
    some = test(points, k_max=200, rows=np.arange(1400))
    assert some["density"].isnull().any() and "density is NaN" in json.loads(some.attrs["tensorscope"])["notes"][0]


def test_the_surrogate_is_gaussian_with_mean_and_covariance_of_the_points():
    points = torch.as_tensor(ball(4000, 4) * [1, 2, 3, 0.1] + [5, 0, 0, 0])
    drawn = gaussian_like(points, 0)
    assert torch.allclose(drawn.mean(0), points.mean(0), atol=0.1) and torch.allclose(drawn.T.cov(), points.T.cov(), atol=0.1)
    assert stats.kstest((drawn[:, 0] - 5) / drawn[:, 0].std(), "norm").pvalue > 0.01
    assert torch.equal(drawn, gaussian_like(points, 0)) and not torch.equal(drawn, gaussian_like(points, 1))
    few = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert np.linalg.matrix_rank((gaussian_like(few, 0) - few.mean(0)).numpy()) == 4


def test_rates_stand_beside_those_of_the_surrogate():
    centres = 10 * np.random.default_rng(0).normal(size=(30, 3))
    points = np.concatenate([ball(35, 3, i) + centre for i, centre in enumerate(centres)])
    found = test(points, surrogate=True)
    assert float(found["raw_rate_fiber"]) > 0.5 and float(found["surrogate_raw_rate_fiber"]) < 0.05
    again = test(points, surrogate=True, seed=1)
    assert np.array_equal(found["p_manifold"], again["p_manifold"])
    drawn = [test(gaussian_like(torch.as_tensor(points), seed), alpha=1e-3) for seed in (0, 1)]
    for one, like in zip((found, again), drawn, strict=True):
        for name in ("rate_manifold", "rate_fiber", "raw_rate_manifold", "raw_rate_fiber"):
            assert float(one[f"surrogate_{name}"]) == float(like[name])
    assert "surrogate_rate_manifold" not in test(ball(100, 3))


def test_memory_bounds_the_blocks_and_changes_nothing():
    points = ball(400, 6)
    whole = test(points)
    with ts.options(memory=50_000):
        found = test(points)
    assert all(np.allclose(found[name], whole[name], rtol=1e-9, equal_nan=True) for name in ("dim", "p_manifold", "density"))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (ball(40, 3), {}, "there are 40 different points and the tests look at 50 neighbours of each: pass a k_max below 40"),
        (ball(30, 3), {}, "they need at least 32"),
        (np.ones((100, 3)), {}, "there are 1 different points"),
        (ball(100, 3), {"k_max": 20}, "k_min=1 and k_max=20 leave 19 spacings: the tests need at least 30"),
        (ball(100, 3), {"k_min": 0}, "k_min is 0: give the number of a neighbour"),
        (ball(100, 3), {"k_max": 60.5}, "k_max is 60.5"),
        (ball(100, 3), {"alpha": 0}, "alpha is 0: give the level"),
        (ball(100, 3), {"alpha": "small"}, "alpha is 'small'"),
        (ball(100, 3), {"correction": "bonferroni"}, "correction is 'bonferroni': choose 'holm' or 'bh'"),
        (ball(100, 3), {"correction": ["holm"]}, r"correction is \['holm'\]: choose 'holm' or 'bh'"),
        (ball(100, 3), {"reach": -1.0}, "reach is -1.0: give a distance above 0"),
        (ball(100, 3), {"rows": [0, 100]}, "rows has 100: there are 100 points, numbered from 0"),
        (ball(100, 3), {"rows": []}, "give whole numbers, at least one"),
        (ball(100, 3), {"rows": [0.5]}, "give whole numbers, at least one"),
        (np.where(np.arange(300).reshape(100, 3) == 40, np.nan, 1.0), {}, "1 of 100 points have coordinates that are no finite numbers, the first is number 13"),
        (np.ones(5), {}, r"points has shape \(5,\)"),
        (np.ones((5, 3), dtype=complex), {}, "give real numbers"),
        ([["a", "b"]], {}, "no array of numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_tested_is_said_in_one_line(points, options, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        test(points, **options)
    assert "\n" not in str(caught.value)


def gaussian(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


SMOOTH = {
    "ball": lambda n: ball(n, 3), "ball of 50": lambda n: ball(n, 50), "sphere": lambda n: sphere(n, 2, 0),
    "sphere of 10": lambda n: sphere(n, 10, 0), "Gaussian of 50": lambda n: gaussian(n, 50, 0),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cloud", SMOOTH)
def test_the_sizes_on_smooth_manifolds_are_what_the_docstring_says(cloud):
    """Of points at the edge too, and of tests that share distances."""
    points = SMOOTH[cloud](5000).astype(np.float32)
    for window, (most, rare) in {(1, 50): (0.065, 0.004), (10, 100): (0.075, 0.006)}.items():
        found = test(points, k_min=window[0], k_max=window[1])
        for name in ("p_manifold", "p_fiber"):
            assert float((found[name] <= 0.05).mean()) < most and float((found[name] <= 0.001).mean()) < rare, (window, name)
        assert not found["violates_manifold"].any()
    if cloud == "Gaussian of 50":
        wide = test(points, k_min=10, k_max=400)
        assert float((wide["p_manifold"] <= 0.05).mean()) > 0.2, "the caveat about wide windows can go"


def test_a_copy_but_for_rounding_decides_alone_unless_it_is_left_out():
    points = ball(800, 6)
    points = np.concatenate([points, points[:20] + 1e-9 * np.random.default_rng(1).normal(size=(20, 6))])
    flagged = test(points)["violates_fiber"].values
    assert flagged[:20].all() and flagged[800:].all() and not flagged[20:800].any()
    assert not test(points, k_min=2)["violates_manifold"].any()
