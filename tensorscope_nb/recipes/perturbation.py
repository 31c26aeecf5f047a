"""What changing single weights does to the loss, beside matched controls and a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.disturbance import Name, RelativeTo, disturbance
from tensorscope_nb.recipes.perturbation_result import result_of
from tensorscope_nb.recipes.perturbed import Design, Perturbed
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.weight_list import WeightList
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

CONTROLS = ("random", "bottom")


@recipe(
    question="Does the loss rise when the weights that were ranked as critical are changed, and more than with others?",
    source="Yu et al. 2024, arXiv:2411.07191; the prediction: LeCun et al. 1990",
    needs=("losses", "gradients", "weights"),
)
def perturbation(
    scope: Scope,
    samples: Any,
    weights: Any,
    *,
    method: Name = "zero",
    modules: str | list[str] | None = None,
    ratios: Sequence[float] = (1.0,),
    controls: Sequence[str] = CONTROLS,
    n_seeds: int = 5,
    bottom: Any = None,
    sigma: float = 0.1,
    relative_to: RelativeTo = "weight",
    factor: float = 0.5,
    bit: int | None = None,
    second_order: bool = True,
    per_sample: bool = False,
    seed: int | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The increase of the loss when listed weights are changed, that of matched others, and what was predicted.

    What it answers: whether the weights that a ranking calls critical are: whether the loss rises when they are changed, more
    than when others of the same layers and sizes are, and by how much of what gradient and curvature say.
    Equation: the loss per predicted token L(w) = Σ_i ℓ_i / Σ_i n_i. loss_increase = L(w + δ) − L(w), with δ zero but at the
    weights of a selection: ``zero``: δ = −w; ``sign_flip``: −2w; ``gaussian``: σ z |w|, or with ``relative_to="parameter"`` σ
    z times the standard deviation of the weight's parameter, z normal, σ = ``sigma``; ``scale``: (``factor`` − 1) w;
    ``bit_flip``: one bit of the number as it is stored is turned over, ``bit`` (0 the lowest) or for each weight one at random.
    Selections: ``top``, the first round(ratio k) weights of the list (at least 1; in order of their rank, so that of a list by
    layers each layer gives its first); ``random``, for each of them another of its layer (outside the layers: of its module)
    that is not in the list, drawn among those whose |w| is within 1 % of its own, or where these are fewer than 20 among the 20
    nearest; ``bottom``, for each the next of its layer in the bottom list. A larger ratio contains the weights and the noise of
    a smaller one. first_order = ḡᵀδ and second_order = ḡᵀδ + ½ δᵀHδ, with ḡ and H the gradient and the Hessian of L on these
    samples.
    Source: Yu et al. 2024 for single weights that decide over the loss; LeCun et al. 1990 for the prediction. The protocol,
    with its controls, is no paper's: its definition is this one.

    ``weights`` is the result of ``critical_weights``, a table as of ``ts.recipes.weight_table``, or the path of its CSV file
    (``bottom`` then of the least ones; beside ``top_….csv`` a file ``bottom_….csv`` is found); ``modules``, globs of module
    paths or parameter names, leaves those of the list that are there.
    Result: ``[selection, ratio, replicate] loss_increase, perplexity`` (of language models), ``n_changed`` (stored values that
    differ, counted on the model as it runs), ``first_order, second_order`` (without ``second_order=False``) and ``broken``
    (whether a loss was no finite number: the increase is inf there); what does not vary is measured once and stands in every
    replicate. ``[selection, ratio] loss_increase_mean, ci_low, ci_high`` (95 %), ``predicted`` (the mean of second_order, else
    of first_order) and ``weight_rms`` (root mean square of the chosen weights: how alike the controls are); ``[control, ratio]
    excess, excess_ci_low, excess_ci_high``: of top over a control, paired by sample. Intervals are Student's over samples, and
    where replicates differ over both (Satterthwaite's degrees of freedom; on a small model they held the value in .91 to .98 of
    cases with 5 replicates, with 2 in .88 to .97). ``[ratio] n_chosen``; ``[selection, module]
    n_weights`` (of the largest ratio, mean over replicates); scalars ``baseline_loss, baseline_perplexity``. With
    ``per_sample`` also ``[sample, selection, ratio] loss_increase_by_sample``. Nats per predicted token (per sample for a
    classifier). The model is left bit for bit.
    Errors: LookupError for modules, parameters or weights that do not exist; ValueError for a list of other weights, a change
    that changes nothing, and a layer with too few others. Cost: a forward for each selection, ratio and replicate (one where
    nothing varies) and a product with the Hessian, some four times as much; a sort of the weights.
    How to read it: ``excess`` above 0 says that the list names more than layer and size do. When measured and predicted part,
    the step left the region that gradient and curvature know, or the weights act together. When not to trust it: on the samples
    that the list was ranked on the increase is flattered, take others; ``weight_rms`` of random far below that of top says that
    the list holds its layers' largest weights, which have no match; the intervals are of these weights, and say nothing of a
    list ranked anew; and where one control in many does all (see ``loss_increase`` by replicate), five draws mostly miss it,
    and their interval holds the mean of all controls in as few as .4 of cases: raise ``n_seeds``. In half precision nothing is
    predicted. Single precision rounds an increase by about 1e-7 of the loss.

    >>> import tensorscope_nb as ts, pandas as pd
    >>> scope = ts.load("tiny")
    >>> listed = pd.DataFrame({"layer": ["transformer.h.0.attn.c_proj"] * 2, "indices": ["(3, 17)", "(5, 0)"]})
    >>> prose = ts.datasets.shakespeare(scope, n=8, length=16)
    >>> found = ts.recipes.perturbation(scope, prose, listed, controls=("random",), n_seeds=2)
    >>> found["n_changed"].sel(selection="top", ratio=1.0).values.tolist()
    [2, 2]
    """
    samples = scope.samples(samples)
    how = disturbance(method, sigma, relative_to, factor, bit)
    at, chosen = _ratios(ratios), _controls(controls)
    if isinstance(n_seeds, bool) or not isinstance(n_seeds, Integral) or n_seeds < 1:
        raise ValueError(f"n_seeds is {n_seeds!r}: give how many replicates to draw, from 1 on")
    listed = WeightList.read(scope, weights, bottom)
    top = listed.inside(scope, modules)
    if "bottom" in chosen and top.bottom is None:
        raise ValueError(
            'the list has no bottom part, with which controls=("random", "bottom") compare: give it as bottom=, or take '
            'controls=("random",)'
        )
    counts = [max(1, round(ratio * len(top))) for ratio in at]
    seed = current().seed if seed is None else seed
    design = Design(top, listed, counts, chosen, how, int(n_seeds), seed, second_order)
    measured = Objective(scope, samples, reduction="sum", differentiable=False)
    perturbed = Perturbed(scope, measured, design, chunk)
    yield Work(perturbed, "changed models", progress, least=2)
    return result_of(perturbed, samples, at, per_sample)


def _ratios(ratios: Any) -> list[float]:
    try:
        at = np.asarray(ratios, dtype=float)
    except (TypeError, ValueError):  # words, or nothing that holds numbers
        at = np.empty(0)
    if at.ndim != 1 or not len(at) or not ((at > 0) & (at <= 1)).all() or len(set(at.tolist())) < len(at):
        raise ValueError(f"ratios is {ratios!r}: give shares of the list, above 0 and up to 1, each once")
    found: list[float] = np.sort(at).tolist()
    return found


def _controls(controls: Any) -> list[str]:
    given = [controls] if isinstance(controls, str) else controls
    if not isinstance(given, Sequence):
        raise ValueError(f"controls is {controls!r}: give some of {', '.join(map(repr, CONTROLS))}, or () for none")
    if unknown := [each for each in given if each not in CONTROLS]:
        raise ValueError(f"controls holds {unknown[0]!r}: choose among {', '.join(map(repr, CONTROLS))}")
    if len(set(given)) < len(given):
        raise ValueError(f"controls is {controls!r}: name each once")
    return list(given)
