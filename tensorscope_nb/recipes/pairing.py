"""How heads work together: what later heads read of what earlier ones write, and what a head's attention has to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics.composed import LEAST, beyond_the_others, chance, tail, third_moment
from tensorscope_nb.numerics.intervals import correlation_interval, fisher_z, t_test
from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.recipes.attended_values import AttendedValues
from tensorscope_nb.recipes.composition import KINDS, Compositions, compositions
from tensorscope_nb.recipes.copying import copying
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.sweep import sweep

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.numerics.composed import Array
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.scope.anatomy import Anatomy

PAIRS = ("kind", "source", "target")
BY_HEAD = ("layer", "head")
R = "correlation"


@recipe(
    question="Which heads read what other heads write?",
    source="Elhage et al. 2021, transformer-circuits.pub/2021/framework; used as in Olsson et al. 2022, arXiv:2209.11895",
    needs=("weights", "scores", "v"),
)
def qk_ov_pairing(
    scope: Scope,
    samples: Any = None,
    *,
    offset: int | None = None,
    weighted: bool = False,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """The composition of every two heads from their weights, and how each head's attention goes with what it would write.

    What it answers: which heads could form a circuit; ``ts.recipes.circuits`` lists those that stand out.
    Equation, W_OV = W_O W_V and W_QK = W_Qᵀ W_K on column vectors, source s in a layer below that of the target t:
    Q ‖W_QK^tᵀ W_OV^s‖, K ‖W_QK^t W_OV^s‖, V ‖W_OV^t W_OV^s‖ (Frobenius), each over the product of the two norms. Folded in: the
    gain of the norm before attention, of norms of q and k and of a norm behind attention; LayerNorms also centre (and so take
    the mean direction from what is written). Not in it: the norms' scales, which depend on the position, biases, MLPs, and
    rotary embeddings unless ``offset`` says how many positions the query stands after the key. Source: Elhage et al. 2021.

    Result: ``[kind, source, target] composition`` (0 to 1; heads are named ``"layer.head"``; NaN where the target cannot read
    the source), with two answers to "compared with what?". (1) Chance: written and read subspaces independent and uniformly
    oriented, in d dimensions (one less where the norm centres). ``null`` = 1/√d, the root mean square; ``composition_z``, how
    many standard deviations composition² is above 1/d; ``composition_p_value`` (one-sided, by a gamma law of the same three
    moments: values ≤ .05 and ≤ .001 come at most 1.2 and 2 times as often as they should, ≤ .0001 up to 5 times where one
    singular value is ahead of all), ``composition_q_value`` (BH over all pairs and kinds). Trained heads share directions, so
    that most pairs exceed it. (2) The same two layers: ``expected``, the median of the source's compositions with all other
    readers (Q, K, V of each head) there, plus the median of this reader's with the other sources, less that of the pairs of all
    these others; ``excess`` = composition − expected, ``excess_z`` in robust standard deviations over the pairs of the two
    layers, ``excess_q_value`` (Student's upper tail, BH over all): what two heads do beyond what each does with everyone. NaN
    below 3 heads. ``[layer, head] copying_eigen``, Re Σλ / Σ|λ| of W_U W_OV W_E: 1 where a head raises the very tokens it reads,
    −1 where it lowers them; ``copying_eigen_chance``, its standard deviation were what it writes oriented at random. NaN with the
    reason in ``attrs`` for a model that predicts no next token.

    With ``samples``, of at least 2 sequences, ``[layer, head] qk_ov_correlation``: over the keys s ≤ t of queries t whose token
    occurred before, within each query, r of the attention score q_t·k_s (as the model has it, before softmax) and of the direct
    logit of the token that follows t, over the mean logit, by W_O v_s alone, the final norm at its actual scale: what the head
    would write if it looked at s alone. (``weighted`` multiplies by the attention, which rises with the score: inflated.)
    tanh of the mean over sequences of atanh r, ``ci_low, ci_high`` 95 % Student; ``qk_ov_correlation_null``, the same with the
    targets exchanged between queries of a sequence (which takes 2 of them); ``p_value``, two-sided, that the two are equal;
    ``q_value`` by BH over heads; ``[sample] n_queries``.

    Errors: UnsupportedModel without heads, without rotary embedding (``offset``) or next token (``samples``); ValueError for
    weights that are not finite. Cost: layers² / 2 products of (heads · d_head) × d_model matrices in single precision (relative
    error about 1e-6); with samples one forward.
    How to read it: sort by ``excess_z``. When not to trust it: weights say what could be read, not what is there to read;
    ``ablation`` says what matters. ``excess_q_value`` takes what is left for normal: see ``circuits``. Under rotary embeddings a
    K or Q composition can exist at one ``offset`` and not at another. In a correlation the first token, where much attention
    rests, weighs heavily. The null is no exact control of position: where the tokens of a repeated block all differ, the true
    next token was last read one period ago, an exchanged one perhaps just now. A head that looks by position alone then differs
    from its null by a little, with a small p (layer 0 of "tiny": |r| < .02): look at r, not at q alone.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> pairs = ts.recipes.qk_ov_pairing(scope, ts.datasets.repeats(scope, n=8))
    >>> pairs["excess_z"].sel(kind="K", source="0.0").idxmax("target").item()    # an induction head, and what it reads
    '1.1'
    """
    anatomy = scope.anatomy
    anatomy.require_heads()
    if samples is not None:
        samples = _checked(scope, samples)
    found = compositions(scope, offset, progress)
    copies = copying(scope)
    variables = _pair_variables(found, anatomy)
    coords = {"kind": list(KINDS), **_heads(anatomy, "source"), **_heads(anatomy, "target")}
    said: dict[str, Any] = {}
    if samples is not None:
        attended = AttendedValues(scope, weighted)
        sweep(scope, samples, [attended], chunk=chunk, label="scores and values", progress=progress)
        (right, others), n_queries = attended.result()
        variables |= _correlations(right, others)  # first by head: the plain ci_low and ci_high are theirs
        variables["n_queries"] = (("sample",), n_queries, "positions whose token occurred before", "positions")
        coords["sample"] = np.array(samples.ids, dtype=object)
        said = {"n_used": len(samples)}
    variables["copying_eigen"] = (BY_HEAD, copies.score, "copying by eigenvalues", "")
    variables["copying_eigen_chance"] = (BY_HEAD, copies.chance, "copying by eigenvalues, standard deviation by chance", "")
    result = dataset(variables, coords, **said)
    result["composition"].attrs |= {"null": "independent subspaces, uniformly oriented", "bounds": [0.0, 1.0]}
    for variable in (v for v in result.data_vars.values() if v.dims == PAIRS):
        variable.attrs["nan"] = "the target cannot read the source"
    if copies.reason:
        result["copying_eigen"].attrs["reason"] = copies.reason
    if anatomy.n_layers < 2:
        result["composition"].attrs["reason"] = "there is 1 layer, and a head reads what layers below it wrote"
    if anatomy.n_heads < LEAST:
        result["excess"].attrs["reason"] = f"{anatomy.n_heads} heads in a layer: a median of the others takes {LEAST}"
    if samples is not None:
        interval = f"95 % Student interval over {len(samples)} sequences"
        if not n_queries.any():
            result["qk_ov_correlation"].attrs["reason"] = "in no sequence does a token occur again with one after it"
        result["qk_ov_correlation"].attrs |= {"interval": interval, "p_value": "that it equals qk_ov_correlation_null"}
    return result


def _checked(scope: Scope, samples: Any) -> Any:
    if scope.anatomy.task != "causal":
        raise UnsupportedModel(f"no next token: {scope.name} is no causal language model with its head: leave samples out")
    scope.require_patterns()
    samples = scope.samples(samples)
    if len(samples) < 2:
        raise ValueError("there is 1 sample: a correlation is tested over sequences, give at least 2")
    return samples


def _heads(anatomy: Anatomy, side: str) -> dict[str, Any]:
    layer, head = (x.ravel() for x in np.indices((anatomy.n_layers, anatomy.n_heads)))
    return {
        side: np.array([f"{i}.{j}" for i, j in zip(layer, head, strict=True)], dtype=object),
        f"{side}_layer": (side, layer),
        f"{side}_head": (side, head),
        f"{side}_kv_head": (side, head // (anatomy.n_heads // anatomy.n_kv_heads)),  # equal where K and V are shared
    }


def _pair_variables(found: Compositions, anatomy: Anatomy) -> dict[str, Variable]:
    mean, sd = chance(found.source_purity, found.target_purity, found.dimensions)
    composition = np.sqrt(found.squared)
    third = third_moment(found.source_purity, found.source_cubes, found.target_purity, found.target_cubes, found.dimensions)
    p = tail(found.squared, mean, sd, third)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 0, (found.squared - mean) / sd, np.nan)
    expected, excess_z, excess_p = _beside_the_others(composition)
    null = np.where(np.isfinite(found.squared), np.sqrt(mean), np.nan)
    tables: dict[str, tuple[Array, str, str]] = {
        "composition": (composition, "composition", ""),
        "null": (null, "composition by chance, root mean square", ""),
        "composition_z": (z, "above chance", "sd"),
        "composition_p_value": (p, "p of a composition above chance", ""),
        "composition_q_value": (q_values(p), "q of a composition above chance, over all pairs", ""),
        "expected": (expected, "expected of the two heads", ""),
        "excess": (composition - expected, "excess over what is expected", ""),
        "excess_z": (excess_z, "excess", "sd"),
        "excess_q_value": (q_values(excess_p), "q of such an excess, over all pairs", ""),
    }
    n = anatomy.n_layers * anatomy.n_heads
    return {name: (PAIRS, values.reshape(len(KINDS), n, n), words, unit) for name, (values, words, unit) in tables.items()}


def _beside_the_others(composition: Array) -> tuple[Array, Array, Array]:
    """Of every two layers one table, sources by readers: the queries, keys and values of the target's heads."""
    kinds, layers, heads = composition.shape[:3]
    by_layers = composition.transpose(1, 3, 2, 0, 4).reshape(layers, layers, heads, kinds * heads)
    found = (x.reshape(layers, layers, heads, kinds, heads).transpose(3, 0, 2, 1, 4) for x in beyond_the_others(by_layers))
    expected, z, p = found
    return expected, z, p


def _correlations(right: Array, others: Array) -> dict[str, Variable]:
    p = t_test(fisher_z(right) - fisher_z(others))
    r, low, high = correlation_interval(right)
    null = correlation_interval(others)[0]
    words = "attention score with the direct logit of the next token"
    return {
        "qk_ov_correlation": (BY_HEAD, r, words, R),
        "ci_low": (BY_HEAD, low, f"{words}, lower end of the 95 % interval", R),
        "ci_high": (BY_HEAD, high, f"{words}, upper end of the 95 % interval", R),
        "qk_ov_correlation_null": (BY_HEAD, null, "attention score with the direct logit of other queries' next tokens", R),
        "p_value": (BY_HEAD, p, "p of a difference from the null", ""),
        "q_value": (BY_HEAD, q_values(p), "q of a difference from the null, over all heads", ""),
    }
