"""How many weights rounds leave: exact at what is asked for, and never more at a time than allowed."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tensorscope_nb.numerics.schedule import kept_counts


@given(
    st.integers(50, 10**6),
    st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True),
    st.floats(0.05, 0.9),
)
def test_each_sparsity_is_hit_exactly_and_no_round_takes_more_than_the_rate(n, percents, rate):
    sparsities = sorted(percent / 100 for percent in percents)
    targets = [n - round(s * n) for s in sparsities]
    if len(set(targets)) < len(targets) or not 0 < min(targets) <= max(targets) < n:
        return
    counts, ends = kept_counts(n, sparsities, rate)
    assert [counts[i] for i in ends] == targets and counts[0] == n
    assert all(b < a and a - b <= rate * a + 1 for a, b in pairwise(counts))
    fewest = math.log(targets[-1] / n) / math.log(1 - rate)
    assert len(counts) - 1 <= fewest + len(sparsities) + 1e-6


def test_the_rounds_to_90_percent_at_a_fifth_each():
    counts, ends = kept_counts(10**6, [0.9], 0.2)
    assert ends == [11] and len(counts) == 12  # .8¹⁰ = .107, .8¹¹ = .086
    shares = [b / a for a, b in pairwise(counts)]
    assert max(shares) - min(shares) < 1e-4 and abs(shares[0] - 0.1 ** (1 / 11)) < 1e-5
    assert kept_counts(100, [0.2], 0.2) == ([100, 80], [1])  # exactly the rate is one round
    assert kept_counts(108, [0.2], 0.2) == ([108, 86], [1])  # and so it is to the nearest weight
    assert kept_counts(100, [0.5, 0.9], None) == ([100, 50, 10], [1, 2])
    assert kept_counts(3, [2 / 3], 0.01) == ([3, 2, 1], [2])  # what would take none is left out
