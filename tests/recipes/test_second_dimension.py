"""Local dimensions of clouds as another library finds them, with neighbours of its own."""

import numpy as np
import pytest
import second_geometry
from other_libraries import found_by
from second_geometry import K, clouds

import tensorscope_nb as ts


def by_other():
    return found_by(second_geometry, {"scikit-dimension": "skdim"})


@pytest.mark.slow
def test_another_library_finds_the_same_dimension_around_each_point():
    """Its maximum likelihood is ours; its count of local principal components agrees where the cloud is flat."""
    others = by_other()
    for name, points in clouds().items():
        ours = ts.recipes.fiber_bundle_test(points, k_min=1, k_max=K, surrogate=False, progress=False)["dim"].values
        assert np.allclose(ours, others[name]["mle"], rtol=1e-9), name
        if name in ("plane in 20", "sphere"):
            assert abs(np.median(ours) - np.median(others[name]["lpca"])) < 0.2, name
