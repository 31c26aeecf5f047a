"""Sums over the least entries, by hand and against the bias of choosing and summing with the same noise."""

import numpy as np
import pytest
import torch

from tensorscope_nb.numerics.pruned import held_out_sums, least_first, shuffled, sums_of_first, without_least


def test_the_first_entries_of_an_order_are_summed():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0])
    order = least_first(values)
    assert order.tolist() == [1, 3, 2, 0]
    assert sums_of_first(values, order, [0, 1, 2, 3, 4]).tolist() == [0, 1, 2, 4, 7]


def test_each_draw_is_summed_in_the_order_of_the_others():
    draws = torch.tensor([[1.0, 5.0, 9.0], [9.0, 1.0, 0.0]])
    # the first draw is summed over entry 2, which is least in the second; the second over entry 0
    assert held_out_sums(draws, [1, 3]).tolist() == [[9, 15], [9, 10]]


def test_what_is_chosen_by_accident_is_not_counted_small():
    """All entries are alike in truth: the least third of noise sums to a third, and by its own order to much less."""
    generator = torch.Generator().manual_seed(0)
    n, draws = 3000, 8
    own, held_out = [], []
    for _ in range(20):
        noise = torch.randn(draws, n, generator=generator) ** 2
        own.append(float(sums_of_first(noise.sum(0), least_first(noise.sum(0)), [n // 3])[0]) / draws)
        held_out.append(float(held_out_sums(noise, [n // 3]).mean(0)[0]))
    assert np.mean(held_out) == pytest.approx(n / 3, rel=0.01)
    assert np.mean(own) < 0.6 * n / 3


def vectors(seed=0, sizes=(30, 7, 50)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator).round(decimals=1) for n in sizes]  # rounded: there are ties


@pytest.mark.parametrize("evenly", [False, True])
def test_pruning_takes_an_exact_count_and_what_was_out_stays_out(evenly):
    kept = [torch.ones(len(v), dtype=torch.bool) for v in vectors()]
    for i, count in enumerate((5, 20, 21, 60, 86)):
        smaller = without_least(vectors(i), kept, count, evenly=evenly)  # other weights each time
        assert sum(int((~mask).sum()) for mask in smaller) == count
        assert all(not bool((new & ~old).any()) for new, old in zip(smaller, kept))
        if evenly:
            assert all(abs(float((~mask).sum()) - count * len(mask) / 87) <= 1 for mask in smaller)
        kept = smaller


def test_the_least_in_size_go_first_and_ties_by_order():
    kept = without_least(
        [torch.tensor([3.0, -1.0, 1.0]), torch.tensor([0.5, 1.0])], [torch.ones(3).bool(), torch.ones(2).bool()], 3
    )
    assert [mask.tolist() for mask in kept] == [[True, False, False], [False, True]]
    out_goes_before_zero = without_least([torch.tensor([0.0, 9.0, 5.0])], [torch.tensor([True, False, True])], 1)
    assert out_goes_before_zero[0].tolist() == [True, False, True]


def test_a_random_mask_keeps_as_many_of_each_and_more_contain_fewer():
    few, many = [torch.arange(n) < n // 5 for n in (40, 10)], [torch.arange(n) < n // 2 for n in (40, 10)]
    drawn = [shuffled(masks, torch.Generator().manual_seed(1)) for masks in (few, many)]
    for masks, of in zip((few, many), drawn):
        assert [int(mask.sum()) for mask in of] == [int(mask.sum()) for mask in masks]
    assert all(bool((b | ~a).all()) for a, b in zip(*drawn))
    counts = sum(shuffled(few, torch.Generator().manual_seed(i))[0].float() for i in range(400))
    assert (counts / 400 - 0.2).abs().max() < 0.1  # every entry as often
