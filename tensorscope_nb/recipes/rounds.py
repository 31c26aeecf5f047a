"""Rounds of training, pruning and rewinding, and the trainings that they are compared with: work that goes by steps."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from tensorscope_nb.numerics.pruned import shuffled, without_least
from tensorscope_nb.recipes.trainee import Initialize, State, Trainee
from tensorscope_nb.recipes.training import BLOCK, generator, seed_of

Score = tuple[float, float]  # loss, accuracy
COPIES = 8  # of the weights: the copy and its optimizer's, where it starts, the other start, what is trained, and masks


@dataclass(frozen=True)
class Design:
    """What is trained, how long, and to what it is pruned."""

    sparsities: Sequence[float]
    counts: Sequence[int]  # weights left in round 0, 1, …
    ends: Sequence[int]  # the round that ends at each sparsity
    train_steps: int
    rewind_step: int
    controls: Sequence[str]  # beside the ticket and the dense model
    evenly: bool
    n_seeds: int
    seed: int
    initialize: Initialize | None

    def order(self, replicate: int) -> int:
        """The seed of the order of batches."""
        return seed_of(self.seed, replicate, "order")


@dataclass
class Found:
    """What is known of one replicate; of a sparsity all, or nothing."""

    initial: Tensor
    rewound: Tensor
    rounds: list[Score] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)  # by sparsity
    scores: list[dict[str, Score]] = field(default_factory=list)


class Rounds:
    """Replicate after replicate: the dense training, then round after round, and at each sparsity the controls."""

    def __init__(self, make: Callable[[], Trainee], design: Design, n_weights: int, nbytes: float, by_blocks: bool) -> None:
        self._make, self.design, self.nbytes = make, design, nbytes * COPIES
        self.replicates: list[Found] = []
        self._block = BLOCK if by_blocks else max(1, design.train_steps)
        self._all = n_weights

    @property
    def total(self) -> float:
        return self.design.n_seeds * self._until(len(self.design.ends))

    @property
    def least(self) -> int:
        """Steps until the first sparsity is done."""
        return self._until(1)

    def _until(self, n_sparsities: int) -> int:
        d = self.design
        dense = 1 + ("reinit" in d.controls) if d.rewind_step else 0
        trainings = 1 + d.ends[n_sparsities - 1] + n_sparsities * len(d.controls)
        each = max(1, ceil((d.train_steps - d.rewind_step) / self._block))
        return dense * ceil(d.rewind_step / self._block) + trainings * each

    @property
    def whole(self) -> tuple[list[Found], int]:
        """The replicates that are done, or of the first one what is; and the number of sparsities that they have."""
        n = len(self.design.ends)
        done = [found for found in self.replicates if len(found.masks) == n]
        return (done, n) if done else (self.replicates[:1], len(self.replicates[0].masks))

    def steps(self) -> Iterator[None]:
        trainee = self._make()
        for replicate in range(self.design.n_seeds):
            yield from self._replicate(trainee, replicate)

    def _replicate(self, trainee: Trainee, replicate: int) -> Iterator[None]:
        d = self.design
        rest = range(d.rewind_step, d.train_steps)
        theta = trainee.redrawn(seed_of(d.seed, replicate, "initial"), d.initialize) if replicate else trainee.own
        start = yield from self._rewound(trainee, theta, replicate)
        found = Found(torch.cat(trainee.weights(theta)), torch.cat(trainee.weights(start)))
        dense = yield from self._score(trainee, start, trainee.whole, rest, replicate, "the dense model")
        kept, weights = trainee.whole, trainee.weights()
        found.rounds.append(dense)
        self.replicates.append(found)
        yield
        other = start
        if "reinit" in d.controls:
            theta = trainee.redrawn(seed_of(d.seed, replicate, "reinit"), d.initialize)
            other = yield from self._rewound(trainee, theta, replicate)
        for i, count in enumerate(d.counts[1:], 1):
            kept = without_least(weights, kept, self._all - count, evenly=d.evenly)
            runs = {"ticket": (start, kept)}
            if i in d.ends and "reinit" in d.controls:
                runs["reinit"] = (other, kept)
            if i in d.ends and "random" in d.controls:
                runs["random"] = (start, shuffled(kept, generator(d.seed, replicate, "random")))
            scores: dict[str, Score] = {"dense": dense}
            for name, (begin, mask) in runs.items():
                words = f"{name} with {count} of {self._all} weights"
                scores[name] = yield from self._score(trainee, begin, mask, rest, replicate, words)
                if name == "ticket":
                    weights = trainee.weights()
                    found.rounds.append(scores[name])
                if i in d.ends and len(scores) == 1 + len(runs):
                    found.masks.append(torch.cat(kept))
                    found.scores.append(scores)
                yield

    def _rewound(self, trainee: Trainee, theta: State, replicate: int) -> Generator[None, None, State]:
        """Where training starts again each time: θ after the first steps, dense."""
        steps = range(self.design.rewind_step)
        if not len(steps):
            return theta
        yield from self._trained(trainee, theta, trainee.whole, steps, replicate, "the first steps")
        state = trainee.state()
        yield
        return state

    def _score(
        self, trainee: Trainee, start: State, kept: Sequence[Tensor], steps: range, replicate: int, words: str
    ) -> Generator[None, None, Score]:
        yield from self._trained(trainee, start, kept, steps, replicate, words)
        return trainee.score()

    def _trained(
        self, trainee: Trainee, start: State, kept: Sequence[Tensor], steps: range, replicate: int, words: str
    ) -> Iterator[None]:
        try:
            yield from trainee.trained(start, kept, steps, self.design.order(replicate))
        except ValueError as error:
            raise ValueError(f"{words}, replicate {replicate}: {error}") from error
