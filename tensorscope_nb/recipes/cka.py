"""Linear CKA: which layers of two models, or of one, represent the same inputs alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorscope_nb.numerics.alignment import LEAST, Alignment, linear_alignment, spread
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.layer_rows import BETWEEN, LayerRows, constant_layers, rows_of_both, said
from tensorscope_nb.recipes.paired_inputs import paired_inputs
from tensorscope_nb.recipes.recipe import recipe

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

ESTIMATORS = ("unbiased", "biased")
CKA = "centred kernel alignment"
NOTHING_LEFT = "its kernel over pairs of different samples is a sum of one part for each row, and nothing is left of it"


@recipe(
    question="Which layers represent the same inputs alike?",
    source="Kornblith et al. 2019, arXiv:1905.00414; Nguyen et al. 2021, arXiv:2010.15327",
    needs=("activations",),
)
def linear_cka(
    scope_a: Scope,
    scope_b: Scope | None = None,
    samples: Any = None,
    *,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    tokens: Literal["all", "mean", "last"] = "all",
    skip_first: bool = False,
    sites: str | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """How alike every layer of a model and every layer of another (without ``scope_b``: of the same) arrange the same inputs.

    What it answers: whether two representations hold the same inputs to be alike, whatever their widths: turning a layer's
    space, or scaling it as a whole, changes nothing; stretching some directions does. A row is a token (``tokens="all"``;
    padding is left out), or a sample by the mean or the last of its tokens. Of a ViT the patches are tokens; of an MLP or CNN
    a row is always a sample, and a feature map is flattened. ``sites`` names what of a layer is compared: by default
    ``resid_post``, of an MLP or CNN each module's ``out``.

    Equation: with kernels Kᵢⱼ = ⟨xᵢ, xⱼ⟩ and Lᵢⱼ = ⟨yᵢ, yⱼ⟩ of the two layers, cka = ⟨K°, L°⟩ / (‖K°‖ ‖L°‖).
    ``estimator="unbiased"``: over pairs of rows of different samples; K° is K less the nearest aᵢ + aⱼ. With one row for each
    sample this is the unbiased HSIC of Song et al. 2012, as in Nguyen et al. 2021, of all rows at once and not by batches.
    ``"biased"``: over all pairs; K° is the centred kernel, cka = ‖Y′X‖² / (‖X′X‖ ‖Y′Y‖) of centred X, Y. It is near 1 for
    independent rows that are fewer than their width (.98, .92, .75 at 16, 64, 256 rows of 768). Source: Kornblith et al. 2019.

    Result, ``[layer_a, layer_b]``: ``cka`` (1: the same up to rotation and scale; 0: unrelated, the unbiased one may fall below)
    with ``ci_low, ci_high``, the 95 % jackknife interval over samples (of artanh cka; NaN below 5 samples, or where one is all
    that varies). For tokens also ``cka_without_first`` (with its interval), the same without the first token of each sample, and
    ``[layer_a] top_token_share_a, top_token_position_a``, ``[layer_b] top_token_share_b, top_token_position_b``: the part of a
    layer's squared distances from its mean that is a single token's, and where that stands. NaN for a layer in which nothing
    varies between samples, or only what is a sum of a part of each row (rows that are all as far apart): ``undefined`` says
    which.

    Measured: the interval holds the true value in .91 to 1.00 of cases, at 8 to 64 samples of one row or six, in many
    directions and few; around 0 it is too wide by half, and with few directions and mid values at its lowest.
    Errors: ValueError below 4 samples, for texts that two tokenizers cut differently with ``tokens="all"``, for samples whose
    tokens the second model does not share and whose texts are not known, and where the rows exceed the memory option;
    UnsupportedModel for a model without layers. Cost: one forward of each model; rows of all layers are kept, n Σ d numbers;
    then n² Σ d products, or 2 n Σ d_a d_b where those are fewer.
    How to read it: a block of high values is a stretch of layers that do little. Compare cka with cka_without_first first:
    where they differ, or a top_token_share is large, one massive token is what was compared; use ``skip_first=True``. When not
    to trust it: a few directions of large variance decide it, so that 1 − cka says little of the others; the same function can
    be computed in ways that differ. Tokens of one sample share their context, which is why pairs of them are left out: the
    usual unbiased estimate over all tokens was .49 on independent rows whose variance is by half their sample's own (16 samples
    of 16 tokens, width 64), where this one is .01; the biased one counts such pairs.

    >>> import tensorscope_nb as ts
    >>> scope, other = ts.load("tiny"), ts.load("tiny", seed=1)
    >>> cka = ts.recipes.linear_cka(scope, other, ts.datasets.shakespeare(scope, n=8))
    >>> cka["cka"].dims, bool(cka["cka"].sel(layer_a=1, layer_b=1) > cka["cka"].sel(layer_a=1, layer_b=0))
    (('layer_a', 'layer_b'), True)
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}: choose {', '.join(map(repr, ESTIMATORS))}")
    pair = paired_inputs(linear_cka, scope_a, scope_b, samples, tokens)
    pair.require(LEAST)
    a, b = rows_of_both(pair, sites=sites, tokens=tokens, skip_first=skip_first, chunk=chunk, progress=progress)
    first = a.position == 0 if a.position is not None else np.zeros(len(a.sample), dtype=bool)
    kept = {"cka": np.ones(len(a.sample), dtype=bool)}
    if first.any() and tokens == "all":
        kept["cka_without_first"] = ~first
    found = linear_alignment(a.layers, None if b is a else b.layers, a.sample, [*kept.values()], unbiased=estimator == "unbiased")
    variables: dict[str, Variable] = {}
    words = {"cka": CKA, "cka_without_first": f"{CKA}, without the first token of each sample"}
    for name, each in zip(kept, found, strict=True):
        prefix = "" if name == "cka" else f"{name}_"
        variables[name] = (BETWEEN, each.value, words[name], "")
        variables[f"{prefix}ci_low"] = (BETWEEN, each.low, f"{words[name]}, lower end of the 95 % interval", "")
        variables[f"{prefix}ci_high"] = (BETWEEN, each.high, f"{words[name]}, upper end of the 95 % interval", "")
    undefined = constant_layers(a, b)
    undefined |= {layer: NOTHING_LEFT for layer in _without_number(found[0]) if layer not in undefined}
    for side, rows in (("a", a), ("b", b)):
        variables |= _of_tokens(rows, side) if tokens == "all" else {}
    if "cka_without_first" in kept:
        if (few := len(np.unique(a.sample[~first]))) < LEAST:
            undefined["cka_without_first"] = f"{few} samples have a second token, and {LEAST} are needed"
        else:
            more = constant_layers(a, b, ~first)
            more |= {layer: NOTHING_LEFT for layer in _without_number(found[1]) if layer not in more}
            undefined |= {f"{layer} without its first tokens": why for layer, why in more.items() if layer not in undefined}
    result = dataset(variables, **said(pair, a), **({"undefined": undefined} if undefined else {}))
    for name in kept:
        interval = f"95 % jackknife interval over {len(pair.a)} samples, of artanh CKA"
        result[name].attrs |= {"bounds": [0.0, 1.0], "interval": interval}
    return result


def _without_number(found: Alignment) -> list[str]:
    return [f"layer_{side} {i}" for side, has in (("a", found.has_x), ("b", found.has_y)) for i in np.flatnonzero(~has)]


def _of_tokens(rows: LayerRows, side: str) -> dict[str, Variable]:
    """How much of a layer is a single token, and where it stands."""
    if rows.position is None:
        return {}
    shares, positions = np.full(len(rows.layers), np.nan), np.full(len(rows.layers), -1)
    for i, layer in enumerate(rows.layers):
        squares = spread(layer)
        if squares.any():
            shares[i], positions[i] = squares.max() / squares.sum(), rows.position[squares.argmax()]
    dims = (f"layer_{side}",)
    return {
        f"top_token_share_{side}": (dims, shares, f"share of model {side}'s spread that is its largest token's", ""),
        f"top_token_position_{side}": (dims, positions, f"position of the largest token of model {side}, -1 without one", ""),
    }
