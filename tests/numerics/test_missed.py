import numpy as np
import torch
from scipy import stats

from tensorscope_nb.numerics import missed
from tensorscope_nb.numerics.krylov import Basis
from tensorscope_nb.numerics.missed import Check

VALUES = torch.cat([torch.tensor([3.0, 3.0]), torch.linspace(-1, 2.5, 58)]).double()


def checked(seed, products=12, capacity=40):
    """A basis of one start vector, its check, and the eigenvector with eigenvalue 3 that the start vector cannot see."""
    basis = Basis(60, capacity, seed, torch.float64, "cpu")
    basis.add_random()
    a, b = basis.rows[0, :2].clone()
    hidden = torch.zeros(60, dtype=torch.float64)
    hidden[0], hidden[1] = -b, a
    for _ in range(products):
        i = basis.waiting[-1]
        basis.absorb(i, VALUES * basis.rows[i])
    return basis, Check(basis, np.array([3.0, 3.1])), hidden / hidden.norm()


def on(basis, check, products):
    for _ in range(products):
        i = basis.waiting[-1]
        if basis.absorb(i, VALUES * basis.rows[i]):
            check.follow(basis, i)


def test_the_shares_are_those_of_the_vector_that_was_missed():
    basis, check, hidden = checked(0)
    assert (basis.rows[:13] @ hidden).abs().max() < 1e-12
    share = float(basis.rows[13] @ hidden)
    for compress in (False, True):
        if compress:
            values, mix = basis.ritz()
            check.turn(basis, mix[:, 4:], [])
            basis.compress(mix[:, 4:], values[4:])
        on(basis, check, 6)
        truth = (basis.rows[: basis.used] @ hidden).numpy() / share
        assert np.allclose(check.shares[0, : basis.used], truth, atol=1e-8 * abs(truth).max())
    assert check.excluded.tolist() == [False, True]  # further out it would have shown by now


def test_what_is_there_is_passed_over_as_seldom_as_said(monkeypatch):
    monkeypatch.setattr(missed, "RISK", 0.2)
    times, over = 400, 0
    for seed in range(times):
        basis, check, _ = checked(seed, products=5, capacity=60)
        check.limits[1] = 3.0
        on(basis, check, 25)  # enough for the sum of squares to come as near to 1 / δ² as it can
        over += check.passed
    low, high = stats.binom.ppf([0.001, 0.999], times, 0.2)
    assert low <= over <= high
