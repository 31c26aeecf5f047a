"""The losses of a model with some weights of a module set to zero: set after set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from tensorscope_nb.scope.changed import Change, changed
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.sweep.objective import Objective

Weights = Sequence[tuple[str, np.ndarray]]  # parameters, and places in each


class Emptied:
    """One forward of all samples for the whole model, and one for each set; NaN where it was not come to."""

    def __init__(self, objective: Objective, sets: Mapping[tuple, Weights], chunk: int | None) -> None:
        self.objective, self.sets, self._chunk = objective, sets, chunk
        self.losses = np.full(len(objective.samples), np.nan)
        self.changed = {key: np.full(len(objective.samples), np.nan) for key in sets}
        self.n_changed = dict.fromkeys(sets, 0)

    @property
    def total(self) -> float:
        return 1 + len(self.sets)

    @property
    def nbytes(self) -> float:
        return 16.0 * sum(len(places) for weights in self.sets.values() for _, places in weights)

    def steps(self) -> Iterator[None]:
        model, parts = self.objective.scope.model, self.objective.parts(self._chunk)
        self.objective.check_apart(parts[0])
        losses = self.objective.by_sample(parts)
        check_finite(losses, self.objective.samples, model)
        self.losses = losses.numpy()
        yield
        for key, weights in self.sets.items():
            changes = []
            for name, places in weights:
                p = model.get_parameter(name)
                at = torch.as_tensor(places, device=p.device)
                changes.append(Change(p, at, torch.zeros(len(places), dtype=p.dtype, device=p.device)))
            with changed(model, changes) as n_changed:
                without = self.objective.by_sample(parts).numpy()
            self.n_changed[key] = n_changed
            self.changed[key] = np.where(np.isfinite(without), without, np.inf)
            yield

    def increases(self, key: tuple) -> np.ndarray:
        """Of each sample (n,); 0 exactly where nothing changed."""
        with np.errstate(invalid="ignore"):
            return self.changed[key] - self.losses
