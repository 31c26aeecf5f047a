import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh

from tensorscope_nb.numerics import krylov, lanczos, missed
from tensorscope_nb.numerics.krylov import Basis
from tensorscope_nb.numerics.lanczos import Lanczos, basis_for
from tensorscope_nb.numerics.missed import Check

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
WHICH = ("LA", "SA", "LM", "BE")


def symmetric(values, seed=0):
    """A dense matrix with these eigenvalues."""
    n = len(values)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    a = (q * np.asarray(values)) @ q.T
    return (a + a.T) / 2


def implicit(values, seed=0, dtype=torch.float32):
    """The product with diag(values) in a basis that three random reflections turn."""
    generator = torch.Generator().manual_seed(seed)
    normals = [torch.randn(len(values), generator=generator, dtype=dtype) for _ in range(3)]
    normals = [u / u.norm() for u in normals]
    diagonal = torch.as_tensor(values).to(dtype)

    def multiply(v):
        for u in normals:
            v = v - 2 * (u @ v) * u
        v = diagonal * v
        for u in reversed(normals):
            v = v - 2 * (u @ v) * u
        return v

    return multiply


def solver(a, k, *, basis=None, dtype=torch.float64, seed=0, most=1000, **options):
    """Of a dense matrix, of the diagonal of one, or of a product with its size."""
    if isinstance(a, tuple):
        multiply, n = a
    else:
        matrix, n = torch.as_tensor(np.asarray(a, dtype=np.float64)).to(dtype), len(a)
        multiply = matrix.mul if matrix.ndim == 1 else matrix.mv
    return Lanczos(multiply, n, k, basis=basis or min(n, k + 8), most_products=most, seed=seed, dtype=dtype, **options)


def solved(a, k, **options):
    found = solver(a, k, **options)
    for _ in found.steps():
        pass
    return found


def extreme(values, k, which):
    values = np.sort(values)[::-1]
    if which == "LM":
        return np.sort(values[np.argsort(-abs(values), kind="stable")[:k]])[::-1]
    top = {"LA": k, "SA": 0, "BE": k - k // 2}[which]
    return np.concatenate([values[:top], values[len(values) - (k - top) :]])


def true_residuals(a, found):
    a = np.diag(a) if np.ndim(a) == 1 else a
    vectors, values = found.vectors().double().numpy(), found.pairs().values
    return np.linalg.norm(vectors @ a - values[:, None] * vectors, axis=1)


def test_doctests():
    for module in (krylov, lanczos, missed):
        assert doctest.testmod(module).failed == 0


@BOTH
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k, basis", [(1, 9), (5, 13), (5, 60), (10, 18), (10, 150), (7, 200)])
def test_random_matrices_agree_with_a_dense_solver(which, k, basis, dtype):
    a = symmetric(np.random.default_rng(1).normal(size=200))
    found = solved(a, k, which=which, basis=basis, dtype=dtype)
    pairs = found.pairs()
    assert found.finished and pairs.converged.all() and len(pairs.values) == k
    assert (np.diff(pairs.values) <= 0).all()
    truth = extreme(np.linalg.eigvalsh(a), k, which)
    assert np.abs(pairs.values - truth).max() <= 1e-4 * abs(truth).max()
    assert (pairs.residuals <= 1e-4 * np.abs(np.linalg.eigvalsh(a)).max() * (1 + 1e-6)).all()


@BOTH
@pytest.mark.parametrize("basis", [18, 30, 120])
@pytest.mark.parametrize("tolerance", [None, 1e-4, 1e-2])
def test_no_true_residual_is_much_larger_than_the_one_reported(basis, tolerance, dtype):
    tolerance = tolerance or krylov.ROUNDING * torch.finfo(dtype).eps
    rng = np.random.default_rng(0)
    for seed, values in enumerate((rng.normal(size=300), 1 / np.arange(1, 301), rng.exponential(size=300) ** 3)):
        a = symmetric(values, seed).astype(np.float32).astype(np.float64)
        found = solved(a, 10, basis=basis, tolerance=tolerance, dtype=dtype)
        assert found.finished
        assert (true_residuals(a, found) <= 1.5 * found.pairs().residuals).all()
        partial = solved(a, 10, basis=basis, dtype=dtype, most=40)
        assert (true_residuals(a, partial) <= 1.5 * partial.pairs().residuals).all()
        vectors = found.vectors().double()
        assert torch.allclose(vectors @ vectors.T, torch.eye(10).double(), atol=20 * torch.finfo(dtype).eps)


@BOTH
@pytest.mark.parametrize(
    "values, k, truth",
    [
        ([3, 3, 1, 0], 2, [3, 3]),
        ([3, 3, 1, 0], 3, [3, 3, 1]),
        ([3, 3, 2.9, *np.linspace(0, 2.8, 497)], 2, [3, 3]),
        ([3, 3, *np.linspace(0, 2.9, 498)], 2, [3, 3]),
        ([3, 3, 3, *np.linspace(0, 2.5, 497)], 3, [3, 3, 3]),
        ([3, 3, 3, *np.linspace(0, 2.5, 497)], 4, [3, 3, 3, 2.5]),
        ([5, 4, 3, 2, 2, 2, 1, *np.linspace(0, 0.5, 493)], 6, [5, 4, 3, 2, 2, 2]),
        ([2, 1.999, 1.999, 1.998, *np.linspace(-1, 1, 496)], 4, [2, 1.999, 1.999, 1.998]),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_a_repeated_eigenvalue_is_found_as_often_as_it_is_there(values, k, truth, dtype, wide):
    for seed in range(10):
        found = solved(np.array(values), k, seed=seed, dtype=dtype, basis=min(len(values), 100) if wide else None)
        assert found.finished and found.pairs().converged.all()
        assert np.abs(found.pairs().values - truth).max() <= 1e-4 * max(truth), seed


def test_repeated_at_both_ends_and_by_magnitude():
    values = np.array([3, 3, -2.5, -2.5, *np.linspace(-1, 1, 300)])
    for seed in range(10):
        assert np.allclose(solved(values, 4, which="BE", seed=seed).pairs().values, [3, 3, -2.5, -2.5], atol=3e-4)
        assert np.allclose(solved(values, 3, which="LM", seed=seed).pairs().values, [3, 3, -2.5], atol=3e-4)
        assert np.allclose(solved(values, 2, which="SA", seed=seed).pairs().values, [-2.5, -2.5], atol=3e-4)


def test_a_copy_that_rounding_is_just_about_to_show_is_waited_for():
    """When the wanted pairs converge its share of what is left over is large, and of the fresh vector, orthogonal to that, small."""
    values = np.array([*1 / np.arange(1, 11), 0.1, *1 / np.arange(11, 40), *0.003 * np.random.default_rng(0).normal(size=3000)])
    for seed in range(16):
        found = solved(values, 20, basis=60, seed=seed)
        assert found.finished and np.allclose(found.pairs().values, values[:20], atol=1e-4)


@BOTH
@pytest.mark.parametrize("basis", [20, 60])
def test_an_eigenvalue_of_high_multiplicity(basis, dtype):
    values = np.array([1.0] * 14 + [*np.linspace(-0.5, 0.6, 386)])
    found = solved(values, 12, basis=basis, dtype=dtype)
    assert found.finished and np.allclose(found.pairs().values, 1, atol=1e-4)
    assert found.n_products < 340  # 600 if not that of several chains is taken on which the open pairs lack most
    assert (true_residuals(values, found) <= 1.5 * found.pairs().residuals).all()


@BOTH
@pytest.mark.parametrize("basis", [20, 40, 320])
def test_no_eigenvalue_comes_back_as_a_copy(basis, dtype):
    """Decaying values, 300 products: without full orthogonalisation each large value comes several times."""
    values = 0.8 ** np.arange(400.0)
    found = solver(symmetric(values), 12, basis=basis, dtype=dtype, tolerance=krylov.ROUNDING * torch.finfo(dtype).eps)
    found.tolerance = 0.0  # never done
    for _ in zip(range(300), found.steps()):
        pass
    assert found.n_products == 300
    assert np.abs(found.pairs().values - values[:12]).max() <= 100 * torch.finfo(dtype).eps


def hessian(n, outliers=40, bulk=0.003, seed=0):
    """Values 1/i, a few negative ones, and a bulk about zero."""
    values = bulk * np.random.default_rng(seed).standard_normal(n)
    values[:outliers] = 1 / np.arange(1, outliers + 1)
    values[outliers : outliers + 10] = -0.05 / np.arange(1, 11)
    return values


@pytest.mark.parametrize("basis", [28, 40, 60, 100])
def test_twenty_of_a_spectrum_like_that_of_a_network_take_at_most_eighty_products(basis):
    for bulk in (0.003, 0.005):
        values = hessian(200_000, bulk=bulk)
        found = solved((implicit(values), len(values)), 20, basis=basis, dtype=torch.float32)
        assert found.finished and found.n_products <= 80
        assert np.allclose(found.pairs().values, 1 / np.arange(1, 21), atol=1e-4)
        assert found.lowest.value < -0.04


@BOTH
def test_rank_one_and_zero(dtype):
    u = np.random.default_rng(0).normal(size=50)
    found = solved(np.outer(u, u), 4, dtype=dtype)
    assert found.finished and found.pairs().converged.all()
    top = u @ u
    assert np.allclose(found.pairs().values, [top, 0, 0, 0], atol=10 * torch.finfo(dtype).eps * top)
    nothing = solved(np.zeros(50), 4, dtype=dtype)
    assert nothing.finished and nothing.pairs().converged.all()
    assert (nothing.pairs().values == 0).all() and (nothing.pairs().residuals == 0).all()


@BOTH
def test_the_identity_the_whole_space_and_one_dimension(dtype):
    for which in WHICH:
        assert np.allclose(solved(np.ones(40), 6, which=which, dtype=dtype).pairs().values, 1)
        values = np.random.default_rng(0).normal(size=12)
        whole = solved(symmetric(values), 12, which=which, dtype=dtype)
        assert whole.finished and whole.pairs().converged.all() and whole.n_products == 12
        assert np.allclose(whole.pairs().values, np.sort(values)[::-1], atol=1e-5)
        one = solved(np.array([-2.0]), 1, which=which, dtype=dtype)
        assert one.finished and one.n_products == 1 and np.allclose(one.pairs().values, -2)


def test_pairs_that_converge_when_one_vector_of_the_whole_space_is_left():
    for n in range(2, 12):
        values = np.random.default_rng(n).normal(size=n)
        for k in range(1, n):
            found = solved(symmetric(values), k, tolerance=0.2)
            assert found.finished and found.n_products <= n
            assert (true_residuals(symmetric(values), found) <= 0.2 * abs(values).max()).all()


def test_agrees_with_arpack():
    values = hessian(3000)
    multiply = implicit(values, dtype=torch.float64)
    operator = LinearOperator((3000, 3000), matvec=lambda v: multiply(torch.as_tensor(v.ravel())).numpy(), dtype=np.float64)
    for which in WHICH:
        peer = np.sort(eigsh(operator, 8, which=which, tol=1e-8, return_eigenvectors=False))[::-1]
        found = solved((multiply, 3000), 8, which=which, tolerance=1e-8)
        assert np.allclose(found.pairs().values, peer, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    which=st.sampled_from(WHICH[:2] + WHICH[3:]),
    shift=st.floats(-10, 10),
    exponent=st.integers(-12, 12),
    sign=st.sampled_from([1, -1]),
)
def test_shift_and_scale_go_through(seed, which, shift, exponent, sign):
    a = symmetric(np.random.default_rng(seed).normal(size=40), seed)
    scale = sign * 10.0**exponent
    before = solved(a, 4, which=which, seed=seed, tolerance=1e-10).pairs().values
    after = solved(scale * (a + shift * np.eye(40)), 4, which=which, seed=seed, tolerance=1e-11).pairs()
    if sign < 0:
        mirrored = {"LA": "SA", "SA": "LA", "BE": "BE"}[which]
        before = solved(a, 4, which=mirrored, seed=seed, tolerance=1e-10).pairs().values
    assert after.converged.all()
    assert np.allclose(np.sort(after.values), np.sort(scale * (before + shift)), rtol=0, atol=1e-8 * abs(scale) * 15)


@BOTH
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_numbers_whose_squares_do_not_fit(scale, dtype):
    values = scale * np.array([3, 3, 2, 1, *np.linspace(-1, 1, 96)])
    assert np.allclose(solved(values, 3, dtype=dtype).pairs().values / scale, [3, 3, 2], atol=1e-3)


def test_a_vector_in_several_blocks(monkeypatch):
    a = symmetric(np.random.default_rng(0).normal(size=100))
    once = solved(a, 5)
    monkeypatch.setattr(krylov, "BLOCK", 7)
    cut = solved(a, 5)
    assert cut.n_products == once.n_products and np.allclose(cut.pairs().values, once.pairs().values)
    assert (true_residuals(a, cut) <= 1.5 * cut.pairs().residuals).all()


def test_long_vectors_are_as_orthonormal_as_short_ones():
    diagonal = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0))
    found = solved((diagonal.mul, len(diagonal)), 2, basis=10, dtype=torch.float32, most=12)
    vectors = found.vectors().double()
    assert torch.allclose(vectors @ vectors.T, torch.eye(2).double(), atol=1e-6)
    assert np.allclose(((vectors * diagonal) @ vectors.T).diagonal(), found.pairs().values, rtol=1e-6)


def test_deterministic_by_seed_and_no_random_state_of_the_user_moves():
    a = symmetric(np.random.default_rng(0).normal(size=150))
    state = torch.get_rng_state()
    runs = [solved(a, 5, seed=3, dtype=torch.float32) for _ in range(2)]
    assert torch.equal(state, torch.get_rng_state())
    assert (runs[0].pairs().values == runs[1].pairs().values).all()
    assert torch.equal(runs[0].vectors(), runs[1].vectors())
    other = solved(a, 5, seed=4, tolerance=1e-9)
    assert np.allclose(other.pairs().values, solved(a, 5, seed=5, tolerance=1e-9).pairs().values, atol=1e-10)


def test_what_is_there_can_be_read_at_any_time_and_bounds_are_certain():
    values = np.sort(np.random.default_rng(0).normal(size=300))[::-1]
    a = symmetric(values)
    running = solver(a, 6)
    empty = running.pairs()
    assert len(empty.values) == len(empty.converged) == 0 and running.vectors().shape == (0, 300)
    for i, _ in enumerate(running.steps()):
        pairs = running.pairs()
        assert running.n_products == i + 1 and len(pairs.values) == min(i + 1, 6) and not np.isnan(pairs.values).any()
        assert (pairs.values <= values[: len(pairs.values)] + 1e-12).all()  # Cauchy's interlacing
        assert values[-1] <= running.lowest.value + 1e-12 and running.highest.value <= values[0] + 1e-12
        assert (pairs.converged == (pairs.residuals <= 1e-4 * max(running.highest.value, -running.lowest.value))).all()
        if i % 10 == 9:  # reading the vectors costs nothing of what is known
            assert (true_residuals(a, running) <= 1.5 * pairs.residuals).all()
            assert np.allclose(running.pairs().values, pairs.values)
    assert running.finished and abs(running.n_products - solved(a, 6).n_products) <= 2
    assert running.lowest.value < -2  # seen although only the top was asked for


def test_a_failing_product_leaves_the_best_so_far_and_can_be_repeated():
    a = torch.as_tensor(symmetric(np.random.default_rng(0).normal(size=100)))
    left = [30]

    def multiply(v):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return a @ v

    running = solver((multiply, 100), 4)
    with pytest.raises(KeyboardInterrupt):
        for _ in running.steps():
            pass
    assert running.n_products == 29 and not running.finished and len(running.pairs().values) == 4
    assert (true_residuals(a.numpy(), running) <= 1.5 * running.pairs().residuals).all()
    for _ in running.steps():
        pass
    assert running.finished and np.allclose(running.pairs().values, solved(a.numpy(), 4).pairs().values, atol=1e-6)


def test_products_are_spent_no_further_than_asked():
    a = symmetric(np.random.default_rng(0).normal(size=300))
    found = solved(a, 20, most=25)
    assert found.n_products == 25 and not found.finished
    assert not found.pairs().converged.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_product_that_is_not_finite_is_an_error(bad):
    calls = []

    def multiply(v):
        calls.append(0)
        return v * bad if len(calls) == 3 else v * torch.arange(50.0)

    running = solver((multiply, 50), 2, dtype=torch.float32)
    with pytest.raises(ValueError, match="not finite"):
        for _ in running.steps():
            pass
    assert len(running.pairs().values) == 2 and np.isfinite(running.pairs().values).all()


def test_a_product_may_be_its_argument_or_need_a_gradient():
    weight = torch.ones(30, requires_grad=True)
    same = solved((lambda v: v, 30), 2)
    assert np.allclose(same.pairs().values, 1) and (true_residuals(np.ones(30), same) < 1e-12).all()
    assert np.allclose(same.vectors().norm(dim=1), 1)
    assert np.allclose(solved((lambda v: (weight * v).double(), 30), 2).pairs().values, 1)


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match="k is 5, the operator has size 3"):
        solver(np.ones(3), 5)
    with pytest.raises(ValueError, match="basis is 9: 4 pairs of an operator of size 50 need 12 vectors"):
        solver(np.ones(50), 4, basis=9)
    with pytest.raises(ValueError, match=r"tolerance is 1e-08: torch\.float32 resolves"):
        solver(np.ones(50), 4, tolerance=1e-8, dtype=torch.float32)
    with pytest.raises(ValueError, match="give LA, SA, LM or BE"):
        solver(np.ones(50), 4, which="LR")
    with pytest.raises(ValueError, match=r"shape \(1, 50\)"):
        solved((lambda v: v[None], 50), 4)


def test_the_basis_that_memory_allows():
    assert basis_for(100, 20, 1 << 30, 4) == 100
    assert basis_for(1000, 20, 28 * 4000, 4) == 28
    assert basis_for(5, 5, 100, 4) == 5
    with pytest.raises(
        ValueError, match=r"basis of 28 vectors, 0.0001 GiB.*which holds k=19: use ts.options\(memory=112000\).*modules="
    ):
        basis_for(1000, 20, 28 * 4000 - 1, 4)
    with pytest.raises(ValueError, match=r"allows 3.7e-06 GiB: use"):
        basis_for(1000, 20, 4000, 4)
    with pytest.raises(ValueError, match="k is 20, the operator has size 10"):
        basis_for(10, 20, 4000, 4)


def test_an_operator_that_is_not_symmetric_is_an_error_and_one_that_is_nearly_so_has_no_better_residuals():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    symmetric, other = (a + a.T) / 2, (a - a.T) / 2
    for share, refused in ((0.0, False), (1e-3, False), (0.1, True), (1.0, True)):
        matrix = symmetric + share * other
        lanczos = Lanczos(lambda v, m=matrix: m @ v, 60, 3, basis=60, most_products=60, seed=0, dtype=torch.float64)
        if refused:
            with pytest.raises(ValueError, match="the operator is not symmetric"):
                list(lanczos.steps())
            assert lanczos.n_products <= 10
            continue
        list(lanczos.steps())
        assert lanczos.pairs().converged.all() == (share == 0)
        truth = torch.linalg.eigvalsh(symmetric).flip(0)[:3].numpy()
        assert (abs(lanczos.pairs().values - truth) <= 10 * lanczos.pairs().residuals).all()


@pytest.mark.parametrize("size, k, which, tolerance, kind", [(42, 9, "SA", 1e-4, "levels"), (35, 2, "LA", 1e-2, "rank three")])
def test_what_is_left_of_a_small_space_is_looked_at(size, k, which, tolerance, kind):
    """Missed eigenvectors may be vectors of the basis that wait, to which every random one is orthogonal."""
    missed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        levels = rng.choice([5.0, 3, 1, 0, -2, -4], size)
        values = levels if kind == "levels" else np.r_[3 * rng.standard_normal(3), np.zeros(size - 3)]
        q, _ = np.linalg.qr(rng.standard_normal((size, size)))
        a = torch.as_tensor(q * values @ q.T)
        lanczos = Lanczos(
            lambda v, a=a: a @ v,
            size,
            k,
            which=which,
            tolerance=tolerance,
            basis=size,
            most_products=500,
            seed=seed,
            dtype=a.dtype,
        )
        for _ in lanczos.steps():
            pass
        truth = np.sort(values)[::-1]
        truth = truth[:k] if which == "LA" else truth[-k:]
        missed += abs(lanczos.pairs().values - truth).max() > 2 * tolerance * abs(values).max()
    assert missed <= 1  # of 60, at a risk of 0.01 each


def test_a_direction_that_was_let_go_and_comes_back_is_no_asymmetry():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        q, _ = np.linalg.qr(rng.standard_normal((200, 200)))
        a = torch.as_tensor(q * rng.choice([5.0, 4, 3, 1, 0.5, 0, -2, -4], 200) @ q.T)
        lanczos = Lanczos(
            lambda v, a=a: a @ v, 200, 8, which="SA", tolerance=1e-2, basis=16, most_products=200, seed=seed, dtype=a.dtype
        )
        for _ in lanczos.steps():
            pass
        np.testing.assert_allclose(lanczos.pairs().values, -4, atol=0.1)


def test_an_end_that_is_excluded_does_not_overflow_while_the_other_is_waited_for():
    basis = Basis(50, 40, 0, torch.float64, "cpu")
    basis.add_random()
    check = Check(basis, np.array([1e12, 0.0]))
    diagonal = torch.linspace(-1, 1, 50, dtype=torch.float64)
    with np.errstate(all="raise"):
        for _ in range(30):
            i = basis.waiting[-1]
            basis.absorb(i, diagonal * basis.rows[i])
            check.follow(basis, i)
    assert check.excluded.tolist() == [True, False] and not check.passed
