import doctest

import numpy as np
import pytest
import torch
from scipy import stats

from tensorscope_nb.numerics import density
from tensorscope_nb.numerics.density import Density


def estimated(values, n_probes, m, *, seed=0, steps=None, dtype=torch.float64):
    diagonal = torch.as_tensor(np.asarray(values, dtype=np.float64)).to(dtype)
    found = Density(diagonal.mul, len(values), n_probes=n_probes, m=m, seed=seed, dtype=dtype)
    for _ in found.steps() if steps is None else zip(range(steps), found.steps()):
        pass
    return found


def semicircle(n):
    """The quantiles of the density 2 √(1 − x²) / π."""
    return stats.semicircular.ppf((np.arange(n) + 0.5) / n)


def area(x, y):
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def test_doctests():
    assert doctest.testmod(density).failed == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_curve_of_a_semicircle(dtype):
    found = estimated(semicircle(4000), 20, 60, dtype=dtype)
    assert found.finished and found.n_products == 20 * 60
    x, y, error = found.curve(width=0.08)
    assert abs(area(x, y) - 1) < 1e-3 and len(x) == density.GRID
    exact = np.array([area(t := np.linspace(-1, 1, 4001), stats.semicircular.pdf(t) * stats.norm.pdf(at, t, 0.08)) for at in x])
    assert np.abs(y - exact).max() < 0.06 and (np.abs(y - exact) < 4 * error + 0.02).all()


def test_two_points_are_exact_after_two_products():
    values = np.repeat([1.0, -3.0], [300, 100])
    found = estimated(values, 200, 30)
    assert found.n_products == 400  # the products of each vector span an invariant subspace of dimension 2
    assert np.allclose(found.nodes, [[-3, 1]])
    share, error = found.mean(lambda x: x > 0)
    assert abs(share - 0.75) < 3 * error < 0.02
    x, y, _ = found.curve(width=0.1)
    assert abs(area(x[x > -1], y[x > -1]) - share) < 1e-4 and abs(area(x, y) - 1) < 1e-3


def test_moments_are_those_of_the_matrix():
    values = np.random.default_rng(0).exponential(size=300) - 0.3
    found = [estimated(values, 30, 5, seed=seed) for seed in range(10)]
    for power in (1, 2, 3, 9):  # a quadrature of 5 products is exact to degree 9 for each vector
        means, errors = np.array([each.mean(lambda x, power=power: x**power) for each in found]).T
        assert abs(means.mean() - (values**power).mean()) < 3 * np.sqrt((errors**2).sum()) / 10
    trace, error = found[0].trace()
    assert abs(trace - values.sum()) < 4 * error


def test_each_probe_is_exact_to_its_degree():
    values = np.random.default_rng(0).normal(size=50)
    found = estimated(values, 2, 6, seed=1)
    x = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (x / x.norm()).numpy()
    for power in range(12):
        assert np.isclose((found.nodes[0] ** power * found.weights[0]).sum(), x**2 @ values**power, rtol=1e-10, atol=1e-12)


def test_intervals_of_the_trace_hold_it():
    values = np.random.default_rng(3).exponential(size=40) ** 2
    held, times = 0, 300
    half = stats.t.ppf(0.975, 9)
    for seed in range(times):
        trace, error = estimated(values, 10, 2, seed=seed).trace()
        held += abs(trace - values.sum()) <= half * error
    assert held / times >= 0.9


def test_finished_probes_can_be_read_while_others_are_on_their_way():
    values = np.random.default_rng(0).normal(size=100)
    none = estimated(values, 3, 10, steps=9)
    with pytest.raises(ValueError, match="no probe is finished"):
        none.trace()
    one = estimated(values, 3, 10, steps=15)
    assert len(one.nodes) == 1 and not one.finished and one.n_products == 15
    assert np.isfinite(one.trace()[0]) and np.isnan(one.trace()[1]) and np.isnan(one.curve()[2]).all()
    for _ in one.steps():
        pass
    assert one.finished and np.array_equal(one.nodes, estimated(values, 3, 10).nodes)


def test_a_failing_product_leaves_the_finished_probes():
    diagonal, calls = torch.arange(50.0), []

    def multiply(v):
        calls.append(0)
        return v * float("nan") if len(calls) == 13 else v * diagonal

    found = Density(multiply, 50, n_probes=3, m=5, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        for _ in found.steps():
            pass
    assert len(found.nodes) == 2
    for _ in found.steps():
        pass
    assert found.finished


def test_one_value_alone_and_the_zero_operator():
    for value in (2.0, 0.0):
        found = estimated(np.full(20, value), 3, 5)
        assert found.n_products == 3 and np.allclose(found.nodes, value)
        x, y, _ = found.curve()
        assert abs(area(x, y) - 1) < 1e-3
    assert found.trace() == (0, 0)


def test_deterministic_by_seed_and_what_cannot_be_done_is_said():
    values, state = np.arange(30.0), torch.get_rng_state()
    assert np.array_equal(estimated(values, 2, 4, seed=5).nodes, estimated(values, 2, 4, seed=5).nodes)
    assert not np.allclose(estimated(values, 2, 4, seed=5).nodes, estimated(values, 2, 4, seed=6).nodes)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="n_probes is 0"):
        estimated(values, 0, 4)
    with pytest.raises(ValueError, match="width is 0"):
        estimated(values, 2, 4).curve(width=0)


def test_the_standard_error_is_of_a_sample_of_probes():
    diagonal = torch.linspace(0, 3, 30, dtype=torch.float64)
    density = Density(lambda v: diagonal * v, 30, n_probes=3, m=5, seed=0, dtype=torch.float64)
    for _ in density.steps():
        pass
    means = [float((nodes * weights).sum()) for nodes, weights in zip(density.nodes, density.weights, strict=True)]
    assert density.mean(lambda x: x)[1] == pytest.approx(np.std(means, ddof=1) / np.sqrt(3))
