"""Attention patterns as a result, so that a view can follow any head of any sample."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords, token_variable
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.sweep import Chunk, sweep

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope


class Patterns:
    """Keeps the pattern of each site, NaN where there is no token."""

    def __init__(self, sites: Sequence[str]) -> None:
        self.needs = tuple(sites)
        self.rows: list[np.ndarray] = []

    def update(self, chunk: Chunk) -> None:
        patterns = np.stack([chunk.site(site).float().cpu().numpy() for site in self.needs], 1)
        mask = chunk.samples.seen(patterns.shape[-1]).numpy()
        self.rows.append(np.where((mask[:, :, None] & mask[:, None, :])[:, None, None], patterns, np.nan))

    def result(self) -> np.ndarray:
        """(sample, layer, head, query, key)"""
        return np.concatenate(self.rows)


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
    chosen = [operator.index(layer) for layer in chosen]
    for layer in chosen:
        scope.anatomy.check_layer(layer)
    sites = [f"layers.{layer}.attn.pattern" for layer in chosen]
    kept = Patterns(sites)
    sweep(scope, samples, [kept], chunk=chunk, label="attention patterns")
    values = kept.result()
    variables: dict[str, Variable] = {
        "pattern": (("sample", "layer", "head", "query", "key"), values, "attention", "share of the row")
    }
    if samples.has_tokens:
        variables["token"] = token_variable(samples)
    return dataset(
        variables,
        {**sample_coords(samples), "layer": chosen},
        n_used=len(samples),
    )
