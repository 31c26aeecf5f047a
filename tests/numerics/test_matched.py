"""Matched draws: of the same size, never a chosen one, none twice, each with an equal chance."""

import numpy as np
import pytest
import torch

from tensorscope_nb.numerics.matched import Others


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def layer(n=20000, k=200, seed=0, heavy=False):
    sizes = torch.randn(n, generator=random(seed)).abs()
    if heavy:
        return sizes, torch.argsort(sizes, descending=True)[:k]
    return sizes, torch.randperm(n, generator=random(seed + 1))[:k]


def test_the_match_of_each_has_nearly_its_size_and_is_none_of_the_chosen():
    sizes, chosen = layer()
    others = Others(sizes, chosen)
    for seed in range(5):
        drawn = others.draw(sizes[chosen], random(seed))
        ratio = (sizes[drawn] / sizes[chosen]).numpy()
        typical = sizes[chosen].numpy() > 0.02  # of the smallest the 20 nearest are further off than 1 %
        assert abs(ratio[typical] - 1).max() < 0.05 and np.quantile(abs(ratio - 1), 0.9) < 0.011
        assert len(set(drawn.tolist())) == len(chosen) and not set(drawn.tolist()) & set(chosen.tolist())


def test_of_the_largest_of_all_the_nearest_that_are_left_are_taken():
    sizes, chosen = layer(heavy=True)
    drawn = Others(sizes, chosen).draw(sizes[chosen], random())
    rank = torch.empty(len(sizes), dtype=torch.long)
    rank[torch.argsort(sizes, descending=True)] = torch.arange(len(sizes))
    assert sorted(rank[drawn].tolist())[0] >= 200 and max(rank[drawn].tolist()) < 2 * 200 + 20


def test_a_draw_is_a_function_of_its_seed_and_the_first_do_not_depend_on_the_last():
    sizes, chosen = layer(n=600, k=150)
    others = Others(sizes, chosen)
    whole = others.draw(sizes[chosen], random(3))
    assert torch.equal(whole, Others(sizes, chosen).draw(sizes[chosen], random(3)))
    assert torch.equal(whole[:40], others.draw(sizes[chosen[:40]], random(3)))
    assert not torch.equal(whole, others.draw(sizes[chosen], random(4)))


@pytest.mark.parametrize("n_alike", [37, 100, 3007])
def test_all_entries_of_the_same_size_have_the_same_chance(n_alike):
    sizes = torch.cat([torch.full((n_alike,), 2.0), torch.full((n_alike,), 5.0)])
    others, random_ = Others(sizes, torch.tensor([0])), random()
    n_draws = 4000
    drawn = np.array([int(others.draw(torch.tensor([2.0]), random_)[0]) for _ in range(n_draws)])
    assert (drawn > 0).all() and (drawn < n_alike).all()  # never one of another size
    counts = np.histogram(drawn, np.linspace(1, n_alike, 10))[0]
    expected = n_draws / 9
    assert ((counts - expected) ** 2 / expected).sum() < 35  # χ² with 8 degrees of freedom: p < 1e-4


def test_zeros_are_matched_with_zeros():
    sizes = torch.cat([torch.zeros(50), torch.ones(50)])
    drawn = Others(sizes, torch.arange(10)).draw(sizes[:10], random())
    assert (sizes[drawn] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_of_all_scales_are_in_order_and_ties_go_by_place(dtype):
    sizes = torch.tensor([0.0, 1e-45, 1e-40, 3e38, 2.0, float("inf"), 0.5, 2.0000002], dtype=dtype).repeat(50)
    chosen = torch.tensor([4, 17])
    expected = sizes.sort(stable=True).indices
    assert torch.equal(Others(sizes, chosen)._places, expected[~torch.isin(expected, chosen)])


def test_all_others_are_used_up_before_there_are_too_few():
    sizes, chosen = layer(n=100, k=50)
    others = Others(sizes, chosen)
    assert len(others) == 50
    assert sorted([*others.draw(sizes[chosen], random()).tolist(), *chosen.tolist()]) == list(range(100))
    with pytest.raises(ValueError, match="51 entries need a match of their own, and there are 50 others"):
        others.draw(torch.ones(51), random())


def test_many_draws_from_many_weights_take_no_memory_of_their_product():
    sizes, chosen = layer(n=2_000_000, k=5000)
    drawn = Others(sizes, chosen).draw(sizes[chosen], random())
    assert len(drawn) == 5000
