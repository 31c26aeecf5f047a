"""Whether two lists of the k highest of N name the same, beside what two random lists of that length would."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import numpy as np


def jaccard(a: Collection[Hashable], b: Collection[Hashable]) -> float:
    """|A ∩ B| / |A ∪ B|."""
    both = len(set(a) & set(b))
    return both / (len(a) + len(b) - both)


def chance(n: int, k: int) -> float:
    """The expected Jaccard index of two random lists of k of n: E[m / (2k − m)] with m hypergeometric."""
    from scipy.stats import hypergeom

    m = np.arange(max(0, 2 * k - n), k + 1)
    return float((hypergeom.pmf(m, n, k, k) * m / (2 * k - m)).sum())


def overlap_p(n: int, k: int, both: int) -> float:
    """The probability that two random lists of k of n have ``both`` in common, or more."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(both - 1, n, k, k))
