import weakref

import numpy as np
import pytest
import torch

from tensorscope_nb.numerics import frames
from tensorscope_nb.numerics.frames import Frame, random_score, welch_bound


def gaussian(n, m, seed=0):
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def simplex(m):
    """m + 1 vectors in m dimensions, every pair at the same angle: an equiangular tight frame."""
    centred = torch.eye(m + 1, dtype=torch.float64) - 1 / (m + 1)
    return centred @ torch.linalg.svd(centred)[2][:m].T


def dense(rows):
    """Over all pairs."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    cos2 = (unit @ unit.T) ** 2
    off = ~torch.eye(len(rows), dtype=torch.bool)
    return float(cos2[off].mean()), (rows.norm(dim=1) ** 2 / ((unit @ rows.T) ** 2).sum(1)).numpy()


@pytest.mark.parametrize("blocks", [1, 8192])
@pytest.mark.parametrize(("n", "m"), [(50, 8), (8, 8), (5, 30), (2, 3)])
def test_overlap_and_dimensionality_are_those_of_all_pairs(n, m, blocks, monkeypatch):
    monkeypatch.setattr(frames, "ROWS", blocks)
    rows = gaussian(n, m) * torch.arange(1, n + 1)[:, None]
    found, (overlap, dimensionality) = Frame.of(rows), dense(rows)
    assert found.mean_square_overlap == pytest.approx(overlap, rel=1e-10) and found.score == pytest.approx(m * overlap, rel=1e-10)
    assert np.allclose(found.dimensionality, dimensionality, rtol=1e-10)


def test_orthogonal_directions_do_not_overlap_and_have_a_dimension_each():
    found = Frame.of(3 * torch.linalg.qr(gaussian(20, 20)).Q[:12])
    assert found.score < 1e-12 and np.allclose(found.dimensionality, 1)


@pytest.mark.parametrize("m", [2, 5, 40])
def test_an_equiangular_tight_frame_is_at_welchs_bound(m):
    found = Frame.of(simplex(m))
    assert found.mean_square_overlap == pytest.approx(welch_bound(m + 1, m), rel=1e-10)
    assert welch_bound(m + 1, m) == pytest.approx(1 / m**2) and welch_bound(m, m) == 0
    assert found.score == pytest.approx(1 / m)  # (n − m) / (n − 1) with n = m + 1


def test_random_directions_are_at_or_above_welchs_bound():
    for n, m in ((3, 2), (30, 5), (200, 20)):
        assert Frame.of(gaussian(n, m)).mean_square_overlap >= welch_bound(n, m)


@pytest.mark.parametrize(("n", "m"), [(6, 3), (40, 8), (100, 60), (12, 200)])
def test_the_score_of_random_directions_has_the_mean_deviation_and_interval_that_are_said(n, m):
    scores = np.array([Frame.of(gaussian(n, m, seed)).score for seed in range(1500)])
    deviation, low, high = random_score(n, m)
    assert abs(scores.mean() - 1) < 4 * deviation / np.sqrt(1500)
    assert scores.std() == pytest.approx(deviation, rel=0.12)
    assert abs(((scores >= low) & (scores <= high)).mean() - 0.95) < 0.025


def test_pentagon_and_antipodal_pairs_have_their_known_dimensionalities():
    angles = 2 * np.pi * np.arange(5) / 5
    pentagon = torch.as_tensor(np.stack([np.cos(angles), np.sin(angles)], 1))
    assert np.allclose(Frame.of(pentagon).dimensionality, 0.4)
    pairs = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert np.allclose(Frame.of(pairs).dimensionality, 0.5) and Frame.of(pairs).score == pytest.approx(2 / 3)


def test_repeated_directions_cluster():
    rows = gaussian(40, 10)
    assert Frame.of(rows[:1].repeat(7, 1)).score == pytest.approx(10)
    assert Frame.of(torch.cat([rows, rows])).score > Frame.of(rows).score
    assert np.allclose(Frame.of(torch.cat([rows, rows])).dimensionality, np.tile(Frame.of(rows).dimensionality / 2, 2))


def test_rotation_and_scale_change_nothing():
    rows = gaussian(40, 10)
    turned = 7 * rows @ torch.linalg.qr(gaussian(10, 10, 1)).Q
    one, other = Frame.of(rows), Frame.of(turned)
    assert one.score == pytest.approx(other.score) and np.allclose(one.dimensionality, other.dimensionality)
    assert np.allclose(one.relative_norms(), other.relative_norms()) and np.median(one.relative_norms()) == pytest.approx(1)
    scaled = Frame.of(rows * torch.rand(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert scaled.score == pytest.approx(one.score) and not np.allclose(scaled.dimensionality, one.dimensionality)


def test_rows_of_zeros_are_left_out_and_counted():
    rows = gaussian(12, 5)
    with_zeros = torch.cat([rows[:3], torch.zeros(2, 5, dtype=torch.float64), rows[3:]])
    one, found = Frame.of(rows), Frame.of(with_zeros)
    assert found.n_zero == 2 and found.n == 12 and found.score == pytest.approx(one.score)
    kept = np.delete(found.dimensionality, [3, 4])
    assert np.isnan(found.dimensionality[[3, 4]]).all() and np.allclose(kept, one.dimensionality)
    none = Frame.of(torch.zeros(4, 5))
    assert none.n == 0 and np.isnan(none.score) and np.isnan(none.dimensionality).all() and np.isnan(none.relative_norms()).all()
    assert (
        np.isnan(Frame.of(rows[:1]).score)
        and np.isnan(random_score(1, 5)).all()
        and Frame.of(rows[:, :1]).score == pytest.approx(1)
    )


def test_a_shared_direction_is_in_the_overlap_and_not_in_that_less_the_mean(monkeypatch):
    monkeypatch.setattr(frames, "ROWS", 64)
    rows = gaussian(300, 12) + 4.0
    rows[7] = 0
    found, there = Frame.of(rows), rows[rows.any(1)]
    assert found.mean_square_overlap > 0.8
    assert np.isclose(found.centred_overlap, dense(there - there.mean(0))[0], rtol=1e-9, atol=0)
    assert np.isclose(Frame.of(rows[:5]).centred_overlap, dense(rows[:5] - rows[:5].mean(0))[0], rtol=1e-9, atol=0)
    low, high = (1 + 1.5 * (end - 1) for end in random_score(299, 12)[1:])
    assert low < found.centred_score < high


def test_equal_rows_have_nothing_beside_their_mean():
    found = Frame.of(gaussian(1, 5).expand(7, 5) * 1.1)
    assert np.isclose(found.mean_square_overlap, 1) and np.isnan(found.centred_overlap)
    assert np.isnan(Frame.of(gaussian(1, 5)).centred_overlap)


def test_a_large_vocabulary_is_never_held_in_double_precision(monkeypatch):
    """One block of it at a time: a block is let go before the next two are made."""
    monkeypatch.setattr(frames, "ROWS", 10)
    alive, most = weakref.WeakSet(), [0]
    real = frames.unit

    def watched(rows):
        made = real(rows)
        alive.add(made)
        most[0] = max(most[0], len(alive))
        return made

    monkeypatch.setattr(frames, "unit", watched)
    Frame.of(gaussian(400, 4))
    assert most[0] <= 3
