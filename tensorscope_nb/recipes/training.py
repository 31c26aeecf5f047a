"""Training on samples, in an order that is a function of a seed and the number of the step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import call
from tensorscope_nb.scope.loss import check_attached
from tensorscope_nb.scope.point import main_tensor

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

TrainFn = Callable[["Scope", Samples, range, int], Any]
Make = Callable[[Iterable[Any]], torch.optim.Optimizer]
RATES = {"adam": 2e-3, "sgd": 0.2}
BLOCK = 20  # steps between which progress is told
FUSED = {"cpu", "cuda"}


def generator(*names: Any) -> torch.Generator:
    """Random numbers of their own for what is named."""
    return torch.Generator().manual_seed(seed_of(*names))


def seed_of(*names: Any) -> int:
    return zlib.crc32(":".join(map(str, names)).encode())


class Batches:
    """The batch of each step: every epoch goes once through the samples in an order of its own, less what fills no batch."""

    def __init__(self, samples: Samples, terms: Tensor, size: int, seed: int) -> None:
        self._samples, self._terms, self._seed = samples, terms, seed
        self.size = min(size, len(samples))
        self._per_epoch = len(samples) // self.size
        self._epoch, self._parts = -1, list[tuple[Samples, Tensor]]()

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch, by number: a batch after the other."""
        drawn = torch.randperm(len(self._samples), generator=generator(self._seed, "epoch", epoch))
        return drawn[: self._per_epoch * self.size]

    def at(self, step: int) -> tuple[Samples, Tensor]:
        """A batch, without texts, which no loss reads; and the share that each sample has in its loss."""
        epoch, i = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._parts, self._epoch = self._cut(self.order(epoch)), epoch
        return self._parts[i]

    def _cut(self, order: Tensor) -> list[tuple[Samples, Tensor]]:
        """All batches of an epoch at once: to pick samples one by one would take as long as a small model's step."""
        whole, size, nothing = self._samples, self.size, (None,) * self.size
        names = [whole.ids[i] for i in order.tolist()]
        ids = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
        inputs = {name: value[order].split(size) for name, value in whole.inputs.items()}
        labels = [None] * len(ids) if whole.labels is None else whole.labels[order].split(size)
        terms = self._terms[order].view(-1, size)
        shares = terms / terms.sum(1, keepdim=True)
        return [
            (Samples({k: v[i] for k, v in inputs.items()}, labels[i], ids[i], ("",) * size, nothing, nothing), shares[i])
            for i in range(len(ids))
        ]


@dataclass(frozen=True)
class Trainer:
    """Minimises the model's own loss: per predicted token of a language model, else per sample."""

    optimizer: str | Make = "adam"
    learning_rate: float | None = None  # None: the optimizer is the caller's, and knows
    batch_size: int = 32

    def steps(self, scope: Scope, train: Samples, steps: range, seed: int) -> Iterator[None]:
        """Goes through ``steps``, and yields between blocks of them."""
        trained = [p for p in scope.model.parameters() if p.requires_grad]
        optimizer = self.made(trained)
        batches = Batches(train, scope.rule.n_terms(train).float(), self.batch_size, seed)
        for done, step in enumerate(steps, 1):
            part, shares = batches.at(step)
            losses = scope.rule.per_sample(main_tensor(call(scope.model, part, scope.anatomy)), part)
            loss = losses @ shares.to(losses)
            if done == 1:
                check_attached(loss)
            self._check(loss.item(), step, first=done == 1)
            for p in trained:
                p.grad = None  # what zero_grad() does, a tenth of a small step faster
            loss.backward()
            optimizer.step()
            if done % BLOCK == 0 and done < len(steps):
                yield

    def made(self, parameters: list[Any]) -> torch.optim.Optimizer:
        if callable(self.optimizer):
            made = self.optimizer(parameters)
            if not isinstance(made, torch.optim.Optimizer):
                raise TypeError(f"optimizer= returned a {type(made).__name__}: return a torch.optim.Optimizer of the parameters")
            return made
        assert self.learning_rate is not None
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, self.learning_rate)
        return torch.optim.Adam(parameters, self.learning_rate, fused=all(p.device.type in FUSED for p in parameters))

    def _check(self, loss: float, step: int, first: bool) -> None:
        if loss - loss != 0:  # infinite, or not a number
            if first:
                raise ValueError(
                    f"the loss is {loss:g} before a step is taken: the model does not work with these weights at zero (one that "
                    "divides by their norm?); choose others by modules="
                )
            rate = "the rate of your optimizer" if callable(self.optimizer) else f"learning_rate={self.learning_rate:g}"
            raise ValueError(f"the training diverged, at step {step} the loss is {loss:g}: take less than {rate}")


def trainer(optimizer: Any, learning_rate: Any, batch_size: Any) -> Trainer:
    """The trainer of these options, checked."""
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "optimizer holds weights that are not trained here: give a function that makes one, such as torch.optim.Adam"
        )
    if not callable(optimizer) and optimizer not in RATES:
        raise ValueError(
            f"optimizer is {optimizer!r}: choose 'adam' or 'sgd', or give a function that makes an optimizer of parameters"
        )
    if callable(optimizer) and learning_rate is not None:
        raise ValueError("learning_rate= is for 'adam' and 'sgd': give your optimizer its own")
    if learning_rate is not None and not (
        isinstance(learning_rate, int | float) and not isinstance(learning_rate, bool) and 0 < learning_rate < float("inf")
    ):
        raise ValueError(f"learning_rate is {learning_rate!r}: give a number above 0")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}: give how many samples a step takes, from 1 on")
    rate = None if callable(optimizer) else float(RATES[optimizer] if learning_rate is None else learning_rate)
    return Trainer(optimizer, rate, batch_size)
