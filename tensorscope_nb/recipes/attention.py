"""Attention patterns as a result, so that a view can follow any head of any sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.dataset import dataset, sample_coords, token_variable
from tensorscope_nb.recipes.recipe import recipe

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope


@recipe(question="Where does each head look?", source="Vaswani et al. 2017, arXiv:1706.03762", needs=("patterns",))
def attention_patterns(scope: Scope, samples: Any, *, layers: list[int] | None = None, chunk: int | None = None) -> xr.Dataset:
    """The attention pattern of every head on every sample.

    What it answers: which earlier tokens each head reads at each position.
    Equation: A = softmax(q kᵀ / √d_head + mask), row by row. Source: Vaswani et al. 2017.
    Result: ``[sample, layer, head, query, key] pattern`` (share of attention; each row sums to 1; NaN at padding),
    ``[sample, position] token``. Cost: one forward; n · layers · heads · T² values.
    How to read it: a row is what one token looks at. When not to trust it: a weight says where a head looks, not what
    it moves from there, nor whether that matters; see ``ablation``.

    >>> import tensorscope_nb as ts
    >>> patterns = ts.recipes.attention_patterns(ts.load("tiny"), ["one two one two"])
    >>> dict(patterns.sizes)["head"]
    4
    """
    scope.require_patterns()
    samples = scope.samples(samples)
    chosen = list(range(scope.anatomy.n_layers)) if layers is None else layers
    for layer in chosen:
        scope.anatomy.check_layer(layer)
    sites = [f"layers.{layer}.attn.pattern" for layer in chosen]
    record = scope.record(samples, sites, chunk=chunk)
    values = np.stack([record[site].float().cpu().numpy() for site in sites], 1)
    mask = samples.attention_mask.bool().numpy()
    values = np.where((mask[:, :, None] & mask[:, None, :])[:, None, None], values, np.nan)
    return dataset(
        {
            "pattern": (("sample", "layer", "head", "query", "key"), values, "attention", "share of the row"),
            "token": token_variable(samples),
        },
        {**sample_coords(samples), "layer": chosen},
        n_used=len(samples),
    )
