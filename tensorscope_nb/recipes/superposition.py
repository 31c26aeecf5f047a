"""Superposition: how many directions a model keeps in how few dimensions, and what they do to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics.frames import Frame, random_score, welch_bound
from tensorscope_nb.recipes.activation_overlap import ActivationOverlap, layer_variables
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.scope.forward import cause_of_nan
from tensorscope_nb.sweep import sweep

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from tensorscope_nb.scope import Scope

NEARLY_ALL, MANY, ABOUT = 0.9, 2.0, 1.5  # the rule for the regime; our choice, stated in the docstring


@recipe(
    question="How much are features packed into fewer dimensions?",
    source="Liu, Liu & Gore 2025, arXiv:2505.10465; Elhage et al. 2022, arXiv:2209.10652",
    needs=("weights",),
)
def superposition(
    scope: Scope,
    samples: Any = None,
    *,
    per_sample: bool = False,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """How far the directions that neurons write along, and those of the vocabulary, overlap; and what that costs on real text.

    What it answers: whether a layer's neurons write along directions that are more alike than random ones, how many dimensions
    each has for itself, whether the vocabulary is kept in superposition; with ``samples``, how much of the others a neuron
    would read along its own direction.
    Equation: W_i, the columns of a layer's down-projection, n directions in m dimensions (n = d_mlp, m = d_model; that these
    are the features is our choice). ``score`` = m · mean_{i≠j} cos²(W_i, W_j) by ‖Σ ŵ ŵᵀ‖²: 1 for random directions, above 1
    where they cluster, 0 where they are orthogonal, and at least (n − m) / (n − 1). ``dimensionality`` D_i = ‖W_i‖² /
    Σ_j (Ŵ_i · W_j)² (Elhage et al.): 1 for a direction of its own, 1/2 for one of an antipodal pair.
    ``features_per_dimension`` = Σ_i (‖W_i‖ / median)² / m, ‖W‖_F²/m of Elhage et al. free of scale: theirs counts norms of
    about 1, ours those of about the median. On the language-model head, rows normalised likewise: ``phi_half`` and
    ``phi_one``, the shares of norms above 1/2 and 1 of the median (half, by construction, are above 1 of it);
    ``mean_square_overlap`` of the unit rows, 1/m for random ones, beside ``welch_bound`` (n − m) / (m (n − 1)), the least there
    is (its root is Welch's bound on the largest |cos|). Source: Liu, Liu & Gore 2025 (head), Elhage et al. 2022.
    The regime (attribute ``regime``) is claimed from norms and sizes, by a rule of ours: ``"none"`` where n ≤ m; ``"strong"``
    where ``phi_half`` ≥ .9 and n ≥ 2 m; ``"weak"`` where ``phi_half`` · n ≤ 1.5 m, about as many tokens represented as there are
    dimensions; else ``"between"``; ``"unknown"`` without a head.

    Result: ``[layer] score, null, null_ci_low, null_ci_high``, the null that of as many independent random directions with
    its 95 % interval (weights are no sample: the score itself has none), ``score_z``, how far it lies from there in standard
    deviations of the null, ``score_centred``, the score of the directions less their mean (of random ones about 1, too),
    ``features_per_dimension``, ``n_zero`` (directions of norm zero: left out of everything, NaN where there is one number per
    neuron); ``[layer, neuron] dimensionality``; the scalars above, with ``mean_square_overlap_null`` and its interval, and
    ``mean_square_overlap_centred``, of the rows less their mean: the rest is a direction that all share. A multilayer perceptron
    of Linear layers has the columns of each as directions, one for each input, and no head. With ``samples``, from a_j, what
    enters the down-projection at each token: ``[layer] interference``, the mean over tokens and neurons of (Σ_{j≠i} a_j cos_ij)²,
    ``interference_ratio``, over the mean of a_i², beside ``interference_ratio_null`` (n − 1) / m of random directions, all with
    95 % Student intervals over sequences; both ``…_without_first`` token, and ``top_token_share``, the share of one token in it:
    massive activations can be most of it. ``sparsity``: of each token, 1 where one neuron is active, 0 where all alike, by
    Treves–Rolls on |a| and so without a threshold (.36 for Gaussian activations); ``[layer, neuron] neuron_interference`` with
    its interval, ``neuron_power``, E a_i². With ``per_sample`` also ``[sample, layer] interference_by_sample``. Units: none;
    interference and power in squared activations.
    Errors: UnsupportedModel for a model without MLP blocks known here, with samples also where their activations cannot be
    read; ValueError for ``per_sample`` without samples, and for
    weights that are not finite. Without a head its scalars are NaN and ``notes`` say so. Cost: 4 n m²
    per layer and 2 n m² for the head, in double precision; with samples one forward, and per token and layer 2 n m.
    How to read it: compare layers by ``score`` beside its null, and models at equal n and m. When not to trust it: a mean
    direction shared by all raises scores, those that are not centred (in SmolLM2's head it is nearly all of the overlap); norms
    say what is represented only where they are of two kinds, as in the papers' toy models, and a median says nothing where less
    than half of the features are represented. Overlap is no cost where the two are never active together: that is what
    ``interference`` with samples is for. It takes directions with norm 1, as the score does; a norm after the MLP (Gemma, OLMo 2)
    rescales what is written.

    >>> import tensorscope_nb as ts
    >>> found = ts.recipes.superposition(ts.load("tiny"))
    >>> found["score"].dims, found["dimensionality"].sizes["neuron"], found.attrs["regime"]
    (('layer',), 192, 'strong')
    """
    if per_sample and samples is None:
        raise ValueError("per_sample=True and there are no samples: what it adds is of each sample, pass samples")
    directions = [_finite(rows, scope) for rows in _directions(scope)]
    frames = [Frame.of(rows) for rows in directions]
    notes: list[str] = []
    variables = _of_layers(frames)
    head, regime = _of_head(scope, notes)
    coords: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if samples is not None:
        samples = scope.samples(samples)
        if scope.anatomy.table is None:
            raise UnsupportedModel(
                f"no site layers.*.mlp.post in {scope.name}: interference reads what enters the down-projections of a "
                "transformer; leave samples out"
            )
        kept = ActivationOverlap(directions)
        sweep(scope, samples, [kept], chunk=chunk, progress=progress, label="interference")
        variables |= layer_variables(kept, [frame.n for frame in frames], frames[0].m)
        variables |= _of_neurons(kept, len(frames))
        if per_sample:
            sums = kept.result()
            by_sample = sums["interference"] / sums["tokens"]
            words = "what a neuron reads of the others, mean square"
            variables["interference_by_sample"] = (("sample", "layer"), by_sample, words, "squared activation")
            coords = sample_coords(samples)
        more = {"n_used": len(samples), "n_available": len(samples)}
    result = dataset(variables | head, coords, **more, regime=regime, notes=notes)
    result.attrs["regime"] = regime
    for name in ("interference", "interference_ratio", "sparsity", "neuron_interference") if samples is not None else ():
        result[name].attrs["interval"] = f"95 % Student interval over {len(samples)} sequences"
    result["score"].attrs["null"] = "independent random directions"
    result["null"].attrs["interval"] = "where 95 % of scores of random directions lie"
    return result


def _directions(scope: Scope) -> list[Tensor]:
    """Of each layer (n, m): what each neuron writes; in an MLP of Linear layers, what each input does."""
    anatomy, model = scope.anatomy, scope.model
    if anatomy.family == "mlp":
        return [model.get_parameter(f"{name}.weight").detach().T for name in anatomy.names]
    if "mlp_out" not in anatomy.blocks:
        raise UnsupportedModel(
            f"no MLP blocks that are known in {scope.name} ({anatomy.family}): superposition reads the columns of their "
            "down-projections, or of the layers of an MLP of Linear layers"
        )
    weights = [model.get_parameter(f"{anatomy.module(i, 'mlp_out')}.weight").detach() for i in range(anatomy.n_layers)]
    return [weight if anatomy.transposed else weight.T for weight in weights]


def _finite(rows: Tensor, scope: Scope) -> Tensor:
    if not bool(rows.isfinite().all()):
        raise ValueError(f"the weights of {scope.name} make no overlap: {cause_of_nan(scope.model)}")
    return rows


def _of_layers(frames: list[Frame]) -> dict[str, Variable]:
    dims = ("layer",)
    centred = np.array([frame.centred_score for frame in frames])
    deviation, low, high = np.array([random_score(frame.n, frame.m) for frame in frames]).T
    score = np.array([frame.score for frame in frames])
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(deviation > 0, (score - 1) / deviation, np.nan)
    features = np.array([(frame.relative_norms() ** 2).sum() / frame.m for frame in frames])
    words = "score of random directions"
    return {
        "score": (dims, score, "overlap of directions, 1 = random", ""),
        "score_centred": (dims, centred, "overlap of directions less their mean, 1 = random", ""),
        "null": (dims, np.where(np.isfinite(score), 1.0, np.nan), words, ""),
        "null_ci_low": (dims, low, f"{words}, lower end of the 95 % interval", ""),
        "null_ci_high": (dims, high, f"{words}, upper end of the 95 % interval", ""),
        "score_z": (dims, z, "score's distance from random", "standard deviations"),
        "features_per_dimension": (dims, features, "features per dimension", ""),
        "n_zero": (dims, np.array([frame.n_zero for frame in frames]), "directions of norm zero", "neurons"),
        "dimensionality": (("layer", "neuron"), _padded([f.dimensionality for f in frames]), "dimensions that it has", ""),
    }


def _of_neurons(kept: ActivationOverlap, n_layers: int) -> dict[str, Variable]:
    columns = zip(*(kept.of_neurons(i) for i in range(n_layers)), strict=True)
    mean, low, high, power = (_padded(list(column)) for column in columns)
    dims, words, unit = ("layer", "neuron"), "what the neuron reads of the others, mean square", "squared activation"
    return {
        "neuron_interference": (dims, mean, words, unit),
        "neuron_interference_ci_low": (dims, low, f"{words}, lower end of the 95 % interval", unit),
        "neuron_interference_ci_high": (dims, high, f"{words}, upper end of the 95 % interval", unit),
        "neuron_power": (dims, power, "mean square of its activation", unit),
    }


def _of_head(scope: Scope, notes: list[str]) -> tuple[dict[str, Variable], str]:
    path = scope.anatomy.unembed
    if path:
        frame = Frame.of(_finite(scope.model.get_parameter(f"{path}.weight").detach(), scope), each=False)
        norms = frame.relative_norms()
        half, one = float((norms > 0.5).mean()), float((norms > 1).mean())
        n, m, overlap, welch = len(norms), frame.m, frame.mean_square_overlap, welch_bound(frame.n, frame.m)
        centred = frame.centred_overlap
        _, low, high = (x / m for x in random_score(frame.n, m))
        null, regime = 1 / m, _regime(half, n, m)
        if frame.n_zero:
            notes.append(f"{frame.n_zero} of the {n} rows of the head are zero: left out of the overlap, and counted in phi")
    else:
        half = one = overlap = centred = welch = null = low = high = np.nan
        regime = "unknown"
        notes.append("there is no language-model head: its scalars are NaN")
    words, ends = "mean square overlap of random rows", ("lower", "upper")
    return {
        "phi_half": ((), half, "share of head rows with a norm above half the median", ""),
        "phi_one": ((), one, "share of head rows with a norm above the median", ""),
        "mean_square_overlap": ((), overlap, "mean square overlap of the head's unit rows", ""),
        "mean_square_overlap_centred": ((), centred, "mean square overlap of the head's rows less their mean, as unit rows", ""),
        "mean_square_overlap_null": ((), null, words, ""),
        "mean_square_overlap_null_ci_low": ((), low, f"{words}, {ends[0]} end of the 95 % interval", ""),
        "mean_square_overlap_null_ci_high": ((), high, f"{words}, {ends[1]} end of the 95 % interval", ""),
        "welch_bound": ((), welch, "least mean square overlap of so many rows", ""),
    }, regime


def _regime(phi_half: float, n: int, m: int) -> str:
    if n <= m:
        return "none"
    if phi_half >= NEARLY_ALL and n >= MANY * m:
        return "strong"
    return "weak" if phi_half * n <= ABOUT * m else "between"


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of different lengths, NaN behind the shorter ones."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table
