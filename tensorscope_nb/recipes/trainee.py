"""A copy of a model that is trained, again and again from where it is put, while the model itself stays what it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from tensorscope_nb.recipes.masking import check_enforced, enforced
from tensorscope_nb.recipes.next_token import next_tokens
from tensorscope_nb.recipes.training import Trainer, TrainFn, generator, seed_of
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope import Scope
from tensorscope_nb.scope.interrupts import allowed, held_interrupts
from tensorscope_nb.scope.state import turn
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import END

State = dict[str, Tensor]
Masks = dict[str, Tensor]
Initialize = Callable[[nn.Module, int], Any]


class Trainee:
    """The copy, what trains it, and what it is asked about."""

    def __init__(
        self, scope: Scope, train: Samples, test: Samples, train_fn: TrainFn | Trainer, names: Sequence[str], chunk: int | None
    ) -> None:
        with held_interrupts() as held, turn(scope.model, held):
            model = copy.deepcopy(scope.model)
        self.scope = Scope(model, scope.tokenizer, scope.rule.custom, name=scope.name)
        self.train, self.train_fn, self.names = train, train_fn, names
        self.parameters = dict(model.named_parameters())
        self._trainable = {name for name, p in self.parameters.items() if p.requires_grad}
        self._objective, self._chunk = Objective(self.scope, test, reduction="sum"), chunk
        self.own = self.state()
        self.whole = [torch.ones(len(w), dtype=torch.bool) for w in self.weights()]

    def state(self) -> State:
        """A copy of all weights and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @property
    def _tensors(self) -> State:
        return {**dict(self.scope.model.named_parameters()), **dict(self.scope.model.named_buffers())}

    def put(self, state: State) -> None:
        for name, tensor in self._tensors.items():
            tensor.data.copy_(state[name])
        for name, p in self.parameters.items():
            p.requires_grad_(name in self._trainable)
            p.grad = None

    def weights(self, state: State | None = None) -> list[Tensor]:
        """Those that can be pruned, flat: as they are now, or in a state."""
        held: Mapping[str, Tensor] = self.parameters if state is None else state
        return [held[name].detach().flatten().cpu().clone() for name in self.names]

    def masks(self, kept: Sequence[Tensor]) -> Masks:
        """Flat ones shaped as their parameters, on their devices; none where all is kept."""
        if all(bool(mask.all()) for mask in kept):
            return {}
        return {
            name: mask.view(self.parameters[name].shape).to(self.parameters[name].device)
            for name, mask in zip(self.names, kept, strict=True)
        }

    def redrawn(self, seed: int, initialize: Initialize | None) -> State:
        """Other initial weights: by ``initialize``, or the values of each trainable tensor in another order."""
        self.put(self.own)
        if initialize is None:
            for name in sorted(self._trainable):
                flat = self.parameters[name].data.flatten()
                order = torch.randperm(len(flat), generator=generator(seed, name))
                self.parameters[name].data.copy_(flat[order.to(flat.device)].view_as(self.parameters[name]))
        else:
            with self._seeded(seed):
                initialize(self.scope.model, seed)
            self._check_same("initialize")
        drawn = self.state()
        if all(torch.equal(drawn[name], self.own[name]) for name in self.names):
            how = "initialize= left them" if initialize else "another order leaves them"
            raise ValueError(f"there are no other initial weights to compare with, {how} as they are: give another initialize=")
        return drawn

    def trained(self, start: State, kept: Sequence[Tensor], steps: range, seed: int) -> Iterator[None]:
        """Puts the model to ``start``, less what is not kept, and trains; yields on the way."""
        masks = self.masks(kept)
        self.put(start)
        with enforced(self.parameters, masks) if masks else nullcontext():
            if not len(steps):
                return
            running = self._blocks(steps, seed)
            for i in count():
                with self._seeded(seed_of(seed, steps.start, i)), torch.enable_grad(), allowed():
                    self.scope.model.train()
                    if next(running, END) is END:
                        break
                yield
        if not isinstance(self.train_fn, Trainer):
            self._check_same("train_fn")
            began = {name: start[name] * masks[name] if name in masks else start[name] for name in self.parameters}
            if all(torch.equal(began[name], p) for name, p in self.parameters.items()):
                raise ValueError("train_fn changed no weight: it must train the very scope.model that it is given")
        broken = [name for name, p in self.parameters.items() if not bool(p.isfinite().all())]
        if broken:
            raise ValueError(
                f"the training diverged, after step {steps[-1]} {broken[0]} is not finite: take a lower learning rate"
            )
        check_enforced(self.parameters, masks)

    def _blocks(self, steps: range, seed: int) -> Iterator[None]:
        if isinstance(self.train_fn, Trainer):
            yield from self.train_fn.steps(self.scope, self.train, steps, seed)
        else:
            self.train_fn(self.scope, self.train, steps, seed)

    def _check_same(self, option: str) -> None:
        """Weights that are others, or gone, cannot be rewound or pruned."""
        now = self._tensors
        for name in self.own.keys() | now.keys():
            had, has = self.own.get(name), now.get(name)
            if had is None or has is None:
                raise ValueError(f"{option} changed the architecture: {name} {'came' if had is None else 'is gone'}")
            if had.shape != has.shape or had.dtype != has.dtype:
                raise ValueError(f"{option} changed the architecture: {name} was {_form(had)} and is {_form(has)}")
            if name in self.parameters and self.parameters[name] is not has:
                raise ValueError(
                    f"{option} put another parameter in the place of {name}: change the values of the one that is there"
                )

    def score(self) -> tuple[float, float]:
        """The loss and the accuracy on the test samples, per predicted token or per sample; NaN where none is right."""
        objective, right, total, loss = self._objective, 0, 0, 0.0
        with objective.differentiated(), torch.no_grad():
            for rows in objective.parts(self._chunk):
                outputs, part = objective.outputs(rows), objective.samples[rows]
                loss += float(objective.loss(outputs, rows).double())
                targets = self.targets(part)
                if targets is not None:
                    targets, counted = targets.to(outputs.device), targets.to(outputs.device) != IGNORED
                    right += int(((outputs.argmax(-1) == targets) & counted).sum())
                    total += int(counted.sum())
        return loss, right / total if total else float("nan")

    def targets(self, part: Samples) -> Tensor | None:
        """What the largest output should be, IGNORED where nothing is predicted; None where outputs are no choice."""
        rule, task = self.scope.rule, self.scope.anatomy.task
        if rule.custom is not None:
            return None
        if task == "causal":
            return next_tokens(self.scope, part)
        if task == "masked":
            return part.token_labels.masked_fill(~rule.predicted(part), IGNORED)
        return part.labels

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """What draws from the global generators (a dropout, the user's code) draws by ``seed``; afterwards they are as before."""
        devices = sorted({p.device.index for p in self.parameters.values() if p.device.type == "cuda"})
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seed)  # and not torch.manual_seed, which reaches devices that are not used here
            for device in devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
