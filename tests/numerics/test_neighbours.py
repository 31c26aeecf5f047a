import pytest
import torch

from tensorscope_nb.numerics.neighbours import COPIES, Distinct, Neighbours


def cloud(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute(points, k):
    squared = ((points.double()[:, None] - points.double()) ** 2).sum(-1)
    values, found = squared.fill_diagonal_(torch.inf).topk(k, largest=False)
    return values.sqrt(), found


def by_blocks(points, k, rows=None):
    """In blocks of so many rows; all in one block otherwise."""
    memory = 1e9 if rows is None else rows * COPIES * points.element_size() * len(points)
    parts = list(Neighbours(points, k, memory).blocks(torch.arange(len(points))))
    assert rows is None or len(parts) == -(-len(points) // rows)
    return torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


@pytest.mark.parametrize("rows", [1, 7, 200, None])
def test_in_blocks_of_any_size_they_are_those_of_all_differences(rows):
    points = cloud(200, 6)
    distances, found = by_blocks(points, 20, rows)
    true, numbers = brute(points, 20)
    assert torch.allclose(distances, true, rtol=1e-13, atol=0) and torch.equal(found, numbers)


def test_single_precision_gives_distances_to_its_rounding():
    points = cloud(500, 30).float()
    distances, found = by_blocks(points, 40)
    true, numbers = brute(points, 40)
    assert torch.allclose(distances, true, rtol=3e-6, atol=0) and (found == numbers).double().mean() > 0.999


def test_points_a_millionth_apart_are_told_apart_in_single_precision():
    """Their products agree in all digits that single precision has, so that these alone would put them in any order."""
    pairs = cloud(100, 20, 1)
    near = torch.cat([pairs, pairs + 1e-6 * cloud(100, 20, 2)]).float()
    tight = (cloud(1, 20, 3) + 1e-6 * cloud(300, 20, 4)).float()
    for points in (near, torch.cat([tight, near])):
        points = points[Distinct.of(points).first]
        distances, found = by_blocks(points, 10)
        true, numbers = brute(points, 10)
        close = true < 1e-4
        assert torch.allclose(distances[close], true[close], rtol=1e-12, atol=0)
        ties = true[:, 1:] == true[:, :-1]
        assert torch.equal(found[close], numbers[close]) or ties.any()


def test_more_hidden_neighbours_than_are_kept_spare_are_still_found():
    """A cluster of 300 in which all products round to the same: 16 spare candidates do not hold the true ten."""
    points = (cloud(1, 50, 3) * 100 + 1e-4 * cloud(300, 50, 4)).float()
    points = torch.cat([points, 1e3 * cloud(50, 50, 5).float()])
    points = points[Distinct.of(points).first]
    search = Neighbours(points, 10, 1e9)
    products = search.squares[:, None] + search.squares - 2 * (search.centred @ search.centred.T).double()
    picked = products.fill_diagonal_(torch.inf).topk(26, largest=False)[1]
    true, numbers = brute(points, 10)
    missed = [len(set(a.tolist()) - set(b.tolist())) for a, b in zip(numbers, picked, strict=True)]
    assert sum(missed) > 100, "the products suffice here, and the test shows nothing"
    distances, _ = by_blocks(points, 10)
    assert torch.allclose(distances, true, rtol=1e-5, atol=0)


def test_a_cloud_far_from_the_origin_has_the_same_neighbours():
    points = cloud(300, 8)
    near, _ = by_blocks(points, 10)
    far, _ = by_blocks(points + 1e5, 10)
    assert torch.allclose(near, far, rtol=1e-8, atol=0)


def test_where_products_may_be_coarse_they_are_not_relied_on():
    points = cloud(300, 30).float()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert Neighbours(points, 10, 1e9).rounding > 1e-3
        distances, _ = by_blocks(points, 10)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.allclose(distances, brute(points, 10)[0], rtol=1e-5, atol=0)


def test_equal_points_are_one_place():
    points = cloud(6, 3)[[0, 1, 0, 2, 1, 0]]
    points[3, 0] = -0.0
    points = torch.cat([points, points[3:4].clone()])
    points[6, 0] = 0.0
    found = Distinct.of(points)
    assert (
        found.place.tolist() == [0, 1, 0, 2, 1, 0, 2] and found.count.tolist() == [3, 2, 2] and found.first.tolist() == [0, 1, 3]
    )


def test_a_point_is_not_its_own_neighbour_and_there_must_be_enough_others():
    points = cloud(11, 3)
    _, found = by_blocks(points, 10)
    assert all(i not in row for i, row in enumerate(found.tolist()))
    with pytest.raises(ValueError, match="there are 11 points, each has 10 neighbours"):
        Neighbours(points, 11, 1e9)
