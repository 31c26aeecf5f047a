"""The extreme eigenvalues of the loss's curvature: of its Hessian, its Gauss–Newton part, and the Fisher matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tensorscope_nb.recipes.dataset import SQUARED
from tensorscope_nb.recipes.eigenpairs import CURVATURE, by_products, layer_by_layer
from tensorscope_nb.recipes.gram_spectrum import by_gram, gram_serves
from tensorscope_nb.recipes.modules import modules_of_layer
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.search import Which
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.gradients import Reduction
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.units import Unit, units

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

FisherKind = Literal["ggn", "empirical", "mc"]
FISHER = {
    "ggn": ("Gauss–Newton", CURVATURE),
    "empirical": ("empirical Fisher", SQUARED),
    "mc": ("drawn-label Fisher", SQUARED),
}


@recipe(
    question="How sharp is the loss, in which directions, and does it curve downwards anywhere?",
    source="Ghorbani et al. 2019, arXiv:1901.10159",
    needs=("second derivatives",),
)
def hessian_eigenvalues(
    scope: Scope,
    samples: Any,
    *,
    k: int = 20,
    which: Which = "LA",
    layer: int | Literal["each"] | None = None,
    vectors: bool = False,
    density: int = 0,
    density_range: tuple[float, float] | None = None,
    tolerance: float = 1e-4,
    max_products: int | None = None,
    per_sample: bool = False,
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The extreme eigenvalues of the Hessian of the mean loss, each with its residual.

    What it answers: how fast the loss rises along its sharpest directions (``which="LA"``, the largest values), whether and
    how far it curves downwards (``"SA"``), both ends (``"BE"``, half from each), or the largest by size (``"LM"``).
    Equation: H = ∇²L at these weights and these samples, L = mean_i ℓ_i with ℓ_i the mean loss of a sample
    (``reduction="sum"``: the mean over all predicted tokens). H v by two backwards (Pearlmutter 1994) through a graph that
    is kept; eigenpairs by thick-restart Lanczos with full orthogonalisation (Wu & Simon 2000), until ‖H v − λ v‖ ≤
    ``tolerance`` · max |λ| for each, and a fresh random direction has been tried for copies of a repeated eigenvalue.
    Source: Ghorbani et al. 2019; Yao et al. 2020, arXiv:1912.07145.

    Result: ``[component] eigenvalue`` (descending), ``residual`` (some eigenvalue lies within it of λ), ``converged``; scalar
    ``lowest``, the lowest curvature that any direction tried has shown: below zero, by more than the smallest residual, it
    proves that the loss curves downwards somewhere, whatever ``which`` asked for; above zero it proves nothing (ask for
    ``which="SA"``). ``layer=2`` takes the diagonal block of one layer, ``layer="each"`` one search per layer: ``[layer,
    component] eigenvalue, residual, converged`` and ``[layer] top_eigenvalue, lowest``, and nothing of what follows here.
    With ``vectors`` also ``[component, parameter] eigenvector`` (``ts.unflatten`` gives them the shapes of the parameters).
    With ``per_sample`` also ``[sample, component] curvature_by_sample``, vᵀ∇²ℓ_i v: which samples make a direction sharp;
    their mean is the eigenvalue. ``density=10`` adds the spectral density by stochastic Lanczos quadrature with so many
    random vectors: ``[curvature] density`` and the scalar ``trace``, each with its interval over those vectors (nominal 95 %;
    of the density measured .9 point by point), of 64 products each; ``density_range`` fixes its ends, so that the checkpoints
    of a Study have the same, which they need. Attributes ``n_products, method``. Units: loss per weight².
    Errors: ValueError for a k beyond the weights, or whose basis of k + 8 vectors does not fit the memory option;
    UnsupportedModel for half precision, for attention without a second derivative, and where samples mix; MemoryError where
    a product does not fit. What has not converged in ``max_products`` says so, with a warning. Cost: three to four products
    per eigenvalue where the ends stand off from the rest, else more, each some two forwards and backwards of all samples;
    memory of about 4 k vectors the size of the model, or as few as k + 8 where the memory option allows no more, and as much
    again for the graphs. ``per_sample`` costs several products per component.
    How to read it: along an eigenvector of λ, gradient descent is stable for learning rates below 2 / λ. When not to trust it:
    the Hessian is of these samples; another draw moves it; under a rescaling of the weights that leaves the function alone it
    changes. In a ReLU network it is that of the linear piece on which the weights stand, and sees no kinks.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> hessian = ts.recipes.hessian_eigenvalues(scope, ts.datasets.shakespeare(scope, n=4, length=16), k=2)
    >>> hessian["eigenvalue"].dims, bool(hessian["converged"].all())
    (('component',), True)
    """
    samples = scope.samples(samples)
    if layer is not None and modules is not None:
        raise ValueError("layer= and modules= both choose weights: give one of them")
    if layer == "each" and (vectors or density or per_sample):
        raise ValueError('layer="each" gives eigenvalues only: ask for vectors, density or per_sample with a single layer')
    options: dict[str, Any] = {"k": k, "which": which, "tolerance": tolerance, "max_products": max_products, "seed": seed}
    options |= {"chunk": chunk, "progress": progress}
    if layer == "each":
        places = [modules_of_layer(scope, i) for i in range(scope.anatomy.n_layers)]
        objectives = [Objective(scope, samples, modules=place, reduction=reduction) for place in places]
        return (yield from layer_by_layer(objectives, "hessian", "Hessian", CURVATURE, **options))
    objective = Objective(
        scope, samples, modules=modules if layer is None else modules_of_layer(scope, layer), reduction=reduction
    )
    options |= {"vectors": vectors, "per_sample": per_sample, "density": density, "density_range": density_range}
    return (yield from by_products(objective, "hessian", "Hessian", CURVATURE, n_samples=len(samples), **options))


@recipe(
    question="Along which directions does the model's prediction change most?",
    source="Kunstner et al. 2019, arXiv:1905.12558",
    needs=("gradients", "second derivatives"),
)
def fisher_eigenvalues(
    scope: Scope,
    samples: Any,
    *,
    k: int = 20,
    kind: FisherKind = "ggn",
    method: Literal["gram", "lanczos"] | None = None,
    vectors: bool = False,
    tolerance: float = 1e-4,
    max_products: int | None = None,
    per_sample: bool = False,
    sample_unit: Unit = "sequence",
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The largest eigenvalues of a Fisher matrix of the model, each with its residual.

    What it answers: the directions in weight space along which the model's predictions (``"ggn"``) or the losses of single
    samples (``"empirical"``) change most, and how much.
    Equation: ``kind="ggn"``: G = mean_i J_iᵀ H_i J_i, J_i the derivative of the outputs and H_i the Hessian of the loss at
    them. With cross-entropy this is the true Fisher, the expectation over the model's own labels (Martens 2014), and the part
    of the Hessian that is left when the outputs are linear in the weights. ``"empirical"``: F = mean_i g_i g_iᵀ, g_i the
    gradient of a sample's own loss with the data's labels: neither of these, and never the square of a batch gradient.
    ``"mc"``: the same with one label drawn from the model for each prediction; its expectation over draws is G for a
    classifier, and for a language model with ``reduction="sum"`` or ``sample_unit="token"`` the G of ``reduction="sum"``,
    where each token counts alike. Under the mean over a sequence of n tokens its part of F is n times smaller than its part
    of G. ``sample_unit`` and ``reduction`` as in ``grouped_fisher``.
    Source: Kunstner et al. 2019; Martens 2014, arXiv:1412.1193.

    Result: ``[component] eigenvalue`` (descending), ``residual``, ``converged``; with ``vectors`` ``[component, parameter]
    eigenvector`` (see ``ts.unflatten``); with ``per_sample`` ``[sample, component] curvature_by_sample``, vᵀ C_i v, whose
    mean is the eigenvalue. Attributes ``n_products, method``. Empirical and drawn Fishers of up to a few thousand samples go
    through the n × n matrix of inner products (``method="gram"``): exactly, without iteration, in one sweep that other
    recipes share, and what lies beyond rank n is zero. Else Lanczos, as in ``hessian_eigenvalues``.
    Units: loss per weight² (``"ggn"``), squared gradient of the loss.
    Errors and cost: as for ``hessian_eigenvalues``; a product of G is some 1.5 forwards and backwards.
    How to read it: compare the spectrum of G with that of the Hessian: where they part, the residual losses curve.
    When not to trust it: the empirical Fisher follows the size of the losses, not only the model.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> fisher = ts.recipes.fisher_eigenvalues(scope, ts.datasets.shakespeare(scope, n=8, length=16), k=3, kind="empirical")
    >>> fisher.attrs["method"], bool(fisher["converged"].all())
    ('gram: exact', True)
    """
    samples = scope.samples(samples)
    if kind not in FISHER:
        raise ValueError(f"kind is {kind!r}: choose among {', '.join(FISHER)}")
    if method not in (None, "gram", "lanczos"):
        raise ValueError(f"method is {method!r}: choose 'gram', 'lanczos', or None for what fits")
    if kind == "ggn" and (method == "gram" or sample_unit != "sequence"):
        came = "method='gram'" if method == "gram" else f"sample_unit={sample_unit!r}"
        raise ValueError(f"{came} is of single gradients, and kind='ggn' is made of none: choose kind='empirical' or 'mc'")
    words, unit = FISHER[kind]
    common: dict[str, Any] = {"k": k, "vectors": vectors, "per_sample": per_sample, "progress": progress}
    if kind != "ggn" and (method == "gram" or (method is None and gram_serves(scope, samples, sample_unit, modules))):
        asked: dict[str, Any] = {"unit": sample_unit, "kind": kind, "seed": seed, "reduction": reduction, "modules": modules}
        return (yield from by_gram(scope, samples, words, unit, chunk=chunk, **asked, **common))
    if per_sample and sample_unit == "token":
        raise ValueError("per_sample by tokens goes through their inner products: ask for method='gram', or for fewer samples")
    if kind == "ggn":
        objective = Objective(scope, samples, modules=modules, reduction=reduction)
    else:
        drawn, _ = units(scope, samples, sample_unit, kind, current().seed if seed is None else seed)
        objective = Objective(scope, drawn, modules=modules, reduction=reduction)
    options: dict[str, Any] = {"which": "LA", "tolerance": tolerance, "max_products": max_products, "seed": seed, "chunk": chunk}
    matrix: Literal["ggn", "fisher"] = "ggn" if kind == "ggn" else "fisher"
    return (yield from by_products(objective, matrix, words, unit, n_samples=len(samples), **options, **common))
