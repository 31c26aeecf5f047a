import numpy as np
import pytest

from tensorscope_nb.numerics.depth import over_depth


@pytest.mark.parametrize("n_layers", [1, 2, 3, 7])
@pytest.mark.parametrize("n_depths", [1, 2, 3, 5, 12])
def test_mass_is_kept_and_an_even_model_is_even(n_layers, n_depths):
    masses = np.random.default_rng(n_layers).random((4, n_layers))
    assert np.allclose(over_depth(masses, n_depths).sum(-1), masses.sum(-1))
    assert np.allclose(over_depth(np.full(n_layers, 1 / n_layers), n_depths), 1 / n_depths)


def test_layers_fall_into_the_bins_that_they_overlap():
    assert np.allclose(over_depth([3, 6], 3), [2, 3, 4])  # the middle third takes a third of each half
    assert np.allclose(over_depth([6, 2, 4], 2), [7, 5])  # the middle layer lies half in each bin
    assert np.allclose(over_depth([1, 2], 4), [0.5, 0.5, 1, 1])
    assert np.array_equal(over_depth([1, 2, 3], 3), [1, 2, 3])


def test_it_is_the_integral_of_the_density():
    masses, fine = np.array([1.0, 5, 2, 0, 7]), 60
    density = np.repeat(masses / 12, 12)  # 60 slices, a multiple of both
    assert np.allclose(over_depth(masses, 4), density.reshape(4, fine // 4).sum(1))
