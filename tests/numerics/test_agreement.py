"""Agreement of lists, against every pair of lists there is."""

from itertools import combinations, product

import numpy as np
import pytest

from tensorscope_nb.numerics.agreement import chance, jaccard, overlap_p


@pytest.mark.parametrize("n, k", [(5, 2), (6, 3), (6, 5), (4, 4), (7, 1)])
def test_chance_is_the_mean_over_all_pairs_of_lists(n, k):
    pairs = list(product(combinations(range(n), k), repeat=2))
    assert np.isclose(chance(n, k), np.mean([jaccard(a, b) for a, b in pairs]))
    for both in range(k + 1):
        share = np.mean([len(set(a) & set(b)) >= both for a, b in pairs])
        assert np.isclose(overlap_p(n, k, both), share)


def test_of_many_weights_chance_is_about_k_over_twice_n():
    assert np.isclose(chance(10**6, 1000), 1000 / (2 * 10**6), rtol=0.01)


def test_a_list_agrees_with_itself():
    assert jaccard([1, 2, 3], [3, 2, 1]) == 1 and jaccard([1, 2], [3, 4]) == 0 and jaccard([1, 2], [2, 3]) == 1 / 3
