"""What lies along the layers of a model, on a scale of depth that models of any number of layers share."""

from __future__ import annotations

import numpy as np

from tensorscope_nb.numerics.intervals import Array


def over_depth(of_layers: Array, n_depths: int) -> Array:
    """(…, L) to (…, n_depths): layer i covers [i/L, (i+1)/L], and what it has goes to the bins as they overlap it.

    The sum stays what it is.
    """
    n = np.shape(of_layers)[-1]
    layer, depth = np.arange(n)[:, None] * n_depths, np.arange(n_depths)[None] * n  # in units of 1 / (n · n_depths)
    overlap = np.minimum(layer + n_depths, depth + n) - np.maximum(layer, depth)
    return np.asarray(of_layers, dtype=np.float64) @ (np.maximum(overlap, 0) / n_depths)
