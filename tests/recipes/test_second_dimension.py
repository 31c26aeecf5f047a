"""Local dimensions of clouds as another library finds them, with neighbours of its own."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import second_geometry
from second_geometry import FOLDER, K, clouds

import tensorscope_nb as ts


def by_other():
    if not (FOLDER / "skdim").is_dir() and importlib.util.find_spec("skdim") is None:
        pytest.skip(f"scikit-dimension is not installed: make test puts it into {FOLDER}")
    done = subprocess.run(
        [sys.executable, second_geometry.__file__],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_another_library_finds_the_same_dimension_around_each_point():
    """Its maximum likelihood is ours; its count of local principal components agrees where the cloud is flat."""
    others = by_other()
    for name, points in clouds().items():
        ours = ts.recipes.fiber_bundle_test(points, k_min=1, k_max=K, surrogate=False, progress=False)["dim"].values
        assert np.allclose(ours, others[name]["mle"], rtol=1e-9), name
        if name in ("plane in 20", "sphere"):
            assert abs(np.median(ours) - np.median(others[name]["lpca"])) < 0.2, name
