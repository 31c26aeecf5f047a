"""One model along its training, as a recipe takes it: checkpoints in order, and how large the steps between them were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.models import Checkpoints
from tensorscope_nb.scope import Scope
from tensorscope_nb.scope.fingerprint import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

Rates = float | Sequence[float] | None
GIVE = "give ts.checkpoints(…), scopes of one run in order, {step: scope}, or one scope"
NO_RATES = "no learning rates are known: 1 is taken for every checkpoint, so that influence is in squared gradients of the loss"


@dataclass(frozen=True)
class History:
    """Checkpoints of one training run, each loaded when its turn comes."""

    name: str
    steps: tuple[int, ...]
    scopes: Iterable[Scope]
    fingerprints: tuple[str, ...]  # of the weights
    learning_rates: tuple[float | None, ...]

    @classmethod
    def of(cls, subject: Any) -> History:
        """Raises where the checkpoints cannot be those of one run: no two neighbours are equal, and all have one shape."""
        if isinstance(subject, Checkpoints):
            return cls(subject.name, subject.steps, subject, subject.fingerprints, subject.learning_rates)  # checked when made
        steps, scopes = _listed(subject)
        fingerprints = tuple(map(fingerprint, scopes))
        _check_alike(steps, scopes)
        for (a, b), (one, other) in zip(pairwise(steps), pairwise(fingerprints), strict=True):
            if b <= a:
                raise ValueError(f"step {b} comes after step {a}: give the checkpoints in the order of training")
            if one == other:
                raise ValueError(f"steps {a} and {b} have the same weights ({one}): one of the two is not what it says it is")
        return cls(scopes[0].name, steps, scopes, fingerprints, (None,) * len(scopes))

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def first(self) -> Scope:
        return next(iter(self.scopes))

    def rates(self, given: Rates) -> tuple[np.ndarray, list[str]]:
        """The step size of every checkpoint: as given, else as the history knows it, else 1, with a note that says so."""
        if given is None:
            known = [rate for rate in self.learning_rates if rate is not None]
            if not known:
                return np.ones(len(self)), [NO_RATES]
            if len(known) < len(self):
                lacks = self.steps[self.learning_rates.index(None)]
                raise ValueError(f"the learning rate at step {lacks} is not known, and others are: pass learning_rates=")
            if not any(known):
                raise ValueError("the learning rate is 0 at every checkpoint, and with it all influence: pass learning_rates=")
            return np.array(known), []
        if isinstance(given, str | bytes) or np.asarray(given).dtype.kind not in "iuf" or np.ndim(given) > 1:
            raise TypeError(f"learning_rates is {given!r}: give one number, or one for each checkpoint")
        rates = np.asarray(given, float) if np.ndim(given) else np.full(len(self), float(given))  # type: ignore[arg-type]
        if len(rates) != len(self):
            raise ValueError(f"learning_rates has {len(rates)} numbers for {len(self)} checkpoints: give one, or one for each")
        if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.any()):
            raise ValueError(f"learning_rates is {rates.tolist()}: give step sizes, not negative and not all 0")
        return rates, []


def _listed(subject: Any) -> tuple[tuple[int, ...], list[Scope]]:
    if isinstance(subject, Scope):
        return (0,), [subject]
    if isinstance(subject, str) or not isinstance(subject, Mapping | Sequence):
        raise TypeError(f"history is a {type(subject).__name__}: {GIVE}")
    if not len(subject):
        raise ValueError(f"the history is empty: {GIVE}")
    steps, scopes = zip(*(subject.items() if isinstance(subject, Mapping) else enumerate(subject)), strict=True)
    for step, scope in zip(steps, scopes, strict=True):
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(f"{step!r} is no training step: {GIVE}")
        if not isinstance(scope, Scope):
            raise TypeError(f"at step {step} stands a {type(scope).__name__}: {GIVE}")
    return tuple(map(int, steps)), list(scopes)


def _check_alike(steps: Sequence[int], scopes: Sequence[Scope]) -> None:
    """What differs between two of them makes their gradients those of other functions, or by other weights."""
    first = _described(scopes[0])
    for step, scope in zip(steps, scopes, strict=True):
        here = _described(scope)
        for name in [*first, *here]:
            now, then = here.get(name, "missing"), first.get(name, "missing")
            if now != then:
                raise ValueError(
                    f"{name} is {now} at step {step} and {then} at step {steps[0]}: these are not checkpoints of one model"
                )


def _described(scope: Scope) -> dict[str, str]:
    """Parameters, modules, and what neither shows."""
    named: Iterable[tuple[str, Tensor]] = scope.model.named_parameters()
    found = {name: f"{tuple(p.shape)}{'' if p.requires_grad else ', frozen'}" for name, p in named}
    found |= {f"module {path or '(the model)'}": type(module).__name__ for path, module in scope.model.named_modules()}
    return found | {"the number of heads": str(scope.anatomy.n_heads), "the loss": scope.rule.name}
