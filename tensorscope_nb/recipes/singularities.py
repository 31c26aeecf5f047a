"""Which tokens stand where the vocabulary is no smooth manifold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.recipes.clouds import numbers
from tensorscope_nb.recipes.fiber_bundle import Bundle, Correction, Rule
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples.tokenize import token_strings
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

Space = Literal["embedding", "unembedding"]


@recipe(
    question="Around which tokens is the embedding no smooth manifold?",
    source="hypotheses: Robinson, Dey & Chiang 2025, arXiv:2504.01002; test: Rényi 1953, our variant",
    needs=("weights",),
)
def embedding_singularities(
    scope: Scope,
    samples: Any = None,
    tokens: Any = None,
    *,
    alpha: float = 1e-3,
    space: Space = "embedding",
    k_min: int | None = None,
    k_max: int | None = None,
    reach: float | None = None,
    correction: Correction = "holm",
    surrogate: bool = True,
    seed: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """Around each token of the vocabulary: the dimension of the embeddings, and whether it changes with the radius.

    What it answers: which tokens see the others with one dimension (as on a manifold), with one that falls as the radius grows
    (as in a fiber bundle), or with one that rises (in neither); and how many such tokens stand around each.
    Equation, window, tests, corrections and caveats: those of ``ts.recipes.fiber_bundle_test``, on the rows of the token
    embedding (``space="unembedding"``: of the language-model head) by Euclidean distance. Ours (``method="renyi"``), not the
    estimator of the paper whose hypotheses they are: Robinson, Dey & Chiang 2025.

    All tokens are tested, and all are sought as neighbours. ``samples`` chooses which to report: those that occur in them,
    with ``n_in_samples``, their number there. ``tokens``, ids, chooses which to test, to save time: corrections are then over
    these, and ``density`` is NaN where a neighbour was not tested.
    Result: on ``[token_id]`` (with the coordinate ``token``, the strings) ``dim`` with its interval, ``dim_small, dim_large,
    transition_radius, p_manifold, p_fiber_small, p_fiber_large, violates_manifold, violates_fiber, density`` and what else
    ``fiber_bundle_test`` gives there, and its scalars, the rates beside those of a Gaussian surrogate. ``density`` is the
    share of a token's k_max neighbours that violate the manifold hypothesis: what is to be looked up for a token of interest.
    Errors: UnsupportedModel for a model without token embedding (or head); ValueError for a vocabulary smaller than the window,
    weights that are no finite numbers, or no token to report. Cost: V² d multiplications in blocks that fit the memory option,
    twice with the surrogate. An interrupt keeps the tokens that are done; the others are NaN.
    How to read it: compare ``dim`` between tokens, and the rates with the surrogate's. A rejection says "not one power law in
    this window". When not to trust it: lexical clusters (digits, plurals, words with a leading space) and tokens that training
    has hardly seen suffice for rejections, without any singularity; a gradient of the density looks like a change of
    dimension. In a vocabulary of a few hundred tokens the 50 neighbours are a good part of all, and no neighbourhood.

    >>> import tensorscope_nb as ts
    >>> found = ts.recipes.embedding_singularities(ts.load("tiny"))
    >>> found["density"].sizes["token_id"], bool(found["dim"].notnull().all())
    (512, True)
    """
    rule = Rule(alpha, correction)
    vectors = _vectors(scope, space)
    n, coords, extra = len(vectors), {}, {}
    of = np.arange(n) if tokens is None else numbers(tokens, n, "tokens", "tokens in the vocabulary")
    shown = of
    if samples is not None:
        given = scope.samples(samples)
        counts = torch.bincount(given.input_ids[given.attention_mask.bool()], minlength=n).numpy()
        if len(counts) > n:
            raise ValueError(f"the samples have token {len(counts) - 1}, and the model knows {n}: were they made for another?")
        shown = of[counts[of] > 0]
        if not len(shown):
            raise ValueError("none of the tokens= occurs in the samples: leave one of the two out")
        extra["n_in_samples"] = ("token_id", counts[shown])
    seed = current().seed if seed is None else seed
    bundle = Bundle(vectors, of, k_min, k_max, reach, surrogate, seed, kind="token")
    yield Work(bundle, "neighbours of tokens", progress)
    coords = {"token_id": shown, "token": ("token_id", np.array(_strings(scope, shown), dtype=object)), **extra}
    return bundle.result(rule, "token_id", shown, coords, space=space, seed=seed)


def _vectors(scope: Scope, space: Space) -> Tensor:
    """(V, d)"""
    if space not in ("embedding", "unembedding"):
        raise ValueError(f"space is {space!r}: choose 'embedding' or 'unembedding'")
    anatomy = scope.anatomy
    path = anatomy.embed if space == "embedding" else anatomy.unembed
    weight = getattr(scope.model.get_submodule(path), "weight", None) if path else None
    if weight is None or weight.ndim != 2 or not anatomy.n_vocab:
        part = "token embedding" if space == "embedding" else "unembedding (no language-model head)"
        raise UnsupportedModel(
            f"no {part}: {scope.name} ({anatomy}) has none that is known; ts.recipes.fiber_bundle_test takes any array"
        )
    vectors = weight.detach()
    return vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors


def _strings(scope: Scope, ids: np.ndarray) -> list[str]:
    """The tokens as text; numbers where there is no tokenizer, or where the embedding has more rows than it."""
    known = len(scope.tokenizer) if scope.tokenizer is not None else 0
    words = token_strings(scope.tokenizer, [int(i) for i in ids if i < known]) if known else []
    return [*words, *(str(i) for i in ids[len(words) :])]
