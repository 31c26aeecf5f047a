"""TracIn: which training samples taught the model what it says of a test sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tensorscope_nb.numerics.intervals import t_interval
from tensorscope_nb.recipes.dataset import SQUARED, Variable, dataset, loss_unit, pixel_variables, sample_coords, token_variable
from tensorscope_nb.recipes.history import History, Rates
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.recipes.recipe import of_model, recipe
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.interrupts import allowed
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.across import Across, across
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.spread import Call, pack, run_all, shipped, unpack, workers_of
from tensorscope_nb.sweep.units import Unit, units
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

SIGNED = "taught it above 0"


@recipe(
    question="Which training samples taught the model what it says of a test sample?",
    source="Pruthi et al. 2020, arXiv:2002.08484 (TracInCP)",
    needs=("gradients", "checkpoints"),
)
def tracin(
    history: Any,
    train: Any,
    test: Any,
    *,
    learning_rates: Rates = None,
    test_unit: Unit = "sequence",
    per_module: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """How far each training sample has lowered the loss of each test sample, summed over checkpoints of the training.

    What it answers: which samples taught the model this (proponents, influence above 0), which worked against it (opponents),
    and at what time. Equation: influence(z, z') = Σ_c η_c ∇ℓ(θ_c, z) · ∇ℓ(θ_c, z'), over the weights of ``modules``; each term
    is to first order what one step of plain gradient descent on z alone, of the size η_c from θ_c, takes off the loss of z'.
    ``self_influence`` is influence(z, z). Source: Pruthi et al. 2020, arXiv:2002.08484. η_c is the history's learning rate at
    c, or what ``learning_rates`` says (one number, or one each); 1 with a note where neither knows.

    ``history`` is ``ts.checkpoints(…)``, scopes of one run in order, ``{step: scope}``, or one scope. ``test_unit="token"``
    asks for every predicted token of the test samples; a test sample's influence is then the mean of its tokens' (the sum with
    ``reduction="sum"``), which is the same number. All samples are scored. With ``executor=`` the checkpoints are spread.

    Result: ``[sample, test_sample] influence``; ``[checkpoint, sample, test_sample] contribution``, which sum to it;
    ``[sample] self_influence, mean_influence, ci_low, ci_high`` (mean over the test samples, 95 % Student interval over them);
    ``[checkpoint, sample] self_contribution, train_loss``; ``[checkpoint, test_sample] test_loss``; ``[checkpoint]
    learning_rate``. By token also ``[sample, test_sample, test_position] token_influence``, ``[checkpoint, sample,
    test_sample, test_position] token_contribution``, and ``test_token``. With ``per_module`` also ``[module, sample,
    test_sample] module_influence``. Of images also ``pixels`` and ``test_pixels``, for views. In the unit of the loss (nats per
    token, or nats; losses are means whatever the ``reduction``). ``ts.recipes.critical_samples`` lists.
    Errors: ValueError for an empty history, steps out of order, neighbours with the same weights, models that differ or train
    other weights, learning rates that do not fit. Cost: a forward and backward of all samples per checkpoint, and two
    multiplications per weight, training sample and test sample; memory for the test samples' gradients, in pieces where that is
    too much.

    How to read it: compare training samples for one test sample, and look at which checkpoint; give samples that the model was
    never trained on beside those that it was: what both have alike is similarity, not memory. When not to trust it: it is a
    first-order approximation of plain SGD, one sample at a time. Momentum, Adam and weight decay are not in it, nor what lies
    between the checkpoints, nor that another sample takes the place of one that is left out. Measured where it should be at its
    best, on the packaged digits model with 100 trainings on random halves: its linear datamodeling score (Park et al. 2023,
    arXiv:2303.14186) is .21 (95 % interval .19 to .24), that of a second training on the same half .66, of similar pixels of one
    class .19. Samples with large gradients (rare, mislabelled) lead every list: compare with ``self_influence``. The last layers
    alone mislead in language models (Yeh et al. 2022, arXiv:2202.11844): leave ``modules`` as it is. Influence is skewed over
    test samples: measured on digits, the interval of ``mean_influence`` covers 92 % with 20 of them and 89 % with 5.

    >>> import tensorscope_nb as ts
    >>> history = ts.checkpoints("tiny")
    >>> train = ts.datasets.shakespeare(history[0], n=8, length=32, split="train")
    >>> test = ts.datasets.shakespeare(history[0], n=2, length=32)
    >>> found = ts.recipes.tracin(history, train, test)
    >>> found["influence"].dims, found["contribution"].dims
    (('sample', 'test_sample'), ('checkpoint', 'sample', 'test_sample'))
    """
    if test_unit not in ("sequence", "token"):
        raise ValueError(f"test_unit is {test_unit!r}: choose 'sequence' or 'token'")
    along = History.of(history)
    rates, notes = along.rates(learning_rates)
    for note in notes:
        warnings.warn(f"{note}; pass learning_rates=", stacklevel=2)
    scope = along.first
    train = scope.rule.prepared(scope.samples(train))
    test = scope.rule.prepared(scope.samples(test))
    held, source = units(scope, test, test_unit, "empirical", current().seed)
    each = len(test) * test.input_ids.shape[1] if test_unit == "token" else len(test)
    apart = {name.rpartition(".")[0] for name in chosen_parameters(scope, modules)} if per_module else set()
    if (size := 8 * len(along) * len(train) * (each + len(held) * len(apart))) > current().memory:
        raise too_much("the contributions of all pairs at all checkpoints", size, "give fewer samples or checkpoints at a time")
    how = {"reduction": reduction, "modules": modules, "chunk": chunk, "by_module": per_module}
    sweeps = Sweeps(along, train, held, how, size)
    done = yield Work(sweeps, "checkpoints", progress)
    rates = rates[: done.n_steps]
    fold = Fold.of(test, held, source, test_unit, reduction)
    unit = loss_unit(scope, reduction) if not notes else SQUARED
    variables = _variables(sweeps.found, rates, fold, unit, loss_unit(scope))
    coords: dict[str, Any] = {"checkpoint": list(along.steps[: done.n_steps]), **sample_coords(train)}
    coords |= sample_coords(test, before="test_")
    variables |= pixel_variables(train) | pixel_variables(test, before="test_")
    if test_unit == "token":
        variables["test_token"] = token_variable(test, before="test_")
    if per_module:
        names = list(sweeps.found[0].products)
        by_module = [sum(rate * fold(each.products[name]) for rate, each in zip(rates, sweeps.found)) for name in names]
        variables["module_influence"] = (("module", *PAIR), by_module, "influence through the module", unit)
        coords |= module_coords(scope, names)
    result = dataset(
        variables, coords, **of_model(scope) | {"model": along.name}, weights=list(along.fingerprints[: done.n_steps]),
        notes=notes, n_used=len(train), n_available=len(train), n_used_test=len(test), n_checkpoints=done.n_steps,
        n_weights=sweeps.found[0].n_weights, by_reference=sweeps.found[0].by_reference,
    )  # fmt: skip
    result["checkpoint"].attrs["long_name"] = "training step"
    result["mean_influence"].attrs["interval"] = "95 % interval over test samples"
    for name in SIGNS & set(result.data_vars):
        result[name].attrs["signed"] = SIGNED
    return result


PAIR = ("sample", "test_sample")
SIGNS = {"influence", "contribution", "token_influence", "token_contribution", "module_influence", "mean_influence"}


class Sweeps:
    """A sweep of all samples at each checkpoint; it holds what was found at those that are done."""

    def __init__(self, history: History, train: Samples, held: Samples, how: dict[str, Any], nbytes: float) -> None:
        self.history, self.train, self.held, self.how, self.nbytes = history, train, held, how, nbytes
        self.found: list[Across] = []

    @property
    def n(self) -> int:
        """Samples that go through the model at each."""
        return len(self.train) + len(self.held)

    @property
    def total(self) -> float:
        return len(self.history)

    def steps(self) -> Iterator[None]:
        for scope in self.history.scopes:
            self.found.append(across(scope, self.train, self.held, **self.how))
            yield

    def spread(self, executor: Executor) -> Iterator[None]:
        workers_of(executor)
        first = self.history.first
        with shipped(self.history.scopes) as files:
            packed = pack(first, (self.train, self.held, self.how))
            steps = zip(self.history.steps, files, strict=True)
            calls = [Call(f"checkpoint {step}", file, _in_worker, (packed,)) for step, file in steps]
            results = run_all(executor, calls)
            for _ in calls:
                with allowed():  # the work is elsewhere: nothing is half done here
                    found = next(results)
                self.found.append(unpack(first, found))
                yield


def _in_worker(scope: Scope, packed: bytes) -> bytes:
    train, held, how = unpack(scope, packed)
    return pack(scope, across(scope, train, held, **how))


@dataclass(frozen=True)
class Fold:
    """From the units of the test samples, which were held, to the test samples, and to where their tokens stand."""

    n: int
    source: np.ndarray  # of each unit its test sample
    position: np.ndarray | None  # of each unit the place of its token; None: units are samples
    length: int
    mean: bool

    @classmethod
    def of(cls, test: Samples, held: Samples, source: Any, unit: Unit, reduction: str) -> Fold:
        by_token = unit == "token"
        position = (held.token_labels != IGNORED).int().argmax(1).numpy() if by_token else None
        return cls(len(test), source.numpy(), position, test.input_ids.shape[1] if by_token else 0, reduction == "mean")

    def spread(self, values: Any) -> np.ndarray:
        """(…, units) → (…, test samples, positions), NaN where no token is predicted; where units are samples as it is."""
        values = np.asarray(values)
        if self.position is None:
            return values
        spread = np.full((*values.shape[:-1], self.n, self.length), np.nan)
        spread[..., self.source, self.position] = values
        return spread

    def over_tokens(self, spread: np.ndarray, mean: bool) -> np.ndarray:
        """(…, test samples, positions) → (…, test samples): means over their tokens, or sums."""
        return spread if self.position is None else (np.nanmean if mean else np.nansum)(spread, -1)

    def __call__(self, values: Any) -> np.ndarray:
        """(…, units) → (…, test samples)."""
        return self.over_tokens(self.spread(values), self.mean)


def _variables(found: list[Across], rates: np.ndarray, fold: Fold, unit: str, loss: str) -> dict[str, Variable]:
    products = np.stack([torch.stack(list(each.products.values())).sum(0).numpy() for each in found])
    weighted = rates[:, None, None] * products
    own = rates[:, None] * np.stack([each.squares.numpy() for each in found])
    finest = fold.spread(weighted)
    contribution = fold.over_tokens(finest, fold.mean)
    influence = contribution.sum(0)
    mean, low, high = t_interval(influence, axis=1)
    variables: dict[str, Variable] = {
        "influence": (PAIR, influence, "influence", unit),
        "contribution": (("checkpoint", *PAIR), contribution, "influence at the checkpoint", unit),
        "self_influence": (("sample",), own.sum(0), "influence on itself", unit),
        "mean_influence": (("sample",), mean, "influence, mean over test samples", unit),
        "ci_low": (("sample",), low, "influence, low end of the 95 % interval over test samples", unit),
        "ci_high": (("sample",), high, "influence, high end of the 95 % interval over test samples", unit),
        "self_contribution": (("checkpoint", "sample"), own, "influence on itself at the checkpoint", unit),
        "train_loss": (("checkpoint", "sample"), [each.losses.numpy() for each in found], "loss of the training sample", loss),
        "test_loss": (
            ("checkpoint", "test_sample"),
            fold.over_tokens(fold.spread([each.held_losses.numpy() for each in found]), mean=True),
            "loss of the test sample",
            loss,
        ),
        "learning_rate": (("checkpoint",), rates, "learning rate", ""),
    }
    if fold.position is not None:
        where = ("test_sample", "test_position")
        variables["token_influence"] = (("sample", *where), finest.sum(0), "influence on the token", unit)
        variables["token_contribution"] = (("checkpoint", "sample", *where), finest, "influence on the token", unit)
    return variables
