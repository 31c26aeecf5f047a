import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from tensorscope_nb.numerics.many import holm, q_values


@pytest.mark.parametrize(
    "p, q",
    [([0.5, 0.03, 0.001, 0.02], [0.5, 0.04, 0.004, 0.04]), ([0.001, 0.02, 0.03, 0.5], [0.004, 0.04, 0.04, 0.5])],
)
def test_worked_examples(p, q):
    assert np.allclose(q_values(np.array(p)), q)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 3))
def test_step_up_of_the_definition_and_of_scipy(p, unknown):
    """q of a p is the least over thresholds t ≥ p of (number of tests) t / (number of p ≤ t); NaN is no test."""
    p = np.array(p)
    expected = [min(len(p) * t / (p <= t).sum() for t in p[p >= each]) for each in p]
    q = q_values(np.concatenate([np.full(unknown, np.nan), p]))
    assert np.isnan(q[:unknown]).all()
    assert np.allclose(q[unknown:], np.minimum(expected, 1)) and np.allclose(q[unknown:], false_discovery_control(p))


def test_all_tests_of_a_table_are_one_family():
    p = np.array([[0.01, 0.04], [0.03, np.nan]])
    assert np.allclose(q_values(p), [[0.03, 0.04], [0.04, np.nan]], equal_nan=True)
    assert np.isnan(q_values(np.full(3, np.nan))).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 3))
def test_holm_is_the_step_down_of_its_definition(p, unknown):
    """The smallest p is multiplied by all tests, the next by one less, …, and none is below one before it; NaN is no test."""
    running, expected = 0.0, {}
    for i, j in enumerate(np.argsort(p, kind="stable")):
        running = max(running, (len(p) - i) * p[j])
        expected[j] = min(running, 1)
    found = holm(np.concatenate([np.full(unknown, np.nan), p]))
    assert np.isnan(found[:unknown]).all() and np.allclose(found[unknown:], [expected[j] for j in range(len(p))])


def test_holm_by_hand():
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).shape == (0,)
