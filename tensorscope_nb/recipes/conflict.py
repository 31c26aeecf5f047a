"""Whether the gradients of two tasks point against each other: by module, and by layer with a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.numerics.crossed import cosine_interval, mean_test
from tensorscope_nb.numerics.many import q_values
from tensorscope_nb.recipes.dataset import SQUARED, Variable, dataset
from tensorscope_nb.recipes.groups import modules_of
from tensorscope_nb.recipes.modules import by_layer, module_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.tasks import TwoTasks, check_alpha
from tensorscope_nb.sweep.reducers import Gram, Losses
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope


@recipe(
    question="Do two tasks pull the weights in opposite directions?",
    source="Yu et al. 2020, arXiv:2001.06782",
    needs=("gradients",),
)
def gradient_conflict(
    scope: Scope,
    a: Any,
    b: Any = None,
    *,
    per_sample: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The angle between the mean gradients of two tasks, module by module, with an interval.

    What it answers: whether a step for one task undoes the other, and in which modules.
    Equation, with ḡ the mean of the per-sample gradients of a task in a module: cosine = ⟨ḡ_a, ḡ_b⟩ / (‖ḡ_a‖ ‖ḡ_b‖), dot =
    ⟨ḡ_a, ḡ_b⟩, conflict where the cosine is negative, conflict_score = max(0, −cosine), magnitude_similarity =
    2 ‖ḡ_a‖ ‖ḡ_b‖ / (‖ḡ_a‖² + ‖ḡ_b‖²). Sampling noise lengthens ḡ and so pulls the cosine towards zero: two halves of one task
    are far below 1. cosine_corrected = U_ab / √(U_aa U_bb), each U the mean inner product of different samples, has no such
    pull; its interval is the jackknife's over samples of both tasks. Source: Yu et al. 2020.

    Result: ``[module] cosine_corrected, ci_low, ci_high, cosine, dot, conflict, conflict_score, magnitude_similarity``;
    scalars ``total_cosine, total_dot`` (over all weights; the dots of the modules add up to it), ``total_cosine_corrected,
    total_ci_low, total_ci_high``, ``loss_a, loss_b``. With ``per_sample`` also ``[module, sample_a, sample_b] pair_dot``.
    An undefined cosine (a gradient of zero) is NaN, never "no conflict"; cosine_corrected is NaN where a U under the root is
    not positive, its interval also below 3 samples of a task and where a mean gradient cannot be told from zero (a one-sided
    test at 5 %). Measured: the interval holds the true cosine in .95 and more of cases where noise has many directions, at
    least .91 where it has few, and lies below zero in at most .028 where the cosine is 0 or more. In a Study the tasks are
    those of its samples.
    Errors: UnsupportedModel where the loss is missing; ValueError for tasks that share ids. Cost: one forward and one backward.
    How to read it: conflict with an interval below zero is conflict; at a few samples expect wide intervals. When not to trust
    it: gradients at one point say what one small step does, not what training does.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> conflict = ts.recipes.gradient_conflict(scope, ts.datasets.shakespeare(scope, n=8), ts.datasets.code(scope, n=8))
    >>> bool((conflict["dot"].sum() - conflict["total_dot"]) < 1e-9)
    True
    """
    whole = TwoTasks.of(scope, a, b)
    whole.require(1)
    gram, losses = Gram(), Losses()
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(whole.samples, [gram, losses], enough=lambda n: whole.enough(n, 1), **options)
    two = whole.within(len(covered.samples))
    names = modules_of(covered.parameters, gram.values)
    grams = np.stack([gram.values[name].numpy() for name in names])
    found = _conflict(grams, two)
    total = _conflict(grams.sum(0)[None], two)
    dims = ("module",)
    words = {
        "cosine_corrected": ("cosine of the expected gradients", ""),
        "ci_low": ("cosine of the expected gradients, lower end of the 95 % interval", ""),
        "ci_high": ("cosine of the expected gradients, upper end of the 95 % interval", ""),
        "cosine": ("cosine of the mean gradients", ""),
        "dot": ("inner product of the mean gradients", SQUARED),
        "conflict": ("cosine of the mean gradients below zero", ""),
        "conflict_score": ("cosine of the mean gradients, as far as below zero", ""),
        "magnitude_similarity": ("similarity of the gradients' sizes", ""),
    }
    variables: dict[str, Variable] = {name: (dims, found[name], *words[name]) for name in words}
    for name in ("cosine", "dot", "cosine_corrected", "ci_low", "ci_high"):
        variables[f"total_{name}"] = ((), total[name][0], f"{words[name][0]}, over all weights", words[name][1])
    for side, rows in (("a", two.a), ("b", two.b)):
        variables[f"loss_{side}"] = ((), float(losses.values[rows].mean()), f"mean loss of task {side}", "loss")
    coords = module_coords(scope, names)
    if per_sample:
        pairs = grams[:, two.a][:, :, two.b]
        variables["pair_dot"] = (("module", "sample_a", "sample_b"), pairs, "inner product of the samples' gradients", SQUARED)
        coords |= two.coords()
    result = dataset(variables, coords, **two.said(covered, whole))
    if per_sample:
        result["pair_dot"].attrs["reduce"] = "sum"  # over modules; they add up
    return result


def _conflict(grams: np.ndarray, two: TwoTasks) -> dict[str, np.ndarray]:
    """Each number from the inner products (groups, n, n) of all samples."""
    aa, bb, ab = _sides(grams, two)
    dot, cosine, one, other = _cosine(aa, bb, ab)
    with np.errstate(invalid="ignore", divide="ignore"):
        similarity = 2 * one * other / (one**2 + other**2)
    corrected, low, high = cosine_interval(aa, bb, ab)
    return {
        "cosine": cosine, "dot": dot, "conflict": cosine < 0, "conflict_score": np.where(cosine < 0, -cosine, cosine * 0),
        "magnitude_similarity": similarity, "cosine_corrected": corrected, "ci_low": low, "ci_high": high,
    }  # fmt: skip


def _sides(grams: np.ndarray, two: TwoTasks) -> tuple[np.ndarray, ...]:
    """The products within a, within b, and across."""
    return tuple(grams[:, i][:, :, j] for i, j in ((two.a, two.a), (two.b, two.b), (two.a, two.b)))


def _cosine(aa: np.ndarray, bb: np.ndarray, ab: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the mean gradients the inner product, the cosine, and the norms."""
    dot, one, other = ab.mean((1, 2)), np.sqrt(aa.mean((1, 2)).clip(0)), np.sqrt(bb.mean((1, 2)).clip(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return dot, (dot / (one * other)).clip(-1, 1), one, other


def project_conflict(g_a: Mapping[str, Tensor] | Tensor, g_b: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor] | Tensor:
    """``g_a`` without the part that points against ``g_b``; as it is where the two do not conflict.

    Equation: g_a − (⟨g_a, g_b⟩ / ‖g_b‖²) g_b where ⟨g_a, g_b⟩ < 0, over all weights at once. Source: Yu et al. 2020
    (PCGrad). Takes tensors, or mappings from parameter to tensor with the same names.

    >>> import torch
    >>> project_conflict(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0]))
    tensor([1., 0.])
    """
    import torch

    if isinstance(g_a, torch.Tensor) and isinstance(g_b, torch.Tensor):
        return _projected({"": g_a}, {"": g_b})[""]
    if not isinstance(g_a, Mapping) or not isinstance(g_b, Mapping):
        raise TypeError(f"g_a is a {type(g_a).__name__}, g_b a {type(g_b).__name__}: give two tensors, or two mappings")
    if differing := sorted(set(g_a) ^ set(g_b)):
        raise ValueError(f"g_a and g_b have different parameters ({', '.join(differing[:3])}): give gradients of the same ones")
    return _projected(g_a, g_b)


def _projected(g_a: Mapping[str, Tensor], g_b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name in g_a:
        if g_a[name].shape != g_b[name].shape:
            raise ValueError(f"{name or 'g_a'} has shape {tuple(g_a[name].shape)}, in g_b {tuple(g_b[name].shape)}")
    dot = sum(float((g_a[name].double() * g_b[name].double()).sum()) for name in g_a)
    size = sum(float((g_b[name].double() ** 2).sum()) for name in g_a)
    return {name: g.clone() if dot >= 0 else _less(g, dot / size * g_b[name].double()) for name, g in g_a.items()}


def _less(g: Tensor, part: Tensor) -> Tensor:
    import torch

    return g - part.to(torch.result_type(g, 1.0))


@recipe(
    question="In which layers do two tasks conflict, beyond sampling noise?",
    source="Yu et al. 2020, arXiv:2001.06782; the test is ours",
    needs=("gradients",),
)
def gradient_alignment(
    scope: Scope,
    a: Any,
    b: Any = None,
    *,
    alpha: float = 0.05,
    per_sample: bool = False,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The angle between the mean gradients of two tasks by layer, and a test of conflict over samples.

    What it answers: in which layers the expected gradients of the tasks point against each other.
    Equation: s_ij = ⟨g_i, g_j⟩ of a layer, i in a, j in b. H0: E s ≥ 0. U = mean s, V = s_r² / n + s_c² / m − s_e² / (n m)
    from the variances of row and column means and the interaction (floored at s_e² / (n m)), and to V its own standard error,
    which matters where noise has few directions; p = P(t < U / √V) with min(n, m) − 1 degrees of freedom, the skew taken out;
    q by Benjamini–Hochberg over layers. The samples are the replicates; the coordinates of a gradient are none. Labels are
    not permuted: that tests whether the tasks are the same, and calls two orthogonal tasks a conflict (size .57 to 1 at .05).
    Measured size at .05: at most .052, also with few directions and heavy tails; up to .12 at 8 samples and .09 at 16 where
    the means agree along the noise of real gradients and are cancelled elsewhere. Source: the cosine is Yu et al. 2020's; the
    test of a crossed mean is ours.

    Result: ``[layer] cosine, angle`` (degrees), ``statistic, p_value, q_value, significant`` (q ≤ ``alpha`` and a negative
    cosine). With ``per_sample`` also ``[layer, sample_a, sample_b] pair_dot``. A cosine is NaN where a gradient is zero.
    Errors: ValueError for fewer than 2 samples of a task. Cost: one forward and one backward.
    How to read it: not significant is not "aligned": below 16 samples (there is a warning) little is seen. Planted means of
    a tenth of the noise per weight at cosine −.5 have p ≤ .05 in .05 / .25 / .75 of cases at n = 8 / 16 / 32. When not to
    trust it: samples that are not independent (pieces of one text) make p too small.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> a, b = ts.datasets.shakespeare(scope, n=16), ts.datasets.code(scope, n=16)
    >>> ts.recipes.gradient_alignment(scope, a, b)["p_value"].dims
    ('layer',)
    """
    whole = TwoTasks.of(scope, a, b)
    whole.require(2)
    check_alpha(alpha)
    gram = Gram()
    options: dict[str, Any] = {"modules": modules, "chunk": chunk, "progress": progress}
    covered = yield GradientRequest(whole.samples, [gram], enough=lambda n: whole.enough(n, 2), **options)
    two = whole.within(len(covered.samples))
    of_layers = by_layer(scope, gram.values)
    if not of_layers:
        no_layers = f"modules={modules!r} leaves nothing in any layer: choose others"
        raise LookupError(no_layers if scope.anatomy.n_layers else "the model has no known layers: ask gradient_conflict")
    grams = np.stack([k.numpy() for k in of_layers.values()])
    two.warn_few()
    aa, bb, pairs = _sides(grams, two)
    _, cosine, _, _ = _cosine(aa, bb, pairs)
    test = mean_test(pairs)
    q = q_values(test.below)
    variables: dict[str, Variable] = {
        "cosine": (("layer",), cosine, "cosine of the mean gradients", ""),
        "angle": (("layer",), np.degrees(np.arccos(cosine)), "angle between the mean gradients", "degrees"),
        "statistic": (("layer",), test.statistic, "t of the mean inner product", ""),
        "p_value": (("layer",), test.below, "p of conflict", ""),
        "q_value": (("layer",), q, "q of conflict over layers", ""),
        "significant": (("layer",), (q <= alpha) & (cosine < 0), f"conflict at q ≤ {alpha:g}", ""),
    }
    coords: dict[str, Any] = {"layer": list(of_layers)}
    if per_sample:
        variables["pair_dot"] = (("layer", "sample_a", "sample_b"), pairs, "inner product of the samples' gradients", SQUARED)
        coords |= two.coords()
    return dataset(variables, coords, **two.said(covered, whole))
