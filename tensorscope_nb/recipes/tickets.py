"""Iterative magnitude pruning: trained, pruned and rewound, beside the controls without which a mask is no finding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.schedule import kept_counts
from tensorscope_nb.recipes.modules import matrices
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.rounds import Design, Rounds
from tensorscope_nb.recipes.ticket_result import result_of
from tensorscope_nb.recipes.trainee import Initialize, Trainee
from tensorscope_nb.recipes.training import Make, TrainFn, trainer
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

ALONE = {"optimizer": "adam", "learning_rate": None, "batch_size": 32}  # options of the trainer that is built in


@recipe(
    question="Does a sparse part of the model, from its initial weights, train as well as the whole?",
    source="Frankle & Carbin 2019, arXiv:1803.03635; rewinding: Frankle et al. 2019, arXiv:1903.01611",
    needs=("losses", "gradients", "weights"),
)
def iterative_magnitude_pruning(
    scope: Scope,
    train: Any,
    *,
    sparsities: Sequence[float] = (0.5, 0.8, 0.9),
    train_steps: int = 1000,
    rewind_step: int = 0,
    test: Any = None,
    optimizer: str | Make = "adam",
    learning_rate: float | None = None,
    batch_size: int = 32,
    train_fn: TrainFn | None = None,
    controls: bool = True,
    initialize: Initialize | None = None,
    n_seeds: int = 1,
    prune_rate: float = 0.2,
    pruning: Literal["global", "layer"] = "global",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """Trains, prunes the smallest weights, rewinds the others and trains again, and so on; and what the same cut does otherwise.

    What it answers: whether the weights that are left (the ticket), started where they started in the whole model, train to as
    low a loss as the whole, and lower than others do that have as many weights. The scope's weights now are the initial ones,
    θ₀: give an untrained model.
    Equation: θ_k is what ``rewind_step=k`` steps of dense training make of θ₀ (k = 0: θ₀ itself). Round 0 trains from θ_k to
    step ``train_steps``. Each round puts out the least |w| of the trained survivors, sets the others back to θ_k bit for bit,
    and trains them over the steps from k on with all others held at zero after every step of the optimizer, and their gradients
    zero. N weights of two and more dimensions count (of ``modules``); biases and norms stay. Sparsity s leaves exactly
    N − round(s N) of them, ties by order; on the way there are as many rounds as are needed for none to take more than
    ``prune_rate`` of what is left. ``pruning="global"`` ranks all weights together, the paper's rule for its VGG and ResNet;
    ``"layer"`` takes the same share of every tensor, its rule for LeNet except that there the last layer is pruned at half the
    rate. A mask holds those of all higher sparsities.
    The controls, trained over the same batches in the same order: ``dense``, round 0; ``reinit``, the ticket's mask on other
    initial weights, with the same rewinding; ``random``, θ_k with as many weights kept in each tensor as the ticket keeps, at
    random. Other initial weights are the values of θ₀ in another order within each trainable tensor: of weights that were drawn
    independently that is exactly another draw with the same values, and constants stay what they are. Of orthogonal or fused
    tensors it is not: give ``initialize=fn(model, seed)``, which sets the weights of the model it is given.
    Training: the model's own loss, per predicted token or per sample, by ``optimizer`` (``"adam"``, ``"sgd"`` or a function
    of the parameters) at a constant ``learning_rate`` (.002, for sgd .2); each epoch goes through the samples in an order
    that depends on the seed and the epoch alone, less those at its end that fill no batch. Or give ``train_fn(scope, train,
    steps, seed)``, which trains ``scope.model`` in place over ``steps``, a range of step numbers; masks are enforced there
    too, on backward() and on any torch optimizer. All modules are then in training mode.
    ``train_steps=0`` trains nothing: one-shot magnitude pruning of the weights as they are, and the result's method says so.
    Source: Frankle & Carbin 2019; rewinding: Frankle et al. 2019, and Renda et al. 2020, arXiv:1912.05671; masks shuffled within
    layers: Frankle et al. 2021, arXiv:2009.08576.

    Result: ``[control, sparsity, replicate] loss, accuracy`` after the last step on ``test`` (else on the training samples, and
    the notes say so), control in ticket, reinit, random, dense; accuracy is of the largest output (of a language model over the
    predicted tokens), NaN where ``loss=`` is of your own. ``[control, sparsity] loss_advantage, loss_advantage_ci_low,
    loss_advantage_ci_high, accuracy_advantage, accuracy_advantage_ci_low, accuracy_advantage_ci_high``: by how much the ticket
    is better than each control, positive where its loss is lower and its accuracy higher, with the 95 % Student interval over
    ``n_seeds`` replicates of the paired differences; NaN with one replicate. Replicate 0 starts from the scope's weights, every
    other one from a redrawn θ₀, and each has an order of batches of its own. From five replicates on with controls also
    ``[sparsity] winning``: whether the intervals of its advantage (in accuracy, or where there is none in loss) over reinit and
    over random both lie above 0, while that over dense does not lie below 0. ``[sparsity, parameter] mask`` and ``[parameter]
    initial`` (θ₀; with ``rewind_step`` also ``rewound``, θ_k), of the weights that count; with several replicates each has a
    dimension ``replicate`` in front. ``[sparsity, module] density`` (share kept, mean over replicates); ``[sparsity] n_kept``;
    ``[replicate, round] round_loss, round_accuracy`` and ``round_sparsity``. ``ts.recipes.masks(result)`` gives the masks by
    parameter name. Nothing of the model given changes. Where the work is stopped, whole replicates stay, or of the first one the
    sparsities that it came to.
    Errors: ValueError for a sparsity that leaves all or nothing, a training that diverges, a ``train_fn`` that moves pruned
    weights or changes the architecture; LookupError where nothing can be pruned; UnsupportedModel in half precision.
    Cost: ``train_steps`` forwards and backwards for the dense model and each round (11 to 90 % alone, 13 by way of 50 and 80
    %) and for two controls at each sparsity, times ``n_seeds``; eight copies of the weights.
    How to read it: a low loss of the ticket alone says nothing: compare with reinit and random at the same sparsity, over
    replicates. How large an advantage is depends on the training: of the packaged digits at 80 %, over 20 replicates, accuracy
    over reinit is .01 after 250 steps of Adam and not to be told from 0 after 500; after 1000 steps of plain gradient descent it
    is .7, as there the others have not begun to learn: see whether more steps take it away. When not to trust it: replicates
    share the samples and, unless ``initialize`` is given, the values of θ₀; a dense model that is stopped early or overfits is
    easily beaten; where none of the sparsities has an advantage up to one in 40 is winning by chance; a trained θ₀ makes
    ``reinit`` a comparison with noise. An interval over five replicates is wide.

    >>> import tensorscope_nb as ts, torch
    >>> x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    >>> samples = ts.Samples.tensors(x, (x[:, 0] * x[:, 1] > 0).long())
    >>> found = ts.recipes.iterative_magnitude_pruning(ts.Scope(model), samples, sparsities=(0.5, 0.75), train_steps=40)
    >>> found["loss"].sizes["control"], found["mask"].sum("parameter").values.tolist(), list(ts.recipes.masks(found)[0.5])
    (4, [80, 40], ['0.weight', '2.weight'])
    """
    samples = scope.samples(train)
    other = None if test is None else scope.samples(test)
    at = _checked(sparsities)
    _check_steps(train_steps, rewind_step)
    if isinstance(n_seeds, bool) or not isinstance(n_seeds, int) or n_seeds < 1:
        raise ValueError(f"n_seeds is {n_seeds!r}: give how many replicates to train, from 1 on")
    if not isinstance(prune_rate, int | float) or not 0 < prune_rate < 1:
        raise ValueError(f"prune_rate is {prune_rate!r}: give the share that a round takes, between 0 and 1")
    if pruning not in ("global", "layer"):
        raise ValueError(f"pruning is {pruning!r}: choose 'global' or 'layer'")
    given = {"optimizer": optimizer, "learning_rate": learning_rate, "batch_size": batch_size}
    if train_fn is not None and (beside := [name for name, value in given.items() if value != ALONE[name]]):
        raise ValueError(f"train_fn trains in its own way: leave out {', '.join(beside)}=")
    own = trainer(optimizer, learning_rate, batch_size)
    if not train_steps and n_seeds > 1:
        raise ValueError("n_seeds= is of trainings, and train_steps=0 trains nothing: leave it out")
    objective = Objective(scope, samples, modules=modules, reduction="sum")
    prunable = matrices(objective.chosen, modules)
    n = sum(p.nelement() for p in prunable.values())
    _check_counts(at, n)
    counts, ends = kept_counts(n, at, prune_rate if train_steps else None)
    size = n_seeds * n * (len(at) + 8)
    if size > current().memory:
        raise too_much("the masks and initial weights of all replicates", size, "ask for fewer sparsities= or n_seeds=")
    seed = current().seed if seed is None else seed
    compared = ("reinit", "random") if train_steps else ("random",)
    design = Design(
        at, counts, ends, train_steps, rewind_step, compared if controls else (), pruning == "layer", n_seeds, seed, initialize
    )
    prepared = objective.samples

    def make() -> Trainee:
        return Trainee(scope, prepared, prepared if other is None else other, train_fn or own, list(prunable), chunk)

    rounds = Rounds(make, design, n, float(sum(p.nbytes for p in scope.model.parameters())), train_fn is None)
    words = "trainings" if train_fn or not train_steps else "blocks of 20 training steps"
    yield Work(rounds, words, progress, least=rounds.least)
    said: dict[str, Any] = {"n_used": len(samples), "n_available": len(samples), "train_steps": train_steps, "pruning": pruning}
    if train_fn is None and train_steps:
        name = optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", type(optimizer).__name__)
        said |= {"optimizer": name, "learning_rate": own.learning_rate, "batch_size": min(batch_size, len(samples))}
    return result_of(scope, rounds, prunable, len(samples if other is None else other), other is not None, said)


def masks(result: xr.Dataset, replicate: int = 0) -> dict[float, dict[str, Tensor]]:
    """{sparsity: {parameter name: true at the weights that are kept}} of one replicate of ``iterative_magnitude_pruning``.

    To prune a model by one: ``for name, keep in masks(result)[0.9].items(): model.get_parameter(name).data.mul_(keep)``.

    >>> import tensorscope_nb as ts, torch
    >>> samples = ts.Samples.tensors(torch.randn(8, 4), torch.arange(8) % 2)
    >>> pruned = ts.recipes.iterative_magnitude_pruning(
    ...     ts.Scope(torch.nn.Linear(4, 2)), samples, sparsities=(0.25, 0.5), train_steps=0)
    >>> {sparsity: int(mask["weight"].sum()) for sparsity, mask in ts.recipes.masks(pruned).items()}
    {0.25: 6, 0.5: 4}
    """
    said = json.loads(result.attrs.get("tensorscope", "{}")) if hasattr(result, "data_vars") else {}
    if "mask" not in getattr(result, "data_vars", {}) or "parameters" not in said:
        raise ValueError("this is no result of iterative_magnitude_pruning: its mask, and the parameters it is of, are missing")
    kept = result["mask"]
    if more := [str(dim) for dim in kept.dims if dim not in ("replicate", "sparsity", "parameter")]:
        raise ValueError(f"the result is of several {more[0]}s: pick one, as in result.sel({more[0]}=…)")
    there = result["replicate"].values.tolist()
    if isinstance(replicate, bool) or replicate not in there:
        raise LookupError(f"there is no replicate {replicate!r}: there are {there}")
    if "replicate" in kept.dims:
        kept = kept.sel(replicate=replicate)
    found: dict[float, dict[str, Tensor]] = {}
    for sparsity in kept["sparsity"].values.tolist():
        flat = torch.as_tensor(kept.sel(sparsity=sparsity).values.astype(bool))
        pieces = flat.split([int(np.prod(shape)) for _, shape in said["parameters"]])
        found[sparsity] = {name: piece.reshape(shape) for (name, shape), piece in zip(said["parameters"], pieces, strict=True)}
    return found


def _checked(sparsities: Sequence[float]) -> list[float]:
    at = np.asarray(sparsities, dtype=float)
    if at.ndim != 1 or not len(at) or not ((at > 0) & (at < 1)).all() or len(set(at.tolist())) < len(at):
        raise ValueError(f"sparsities is {sparsities!r}: give shares between 0 and 1, each once, such as (0.5, 0.9)")
    return sorted(at.tolist())


def _check_steps(train_steps: Any, rewind_step: Any) -> None:
    for name, value in (("train_steps", train_steps), ("rewind_step", rewind_step)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}: give a number of training steps")
    if rewind_step and rewind_step >= train_steps:
        raise ValueError(
            f"rewind_step is {rewind_step} of {train_steps} train_steps: nothing is left to train, take a smaller one"
        )


def _check_counts(at: Sequence[float], n: int) -> None:
    out: Mapping[float, int] = {sparsity: round(sparsity * n) for sparsity in at}
    for sparsity, count in out.items():
        if count in (0, n):
            what = "leaves none" if count else "prunes none"
            raise ValueError(f"sparsity {sparsity:g} {what} of the {n} weights that can be pruned: choose another")
    for a, b in pairwise(at):
        if out[a] == out[b]:
            raise ValueError(f"sparsities {a:g} and {b:g} are the same {out[a]} of {n} weights: leave one out")
