"""What rounds of pruning found, as a Dataset: scores, paired differences, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tensorscope_nb.numerics.intervals import t_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit
from tensorscope_nb.recipes.modules import module_coords, shares_by_module
from tensorscope_nb.scope.flat import positions

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.recipes.rounds import Found, Rounds
    from tensorscope_nb.scope import Scope

FEWEST = 5  # replicates from which on it is said whether a ticket wins
Array = np.ndarray


def result_of(
    scope: Scope, rounds: Rounds, prunable: Mapping[str, Tensor], n_test: int, apart: bool, said: Mapping[str, Any]
) -> xr.Dataset:
    """All of it, or of work that was stopped what is whole; ``apart``: it was tested on samples of their own."""
    design = rounds.design
    done, n_sparsities = rounds.whole
    at, unit = np.array(design.sparsities[:n_sparsities]), loss_unit(scope)
    right = "share of tokens" if scope.anatomy.task in ("causal", "masked") else "share of samples"
    names = ("ticket", *design.controls, "dense")
    scores = np.array([[[found.scores[i][name] for found in done] for i in range(len(at))] for name in names])
    dims = ("control", "sparsity", "replicate")
    trained = design.train_steps > 0
    done_to_it = "training" if trained else "pruning"
    variables: dict[str, Variable] = {
        "loss": (dims, scores[..., 0], f"loss after {done_to_it}", unit),
        "accuracy": (dims, scores[..., 1], f"accuracy after {done_to_it}", right),
    }
    better = {name: _advantage(scores, i) for i, name in enumerate(("loss", "accuracy"))}
    for name, (mean, low, high) in better.items():
        words, of = ("loss saved by the ticket", unit) if name == "loss" else ("accuracy gained by the ticket", right)
        variables[f"{name}_advantage"] = (dims[:2], mean, words, of)
        variables[f"{name}_advantage_ci_low"] = (dims[:2], low, f"{words}, lower end of the 95 % interval", of)
        variables[f"{name}_advantage_ci_high"] = (dims[:2], high, f"{words}, upper end of the 95 % interval", of)
    criterion = "accuracy" if np.isfinite(scores[..., 1]).all() else "loss"
    if len(done) >= FEWEST and {"reinit", "random"} <= set(design.controls):
        words = f"better in {criterion} than reinit and random, and not shown to be worse than dense"
        variables["winning"] = (("sparsity",), _winning(better[criterion], names), words, "")
    variables |= _weights(done, design.n_seeds > 1, bool(design.rewind_step))
    kept = np.stack([[mask.numpy() for mask in found.masks[: len(at)]] for found in done])
    density, modules = _density(kept, prunable)
    variables["density"] = (("sparsity", "module"), density, "weights kept", "share of weights")
    variables["n_kept"] = (("sparsity",), kept[0].sum(1), "weights kept", "weights")
    variables |= _rounds(done, design.counts, unit, right)
    coords = {
        "control": np.array(names, dtype=object),
        "sparsity": at,
        "parameter": positions(scope.model, prunable),
        **module_coords(scope, modules),
    }
    method = "iterative magnitude pruning" if trained else "one-shot magnitude pruning, nothing is trained"
    result = dataset(
        variables, coords, **said, method=method, seed=design.seed, n_seeds=len(done), n_weights=design.counts[0],
        order_seeds=[design.order(i) for i in range(len(done))] if trained else [],
        rewind_step=design.rewind_step, n_evaluated=n_test, evaluated_on="test" if apart else "train",
        criterion=criterion, parameters=[[name, list(p.shape)] for name, p in prunable.items()],
        notes=_notes(scope, trained, apart, len(done)),
    )  # fmt: skip
    result["sparsity"].attrs["long_name"] = "share of weights set to zero"
    for name in better:
        result[f"{name}_advantage"].attrs |= {
            "signed": "the ticket is better above 0", "interval": f"95 % Student interval over {len(done)} replicates"
        }  # fmt: skip
    return result


def _advantage(scores: Array, i: int) -> tuple[Array, Array, Array]:
    """The ticket's paired differences from each control, better being positive; of one replicate, and from itself, NaN."""
    differences = (scores[..., i] - scores[:1, ..., i]) * (1 if i == 0 else -1)
    differences[0] = np.nan
    if differences.shape[-1] < 2:
        differences[:] = np.nan
    return t_interval(differences, axis=-1)


def _winning(better: tuple[Array, Array, Array], names: Sequence[str]) -> Array:
    _, low, high = better
    over = (low[names.index("reinit")] > 0) & (low[names.index("random")] > 0)
    return over & ~(high[names.index("dense")] < 0)


def _weights(done: Sequence[Found], several: bool, rewound: bool) -> dict[str, Variable]:
    dims: tuple[str, ...] = ("replicate",) if several else ()

    def of(rows: Sequence[Array]) -> Array:
        return np.stack(rows) if several else rows[0]

    n = min(len(found.masks) for found in done)
    masks = of([np.stack([mask.numpy() for mask in found.masks[:n]]) for found in done])
    initial, later = (of([getattr(found, name).numpy() for found in done]) for name in ("initial", "rewound"))
    variables: dict[str, Variable] = {
        "mask": ((*dims, "sparsity", "parameter"), masks, "whether the weight is kept", ""),
        "initial": ((*dims, "parameter"), initial, "initial weight", "units of weight"),
    }
    if rewound:
        variables["rewound"] = ((*dims, "parameter"), later, "weight that rounds start from", "units of weight")
    return variables


def _density(kept: Array, prunable: Mapping[str, Tensor]) -> tuple[Array, list[str]]:
    """(sparsity, module), the mean over replicates; and the modules."""
    sizes = {name: p.nelement() for name, p in prunable.items()}
    pieces = np.split(kept, np.cumsum(list(sizes.values()))[:-1], axis=-1)
    shares = shares_by_module({name: piece.sum(-1).mean(0) for name, piece in zip(sizes, pieces, strict=True)}, sizes)
    return np.stack(list(shares.values()), 1), list(shares)


def _rounds(done: Sequence[Found], counts: Sequence[int], unit: str, right: str) -> dict[str, Variable]:
    n = min(len(found.rounds) for found in done)
    found = np.array([each.rounds[:n] for each in done])
    sparsity = np.tile(1 - np.array(counts[:n]) / counts[0], (len(done), 1))
    dims = ("replicate", "round")
    return {
        "round_loss": (dims, found[..., 0], "loss after the round's training", unit),
        "round_accuracy": (dims, found[..., 1], "accuracy after the round's training", right),
        "round_sparsity": (dims, sparsity, "share of the weights that is pruned in the round's training", ""),
    }


def _notes(scope: Scope, trained: bool, apart: bool, n: int) -> list[str]:
    notes = []
    if not apart:
        notes.append("measured on the samples that were trained on: give test= to see what holds on others")
    if trained and n == 1:
        notes.append("one replicate: no interval, and no advantage can be told from chance; n_seeds=5 or more trains it again")
    if scope.rule.custom is not None:
        notes.append("accuracy is NaN: the loss is of your own, and what counts as right under it is not known")
    return notes
