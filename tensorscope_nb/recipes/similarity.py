"""Representational similarity: whether two layers find the same inputs alike and the same ones different."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorscope_nb.numerics.alignment import Numbers
from tensorscope_nb.numerics.dissimilarity import COMPARES, DISTANCES, GROUPS, Tables, compared, exchanged, n_pairs
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.layer_rows import BETWEEN, constant_layers, rows_of_both, said
from tensorscope_nb.recipes.paired_inputs import paired_inputs
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import too_much

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

LEAST = 4  # samples
NO_TABLE = {
    "correlation": "its rows are all equally far apart, or one is the same on every neuron and has no correlation",
    "euclidean": "its rows are all equally far apart",
    "cosine": "its rows are all equally far apart, or one is zero and has no direction",
}


@recipe(
    question="Which layers find the same inputs alike?",
    source="Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008",
    needs=("activations",),
)
def representational_similarity(
    scope_a: Scope,
    scope_b: Scope | None = None,
    samples: Any = None,
    *,
    distance: Literal["correlation", "euclidean", "cosine"] = "correlation",
    compare: Literal["spearman", "pearson"] = "spearman",
    tokens: Literal["mean", "last", "all"] = "mean",
    skip_first: bool = False,
    sites: str | None = None,
    permutations: int = 999,
    seed: int | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """How alike every layer of a model and every layer of another (without ``scope_b``: of the same) tell samples apart.

    What it answers: whether inputs that are far apart in one layer are far apart in the other. Rows are as in ``linear_cka``:
    by default each sample's mean over its tokens, padding left out; of an MLP or CNN its flattened output.

    Equation: with the dissimilarities of every two rows of different samples, dᵢⱼ = 1 − r(xᵢ, xⱼ) over the neurons
    (``distance="correlation"``), 1 − cos(xᵢ, xⱼ) or ‖xᵢ − xⱼ‖ (``"cosine"``, ``"euclidean"``), similarity is their rank
    correlation between the two layers (``compare="pearson"``: their correlation). Source: Kriegeskorte et al. 2008.

    Result, ``[layer_a, layer_b]``: ``similarity`` (−1 to 1) with ``ci_low, ci_high``, the 95 % jackknife interval over samples
    (each left out in turn, or each of 40 groups of more; of artanh r; NaN below 5 samples, or where one is all that varies), and
    ``p_value``, how often samples exchanged at random are as similar (Mantel 1967; one-sided, for that pair of layers alone). NaN
    for a layer in which nothing varies, whose rows are all equally far apart, or of which one has no such distance (a zero row
    has no cosine, one that is the same on every neuron no correlation): ``undefined`` says which; p is NaN for tokens of samples
    of different lengths.

    Measured, at 8 to 60 samples with all distances and both correlations: the interval holds the true value in .91 to 1.00 of
    cases for normal rows of 4 to 40 directions alike; down to .88 where few directions hold the variance and the similarity is
    near 1; and down to .80 where those are heavy-tailed besides (Student's t with 4 degrees of freedom): Pearson's at any
    similarity, Spearman's above .9. Around 0 it is too wide for normal rows.
    Errors: as in ``linear_cka``; ValueError where the dissimilarities exceed the memory option. Cost: one forward of each
    model, n² Σ d / 2 products, a sort of n² / 2 numbers per layer for each sample (or group) left out, and n² / 2 products for
    each pair of layers and exchange (``permutations=0`` spares those).
    How to read it: small p with a low similarity is a relation that is there and weak. When not to trust it: distances of few
    samples are few facts, however many pairs they make; a mean over tokens follows a massive first token (``skip_first=True``);
    ``"correlation"`` changes when the space is turned, since it is centred over neurons, the other two do not.

    >>> import tensorscope_nb as ts
    >>> scope, other = ts.load("tiny"), ts.load("tiny", seed=1)
    >>> found = ts.recipes.representational_similarity(scope, other, ts.datasets.shakespeare(scope, n=12))
    >>> bool((found["similarity"] > 0.3).all()), bool((found["p_value"] < 0.01).all())
    (True, True)
    """
    for name, given, known in (("distance", distance, DISTANCES), ("compare", compare, COMPARES)):
        if given not in known:
            raise ValueError(f"{name} is {given!r}: choose {', '.join(map(repr, known))}")
    if isinstance(permutations, bool) or not isinstance(permutations, Integral) or permutations < 0:
        raise ValueError(f"permutations is {permutations!r}: give how many, 0 for no p value")
    pair = paired_inputs(representational_similarity, scope_a, scope_b, samples, tokens)
    pair.require(LEAST)
    seed = current().seed if seed is None else seed
    a, b = rows_of_both(pair, sites=sites, tokens=tokens, skip_first=skip_first, chunk=chunk, progress=progress)
    _check_memory(len(a.layers) + (0 if b is a else len(b.layers)), a.sample)
    one = Tables.of(a.layers, a.sample, distance)
    other = one if b is a else Tables.of(b.layers, b.sample, distance)
    value, low, high = compared(one, other, a.sample, compare, seed)
    words = f"correlation of the dissimilarities ({compare}, of {distance})"
    variables: dict[str, Variable] = {
        "similarity": (BETWEEN, value, words, ""),
        "ci_low": (BETWEEN, low, f"{words}, lower end of the 95 % interval", ""),
        "ci_high": (BETWEEN, high, f"{words}, upper end of the 95 % interval", ""),
    }
    undefined = constant_layers(a, b)
    for side, tables in (("a", one), ("b", other)):
        names = [f"layer_{side} {i}" for i in np.flatnonzero(~tables.has)]
        undefined |= {name: NO_TABLE[distance] for name in names if name not in undefined}
    if permutations:
        alike = len(set(np.bincount(a.sample))) == 1
        p = exchanged(one, other, a.sample, compare, int(permutations), seed) if alike else np.full_like(value, np.nan)
        variables["p_value"] = (BETWEEN, p, f"p of no relation, by {permutations} exchanges of samples", "")
        undefined |= {} if alike else {"p_value": "samples of different lengths cannot be exchanged token by token"}
    result = dataset(variables, seed=seed, **said(pair, a), **({"undefined": undefined} if undefined else {}))
    n = len(pair.a)
    left_out = f"{n} samples" if n <= GROUPS else f"{GROUPS} groups of {n} samples"
    result["similarity"].attrs |= {"bounds": [-1.0, 1.0], "interval": f"95 % jackknife interval over {left_out}, of artanh r"}
    return result


def _check_memory(n_layers: int, sample: Numbers) -> None:
    """Each table, its ranks, these centred, and moved about; the numbers of the rows of each pair, and the pair of two rows."""
    rows, pairs = len(sample), n_pairs(sample)
    needed = 8 * (4 * n_layers * pairs + 2 * pairs + rows**2)
    if needed > current().memory:
        raise too_much(f"the dissimilarities of {rows} rows", needed, 'give fewer samples, tokens="mean" or "last"')
