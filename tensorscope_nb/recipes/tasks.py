"""Two tasks in one set of samples, so that one sweep serves every comparison of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.covered import said
from tensorscope_nb.recipes.dataset import sample_coords
from tensorscope_nb.samples import Samples
from tensorscope_nb.sweep.measure import SquaresBy

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.sweep.gradients import Coverage

Rows = np.ndarray
FEW = 16  # samples of each task below which a test sees little


@dataclass(frozen=True, eq=False)
class TwoTasks:
    """Samples, and which rows of them belong to each of two tasks (the same ones twice: one set against itself).

    A recipe that compares tasks takes it in place of its two sets of samples.
    """

    samples: Samples
    a: Rows
    b: Rows
    index: Rows  # of each row, its number where the user counts: in a + b, or in the samples of a Study

    @classmethod
    def of(cls, scope: Scope, a: Any, b: Any, *, alone: bool = False) -> TwoTasks:
        """The two sets taken in turns, so that an interrupted sweep has some of both; ``alone`` allows one set without b."""
        if isinstance(a, TwoTasks):
            return a
        if b is None and not alone:
            raise TypeError("b is missing: this compares two tasks, give the samples of both")
        if b is None:
            a = scope.samples(a)
            every = np.arange(len(a))
            return cls(a, every, every, every)
        if a is b:
            raise ValueError("a and b are the same samples: give two sets, or one alone where a recipe takes one set")
        one, other = (x if isinstance(x, Samples) else scope.samples(x, task=name) for x, name in ((a, "a"), (b, "b")))
        n, m = len(one), len(other)
        order = np.argsort(np.concatenate([(np.arange(n) + 0.5) / n, (np.arange(m) + 0.5) / m]), kind="stable")
        return cls(
            (scope.samples(one) + scope.samples(other))[order], np.flatnonzero(order < n), np.flatnonzero(order >= n), order
        )

    @property
    def apart(self) -> bool:
        """Two sets, and not one against itself."""
        return not np.array_equal(self.a, self.b)

    @property
    def names(self) -> tuple[str, str]:
        tasks = [set(self.samples.tasks[i] for i in rows) for rows in (self.a, self.b)]
        one, other = (next(iter(names)) if len(names) == 1 else side for names, side in zip(tasks, "ab", strict=True))
        return (one, other) if one != other or not self.apart else ("a", "b")

    def require(self, least: int) -> None:
        for name, rows in zip(self.names, (self.a, self.b), strict=True):
            if len(rows) < least:
                raise ValueError(
                    f"task {name!r} has {len(rows)} sample{'s' * (len(rows) != 1)}: this takes at least {least} of each"
                )

    def within(self, n: int) -> TwoTasks:
        """The same of the first n samples."""
        return TwoTasks(self.samples[:n], self.a[self.a < n], self.b[self.b < n], self.index[:n])

    def enough(self, n: int, least: int) -> bool:
        """Whether the first n samples hold so many of both."""
        return min((self.a < n).sum(), (self.b < n).sum()) >= least

    @cached_property
    def halves(self) -> tuple[Rows, Rows, Rows, Rows]:
        """Every other sample of a, the rest of a, and the same of b."""
        return self.a[::2], self.a[1::2], self.b[::2], self.b[1::2]

    @cached_property
    def squares(self) -> SquaresBy:
        """Squared gradients by half of a task."""
        return SquaresBy([{self.samples.ids[i] for i in rows} for rows in self.halves])

    def warn_few(self, least: int = FEW, so: str = "little is seen") -> None:
        for name, rows in zip(self.names, (self.a, self.b), strict=True):
            if len(rows) < least:
                warnings.warn(f"Only {len(rows)} samples for task {name!r}: below {least} {so}", stacklevel=2)

    def coords(self) -> dict[str, Any]:
        """``sample_a`` and ``sample_b``: ids, and beside them tasks, texts and numbers."""
        found: dict[str, Any] = {}
        for side, rows in (("_a", self.a), ("_b", self.b)):
            found |= sample_coords(self.samples[rows], side) | {f"index{side}": (f"sample{side}", self.index[rows])}
        return found

    def said(self, covered: Coverage, whole: TwoTasks) -> dict[str, Any]:
        """What a result says of how it was found."""
        used = {f"n_used_{side}": len(rows) for side, rows in (("a", self.a), ("b", self.b))}
        available = {f"n_available_{side}": len(rows) for side, rows in (("a", whole.a), ("b", whole.b))}
        names = dict(zip(("task_a", "task_b"), self.names, strict=True))
        return names | used | available | said(whole.samples, self.samples, covered)


def check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: give a level between 0 and 1, such as 0.05")


def pairs_of_tasks(samples: Samples) -> Sequence[TwoTasks]:
    """Every two tasks of some samples."""
    tasks = list(dict.fromkeys(samples.tasks))
    rows = {task: np.array([i for i, name in enumerate(samples.tasks) if name == task]) for task in tasks}
    every = np.arange(len(samples))
    return [TwoTasks(samples, rows[a], rows[b], every) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
