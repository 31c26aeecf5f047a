"""The largest of many numbers that come in pieces, against a sort of all of them."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorscope_nb.numerics.ranked import Largest


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    k=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_the_largest_are_those_of_a_sort_whatever_the_cut_and_ties_go_to_the_first(values, k, cuts):
    top = Largest(k)
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    whole = torch.tensor(values, dtype=torch.float32)
    for start, stop in itertools.pairwise(bounds):
        top.add(whole[start:stop], start)
    order = np.lexsort((np.arange(len(values)), -np.array(values)))[:k]
    assert top.places.tolist() == order.tolist()
    assert top.values.tolist() == [values[i] for i in order]


def test_nothing_is_held_but_the_largest():
    top = Largest(3)
    for start in range(0, 10**5, 10**4):
        top.add(torch.arange(start, start + 10**4, dtype=torch.float64), start)
    assert top.values.tolist() == [99999, 99998, 99997] and top.values.nelement() == top.places.nelement() == 3


def test_none_can_be_asked_for():
    top = Largest(0)
    top.add(torch.ones(5), 0)
    assert not len(top.places)
