"""The empirical Fisher: where its mass sits (by module, layer, head, channel), and its exact spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tensorscope_nb.numerics.intervals import log_t_interval
from tensorscope_nb.recipes.covered import said, sequences
from tensorscope_nb.recipes.dataset import SQUARED, Variable, dataset, sample_coords
from tensorscope_nb.recipes.groups import ByChannel, ByHead, ByLayer, ByModule
from tensorscope_nb.recipes.modules import by_layer
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.sweep.gradients import Reduction
from tensorscope_nb.sweep.reducers import Gram, Masses
from tensorscope_nb.sweep.request import GradientRequest
from tensorscope_nb.sweep.units import Kind, Unit

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

NAMES = {"empirical": "empirical Fisher trace", "mc": "Fisher trace, labels drawn from the model"}
Granularity = Literal["module", "layer", "head", "channel"]
GROUPS: dict[str, Any] = {"module": ByModule, "layer": ByLayer, "head": ByHead, "channel": ByChannel}


@recipe(question="Where does the Fisher information sit?", source="Kunstner et al. 2019, arXiv:1905.12558", needs=("gradients",))
def grouped_fisher(
    scope: Scope,
    samples: Any,
    *,
    granularity: Granularity = "module",
    kind: Kind = "empirical",
    per_sample: bool = False,
    sample_unit: Unit = "sequence",
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The trace of the empirical Fisher over each group of weights, with intervals over samples.

    What it answers: which modules, layers, heads or channels carry the loss's sensitivity on these samples.
    Equation: q_i = Σ_{k ∈ group} g_ik², g_i the gradient of sample i's mean loss with its own labels; importance = mean_i
    q_i, variance = their sample variance. This is the empirical Fisher (data labels), and never the square of a batch
    gradient; ``kind="mc"`` draws one label of each token from the model (by ``seed``), whose mean is the true Fisher.
    ``sample_unit="token"`` takes the gradient of each predicted token's own loss: on the scale of the curvature of the mean
    token loss, at the cost of a row per token. ``reduction="sum"`` takes each sample's summed loss and divides by all
    predicted tokens instead of samples: long samples count for more. Source: Kunstner et al. 2019.

    Result: ``importance, variance, ci_low, ci_high, n_parameters`` on ``[module]``, ``[layer]``, ``[layer, head, block]``
    (block in Q K V O; where heads share K and V, each head shows the shared mass and ``n_sharing`` says how many share it)
    or ``[module, channel]`` (the outputs of a projection, the rows of an embedding, the features of a norm; NaN beyond a
    module's own). With ``per_sample`` also ``importance_by_sample`` with a leading ``sample``. The interval is m exp(± t s
    / (m √n)) over samples (sequences, also where tokens are the unit), nominal 95 %, NaN below 8; on real models it was
    measured to cover .86 to .96, missing mostly with the truth above.
    Errors: UnsupportedModel where the loss or the heads are missing. Cost: one forward and one backward.
    How to read it: a group's share of the trace. When not to trust it: the scale follows the loss and the parametrisation;
    compare groups within one model, or ranks.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> fisher = ts.recipes.grouped_fisher(scope, ts.datasets.shakespeare(scope, n=8), granularity="layer")
    >>> fisher["importance"].dims
    ('layer',)
    """
    samples = scope.samples(samples)
    if granularity not in GROUPS:
        raise ValueError(f"granularity is {granularity!r}: choose among {', '.join(GROUPS)}")
    if granularity == "head":
        scope.anatomy.require_heads()
    groups = GROUPS[granularity](scope)
    masses = Masses(groups)
    options: dict[str, Any] = {"reduction": reduction, "modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(samples, [masses], unit=sample_unit, kind=kind, seed=seed, **options)
    if not masses.values:
        raise LookupError(f"modules={modules!r} leaves no weights in any {granularity}: choose others, or another granularity")
    dims, values, sizes, coords = groups.table(masses.values, covered.parameters)
    values = values[: len(covered.samples)] * len(covered.samples) / covered.divisor
    whole, by_sequence, by_mass = sequences(samples, covered, values)
    m, low, high = log_t_interval(by_mass)
    variance = values.var(0, ddof=1) if len(values) > 1 else np.full_like(m, np.nan)
    words = NAMES[kind]
    variables: dict[str, Variable] = {
        "importance": (dims, m, words, SQUARED),
        "variance": (dims, variance, f"variance of the {words} over {sample_unit}s", SQUARED),
        "ci_low": (dims, low, f"{words}, lower end of the 95 % interval", SQUARED),
        "ci_high": (dims, high, f"{words}, upper end of the 95 % interval", SQUARED),
        "n_parameters": (dims, sizes, "weights in the group", "weights"),
    }
    if isinstance(groups, ByHead):
        variables["n_sharing"] = (("block",), groups.sharing(), "heads that share the group's weights", "heads")
    if per_sample:
        variables["importance_by_sample"] = (("sample", *dims), by_sequence, f"{words}, by sample", SQUARED)
        coords = coords | sample_coords(whole)
    return dataset(variables, coords, **said(samples, whole, covered))


@recipe(
    question="How many directions carry the Fisher information?", source="Martens 2014, arXiv:1412.1193", needs=("gradients",)
)
def fisher_spectrum(
    scope: Scope,
    samples: Any,
    *,
    kind: Kind = "empirical",
    k: int = 5,
    per_sample: bool = False,
    sample_unit: Unit = "sequence",
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The eigenvalues of the empirical Fisher of n samples, exactly, whole and layer by layer.

    What it answers: whether the loss's sensitivity lies in few directions, and in which layers.
    Equation: F = Gᵀ G / n with the per-sample gradients as rows of G; its nonzero eigenvalues are those of the n × n matrix
    K / n, K[i, j] = ⟨g_i, g_j⟩: all of them, with no iteration, and at most n. ``kind``, ``sample_unit`` and ``reduction`` as
    in ``grouped_fisher``.
    Source: Martens 2014.

    Result: ``[component] eigenvalue`` (descending; all n), ``[layer, component] layer_eigenvalue``; ``[layer]
    top_eigenvalue, concentration`` (the k largest over the trace; at least k / n whatever the model), ``effective_rank``
    (exp of the entropy of λ / trace), ``trace``; scalars ``spectral_gap`` (λ₁ − λ₂), ``condition_number`` (∞ where n is
    below the number of weights: F is singular), ``total_concentration``. With ``per_sample`` also ``[sample, layer]
    trace_by_sample`` and ``[sample, component] component_share``, how much of an eigenvector each sample makes. Layer
    spectra are those of the diagonal blocks of F, not of F.
    Errors: UnsupportedModel where the loss is missing; ValueError where not even two samples fit the memory option. Cost:
    one forward and one backward, and n² inner products; where the gradients of all samples do not fit, several passes.
    How to read it: a large concentration says that few directions matter for these samples. When not to trust it: with n
    samples there are n directions at most, so compare at equal n; the top gap says nothing of what can be pruned.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> spectrum = ts.recipes.fisher_spectrum(scope, ts.datasets.shakespeare(scope, n=8))
    >>> spectrum.sizes["component"], bool((spectrum["eigenvalue"] >= 0).all())
    (8, True)
    """
    samples = scope.samples(samples)
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least 1 eigenvalue")
    gram = Gram()
    options: dict[str, Any] = {"reduction": reduction, "modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(samples, [gram], unit=sample_unit, kind=kind, seed=seed, **options)
    n = len(covered.samples)
    grams = {module: k_ij[:n, :n] / covered.divisor for module, k_ij in gram.values.items()}
    total = sum(grams.values())
    whole, shares = _eigenvalues(total)
    of_layers = by_layer(scope, grams)
    layers, blocks = list(of_layers), list(of_layers.values())
    in_layers = np.array([_eigenvalues(block)[0] for block in blocks]).reshape(len(layers), n)
    traces = in_layers.sum(1)
    weights = sum(p.tensor.nelement() for p in covered.parameters)
    eigenvalue, share = f"eigenvalue of the {NAMES[kind].removesuffix(' trace')}", "share of the trace"
    variables: dict[str, Variable] = {
        "eigenvalue": (("component",), whole, eigenvalue, SQUARED),
        "layer_eigenvalue": (("layer", "component"), in_layers, f"{eigenvalue}, of the layer's block", SQUARED),
        "top_eigenvalue": (("layer",), in_layers[:, 0], f"largest {eigenvalue}", SQUARED),
        "concentration": (("layer",), in_layers[:, :k].sum(1) / traces, f"the {k} largest eigenvalues", share),
        "effective_rank": (("layer",), [_effective_rank(row) for row in in_layers], "effective rank", "directions"),
        "trace": (("layer",), traces, NAMES[kind], SQUARED),
        "spectral_gap": ((), whole[0] - whole[1] if n > 1 else np.nan, "largest eigenvalue minus the second", SQUARED),
        "condition_number": ((), np.inf if n < weights else whole[0] / whole[weights - 1], "condition number", ""),
        "total_concentration": ((), whole[:k].sum() / whole.sum(), f"the {k} largest eigenvalues", share),
    }
    coords: dict[str, Any] = {"layer": layers}
    done = covered.samples
    if per_sample:
        done, _, component = sequences(samples, covered, shares)
        by_block = np.stack([np.diagonal(block) for block in blocks], 1) * n if blocks else np.zeros((n, 0))
        _, by_sample, _ = sequences(samples, covered, by_block)
        variables["trace_by_sample"] = (("sample", "layer"), by_sample, f"{NAMES[kind]}, by sample", SQUARED)
        words = "share of the sample in the component"
        variables["component_share"] = (("sample", "component"), component * n / len(done), words, "")
        coords |= sample_coords(done)
    elif covered.source is not None:
        done = samples[: int(covered.source.max()) + 1]
    return dataset(variables, coords, **said(samples, done, covered))


def _eigenvalues(gram: Any) -> tuple[np.ndarray, np.ndarray]:
    """Descending (what rounding leaves below zero is zero), and the share of each sample in each eigenvector."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp(min=0).numpy(), (vectors.flip(1) ** 2).numpy()


def _effective_rank(eigenvalues: np.ndarray) -> float:
    if not eigenvalues.sum() > 0:
        return float("nan")
    p = eigenvalues[eigenvalues > 0] / eigenvalues.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
