"""Sums over the least entries, by hand and against the bias of choosing and summing with the same noise."""

import numpy as np
import pytest
import torch

from tensorscope_nb.numerics.pruned import held_out_sums, least_first, sums_of_first


def test_the_first_entries_of_an_order_are_summed():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0])
    order = least_first(values)
    assert order.tolist() == [1, 3, 2, 0]
    assert sums_of_first(values, order, [0, 1, 2, 3, 4]).tolist() == [0, 1, 2, 4, 7]


def test_each_fold_is_summed_in_the_order_of_the_others():
    folds = torch.tensor([[1.0, 5.0, 9.0], [9.0, 1.0, 0.0]])
    # the first fold is summed over entry 2, which is least in the second; the second over entry 0
    assert held_out_sums(folds, [1, 3]).tolist() == [[9, 15], [9, 10]]


def test_what_is_chosen_by_accident_is_not_counted_small():
    """All entries are alike in truth: the least third of noise sums to a third, and by its own order to much less."""
    generator = torch.Generator().manual_seed(0)
    n, folds = 3000, 8
    own, held_out = [], []
    for _ in range(20):
        noise = torch.randn(folds, n, generator=generator) ** 2
        own.append(float(sums_of_first(noise.sum(0), least_first(noise.sum(0)), [n // 3])[0]) / folds)
        held_out.append(float(held_out_sums(noise, [n // 3]).mean(0)[0]))
    assert np.mean(held_out) == pytest.approx(n / 3, rel=0.01)
    assert np.mean(own) < 0.6 * n / 3
