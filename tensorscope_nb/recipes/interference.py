"""In which heads the samples of two tasks interfere."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.numerics.crossed import mean_test
from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.groups import ByHead
from tensorscope_nb.recipes.head_pairs import HeadPairs, Mode, Ridge, parts_of, spread_over_heads
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.tasks import TwoTasks
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

ALPHA = 0.05
HALVES = 4  # samples of each task below which no p is given: each half's Î is a mean over the other half
UNITS = {"signed": "", "magnitude": "gradient", "symmetric": ""}
WORDS = {
    "signed": "conflict of the whitened gradients",
    "magnitude": "magnitude of interference",
    "symmetric": "shared magnitude of the whitened gradients",
}


@recipe(
    question="In which heads do the samples of two tasks interfere?",
    source="the whitened inner product is that of Amari 1998, doi:10.1162/089976698300017746",
    needs=("gradients",),
)
def qkov_interference(
    scope: Scope,
    a: Any,
    b: Any = None,
    *,
    mode: Mode = "signed",
    epsilon: float = 1e-10,
    ridge: Ridge = 1e-8,
    min_samples: int = 10,
    bias: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """How far the gradients of two tasks' samples oppose each other in the Q, K, V and O weights of each head.

    What it answers: which heads, and which samples in them, one task's learning would harm for the other.
    Equation, over the weights k of a block of a head, with Î the mean of squared per-sample gradients (the diagonal empirical
    Fisher): ``"signed"`` S_ij = −Σ_k g_ik g_jk / (Î_k + λ), Î over both tasks: positive where sample i of a and j of b oppose
    each other, about the loss that i gains when a natural-gradient step is taken on j. ``"symmetric"`` Σ_k |g_ik g_jk| / (Î_k
    + λ). ``"magnitude"`` Σ_k g_ik² |g_jk| / (max(Î_k, ε) + λ), Î over a alone: kept for comparison. Its mean over pairs does
    not depend on a at all (mean_i g_ik² / Î_k = 1), it has the unit of a gradient, and it cannot tell conflict from synergy.
    λ is ``ridge``; ``"relative"`` is a tenth of the median Î of the slice.

    Result: ``[block, layer, head] score`` (mean over pairs), ``p_value, q_value, significant``; ``[sample_a, sample_b] total``
    (summed over the weights of all heads, each once); ``[block, layer, head, sample_a, sample_b] pair_score``; ``[block]
    n_sharing``: where heads share K and V each shows the shared score. p is the one-sided test of the expected score against
    0 over samples of both tasks, as in ``gradient_alignment``, q by Benjamini–Hochberg over all slices; NaN where scores have
    no sign. For p each pair is whitened by the halves of the tasks that it is not in: an Î that holds the pair makes p too
    small where gradients are rare or skewed (size up to .27 at .05, and 1 in the worst case; .067 this way, .22 in the worst
    case). Labels are not permuted: that would ask whether the tasks differ. ``bias`` adds the biases of Q, K and V.
    ``ts.recipes.top_conflicts`` lists the pairs. Where memory is short the pairs come after all gradients: interrupted then, Î
    is of more samples than there are pairs of.
    Errors: UnsupportedModel without heads. Cost: one forward and one backward, n_a n_b products per weight. A warning comes
    below ``min_samples`` (30 are advised: Î is a mean over them), and where the ridge is above the median Î of a slice, so
    that it decides and not Î.
    How to read it: compare heads of one block; a positive score with a small q is a conflict. When not to trust it: 1 / Î
    weighs weights with small gradients up, also where these are noise; look whether ``ridge="relative"`` says the same.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> a, b = ts.datasets.shakespeare(scope, n=10), ts.datasets.code(scope, n=10)
    >>> ts.recipes.qkov_interference(scope, a, b)["score"].dims
    ('block', 'layer', 'head')
    """
    scope.anatomy.require_heads()
    if mode not in WORDS:
        raise ValueError(f"mode is {mode!r}: choose 'signed', 'magnitude' or 'symmetric'")
    if not (ridge == "relative" or (isinstance(ridge, int | float) and ridge >= 0)) or epsilon < 0:
        raise ValueError(f"ridge is {ridge!r} and epsilon {epsilon!r}: give numbers that are not negative, or ridge='relative'")
    whole = TwoTasks.of(scope, a, b)
    whole.require(2)
    heads = ByHead(scope)
    pairs = HeadPairs(whole, parts_of(heads, bias), mode, epsilon, ridge)
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(whole.samples, [pairs], enough=lambda n: whole.enough(n, 2), **options)
    if not pairs.values:
        raise LookupError(f"modules={modules!r} leaves no weights of any head: choose others")
    two = whole.within(len(covered.samples))
    two.warn_few(min_samples)
    if any(pairs.swamped.values()):
        warnings.warn(
            f"the ridge {ridge:g} is above the median squared gradient in {sum(pairs.swamped.values())} of {len(pairs.swamped)} "
            "slices, where it decides the scores: pass ridge='relative', or a smaller one",
            stacklevel=2,
        )
    n, m = len(two.a), len(two.b)
    by_slice = {key: values[:n, :m].numpy() for key, values in pairs.values.items()}
    score, p = np.array([values.mean() for values in by_slice.values()]), np.full(len(by_slice), np.nan)
    if mode == "signed" and two.enough(len(two.samples), HALVES):
        p = mean_test(np.stack([pairs.fitted[key][:n, :m].numpy() for key in by_slice])).above
    q = q_values(p)
    found = {"score": score, "p_value": p, "q_value": q, "significant": (q <= ALPHA) & (score > 0)}
    words, dims, both = WORDS[mode], ("block", "layer", "head"), ("sample_a", "sample_b")
    tables = {name: spread_over_heads(heads, dict(zip(by_slice, values, strict=True))) for name, values in found.items()}
    variables: dict[str, Variable] = {
        "score": (dims, tables["score"], words, UNITS[mode]),
        "p_value": (dims, tables["p_value"], "p of a conflict", ""),
        "q_value": (dims, tables["q_value"], "q of a conflict, over all slices", ""),
        "significant": (dims, tables["significant"] == 1, f"conflict at q ≤ {ALPHA:g}", ""),
        "n_sharing": (("block",), heads.sharing(), "heads that share the slice's weights", "heads"),
        "pair_score": ((*dims, *both), spread_over_heads(heads, by_slice), words, UNITS[mode]),
        "total": (both, sum(by_slice.values()), f"{words}, over all heads", UNITS[mode]),
    }
    coords = {"block": list(heads.blocks), **two.coords()}
    result = dataset(variables, coords, **two.said(covered, whole), swamped=sum(pairs.swamped.values()))
    for name in ("score", "pair_score", "total") if mode == "signed" else ():
        result[name].attrs["signed"] = "conflict above 0"
    return result


def qkov_pair(
    scope: Scope, a: Any, i: int | str, b: Any, j: int | str, layer: int, head: int, **options: Any
) -> dict[str, float]:
    """The scores of one pair of samples in one head: ``{"Q": …, "K": …, "V": …, "O": …}``.

    ``i`` and ``j`` are numbers in ``a`` and ``b``, or ids; options as in ``qkov_interference``. Î is still that of all samples.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> a, b = ts.datasets.shakespeare(scope, n=10), ts.datasets.code(scope, n=10)
    >>> sorted(ts.recipes.qkov_pair(scope, a, 0, b, 0, layer=0, head=0))
    ['K', 'O', 'Q', 'V']
    """
    scope.anatomy.check_layer(layer)
    scope.anatomy.check_head(head)
    modules = sorted({scope.anatomy.module(layer, block) for block in ByHead.blocks})
    found = qkov_interference(scope, a, b, modules=modules, **options)["pair_score"].sel(layer=layer, head=head)
    for dim, place in (("sample_a", i), ("sample_b", j)):
        if isinstance(place, str):
            if place not in found[dim].values:
                raise LookupError(f"there is no {place!r} in {dim}: ids are such as {found[dim].values[0]!r}")
            found = found.sel({dim: place})
        else:
            if not 0 <= place < found.sizes[dim]:
                there = f"there are 0 to {found.sizes[dim] - 1}"
                raise LookupError(f"there is no number {place} in {dim}: {there}, counted in that task alone; or give its id")
            found = found.isel({dim: place})
    return {block: float(found.sel(block=block)) for block in ByHead.blocks}


def top_conflicts(ds: xr.Dataset, n: int = 100) -> pd.DataFrame:
    """The n pairs and slices with the highest scores of a ``qkov_interference``, each slice that heads share once.

    Columns: score, block, layer, head, n_sharing, sample_a, sample_b (ids, as ``qkov_pair`` takes them), index_a, index_b
    (numbers in a + b, or in the samples of the Study), q_value (of the slice).
    """
    import pandas as pd
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"top_conflicts takes the Dataset of a qkov_interference, and a {type(ds).__name__} came")
    if "pair_score" not in ds:
        raise LookupError(f"there is no pair_score among {', '.join(map(str, ds.data_vars))}: give a qkov_interference")
    if n < 1:
        raise ValueError(f"n is {n}: ask for at least 1 pair")
    if len(several := ds["pair_score"].dims) > 5:
        raise ValueError(f"there is more than one of {several[0]} here: choose one, such as ds.isel({several[0]}=0)")
    shares, scores = ds["n_sharing"].values, ds["pair_score"].values
    head = np.arange(scores.shape[2])
    once = (head % shares[:, None] == 0)[:, None, :, None, None] & np.isfinite(scores)
    flat = np.where(once, scores, -np.inf).ravel()
    n = min(n, int(once.sum()))
    top = np.argpartition(-flat, n - 1)[:n]
    top = top[np.argsort(-flat[top], kind="stable")]
    block, layer, at, i, j = np.unravel_index(top, scores.shape)
    columns: dict[str, Any] = {"score": flat[top], "block": ds["block"].values[block], "layer": ds["layer"].values[layer]}
    columns |= {"head": ds["head"].values[at], "n_sharing": shares[block]}
    for side, rows in (("a", i), ("b", j)):
        columns |= {f"sample_{side}": ds[f"sample_{side}"].values[rows], f"index_{side}": ds[f"index_{side}"].values[rows]}
    return pd.DataFrame(columns | {"q_value": ds["q_value"].values[block, layer, at]})
