"""What a recipe asks for besides gradients: time for steps of its own, between which it can be shown and stopped.

done = yield Work(solver, "products with the Hessian")      # solver holds what is done, also where it was stopped
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from tensorscope_nb.scope.interrupts import held_interrupts
from tensorscope_nb.sweep.progress import bar

END = object()
FORWARD = 1 / 3  # of a forward and backward, for who plans


class Steps(Protocol):
    """A computation that goes by steps, and can be read after each.

    One whose steps need not follow each other also has ``spread(executor)``, the same steps done by workers.
    """

    @property
    def total(self) -> float:
        """About how many steps it takes."""
        ...

    @property
    def nbytes(self) -> float:
        """What it holds, at most."""
        ...

    def steps(self) -> Iterator[None]: ...


@dataclass(frozen=True)
class Done:
    """How it ended."""

    n_steps: int
    complete: bool
    interrupted: bool = False


@dataclass(frozen=True)
class Work:
    """So many steps of ``state``, each one run through the samples or about so much."""

    state: Steps
    label: str
    progress: bool | None = None
    least: int = 1  # steps after which something can be said
    more: float = 0  # steps that are asked for after these, for who plans

    @property
    def held(self) -> Sequence[Any]:
        """What holds all that is done."""
        return [self.state]

    @property
    def sweep(self) -> Any:
        """No one else's."""
        return id(self)

    def enough(self, n: int) -> bool:
        return n >= self.least

    def run(self, tell: Callable[[Done], None] | None = None, executor: Executor | None = None) -> Done:
        """All steps, or those before an interrupt; ``tell`` is called between them."""
        n = 0
        with bar(self.state.total, self.label, self.progress) as ticks:
            try:
                spread = None if executor is None else getattr(self.state, "spread", None)
                steps = spread(executor) if spread else self.state.steps()
                while True:
                    with held_interrupts():  # what is done is of whole steps
                        if next(steps, END) is END:
                            break
                        n += 1  # here, where an interrupt waits: it comes once the step is done and counted
                    ticks.total = max(self.state.total, n)
                    ticks.update()
                    if tell is not None:
                        tell(Done(n, complete=False))
            except KeyboardInterrupt:
                return Done(n, complete=False, interrupted=True)
        return Done(n, complete=True)
