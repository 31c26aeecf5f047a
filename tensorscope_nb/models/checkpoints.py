"""A model along its training: its checkpoints in order, each checked before anything is measured on it."""

from __future__ import annotations

import copy
import json
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tensorscope_nb.models.fit import put
from tensorscope_nb.models.found import checkpoints_in
from tensorscope_nb.models.packaged import (
    CHECKPOINT_STEPS,
    DIGITS,
    DIGITS_STEPS,
    FOLDER,
    checkpoint_file,
    new_tiny_model,
    packaged_tokenizer,
    step_file,
)
from tensorscope_nb.models.stored import Stored, rates_beside, read
from tensorscope_nb.models.told import agreed, rate, step_of
from tensorscope_nb.scope import Scope
from tensorscope_nb.scope.fingerprint import fingerprint

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope.loss import CustomLoss

Rates = float | Sequence[float | None] | None


class Checkpoints(Sequence[Scope]):
    """Checkpoints of one training run, in order of their steps; each is loaded when it is asked for.

    ``learning_rates`` holds the optimizer's rate at each step, None where nothing tells it; ``fingerprints`` a hash of the
    weights as the model holds them, whatever the file. ``[i]`` is a Scope, ``[a:b]`` a part of the history.
    """

    def __init__(
        self,
        files: Sequence[Path],
        model: nn.Module,
        *,
        name: str,
        tokenizer: Any = None,
        loss: CustomLoss | None = None,
        learning_rates: Rates = None,
        steps: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        self.files = tuple(files)
        # of our own, so that the one given keeps its weights, and may change without changing the history
        self._model = copy.deepcopy(model)
        self._tokenizer, self._loss = tokenizer, loss
        given_steps = _one_each(steps, "steps", files)
        each = [learning_rates] * len(files) if _is_one(learning_rates) else learning_rates
        given_rates = _one_each(each, "learning_rates", files)
        found_steps: list[int] = []
        rates: list[float | None] = []
        prints: list[str] = []
        for i, file in enumerate(self.files):
            stored = read(file)
            step = step_of(file, stored.steps, None if given_steps is None else given_steps[i])
            if found_steps and step <= found_steps[-1]:
                raise ValueError(_out_of_order(self.files[: i + 1], found_steps, step))
            printed = fingerprint(self._with(stored, file))
            if printed in prints:
                j = prints.index(printed)
                raise ValueError(
                    f"the weights of steps {found_steps[j]} and {step} are the same ({self.files[j]} and {file}): one of the two "
                    "is not what its name says; save or fetch it again, or leave it out"
                )
            if given_rates is None:
                rates.append(_rate(file, stored, step))
            else:
                rates.append(None if given_rates[i] is None else rate(given_rates[i], "an entry of learning_rates="))
            found_steps.append(step)
            prints.append(printed)
            del stored  # before the next is read
        self.steps, self.learning_rates, self.fingerprints = tuple(found_steps), tuple(rates), tuple(prints)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, i: int) -> Scope: ...
    @overload
    def __getitem__(self, i: slice) -> Checkpoints: ...
    def __getitem__(self, i: int | slice) -> Scope | Checkpoints:
        if isinstance(i, slice):
            return self._part(i)
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(
                f"there is no checkpoint {i}: {self.name} has {len(self)}, at steps {', '.join(map(str, self.steps))}"
            )
        model = self._with(read(self.files[i]), self.files[i])
        if fingerprint(model) != self.fingerprints[i]:
            raise ValueError(f"{self.files[i]} has other weights than when this history was made: make the history again")
        return Scope(model, self._tokenizer, self._loss, name=f"{self.name}@{self.steps[i]}")

    def _with(self, stored: Stored, file: Path) -> nn.Module:
        """A model of its own: what a file may lack is the given model's, and not what another file left there."""
        model = copy.deepcopy(self._model)
        put(stored.weights, model, file)
        return model

    def _part(self, rows: slice) -> Checkpoints:
        if not self.files[rows]:
            raise ValueError(f"[{rows.start}:{rows.stop}] selects none of {len(self)} checkpoints")
        if (rows.step or 1) < 0:
            raise ValueError("a history goes forward: select it without a negative step")
        part = copy.copy(self)
        for name in ("files", "steps", "learning_rates", "fingerprints"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def __iter__(self) -> Iterator[Scope]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Checkpoints({self.name}: steps {', '.join(map(str, self.steps))})"


def checkpoints(
    source: str | Path | Sequence[str | Path],
    model: nn.Module | Scope | None = None,
    *,
    tokenizer: Any = None,
    loss: CustomLoss | None = None,
    learning_rates: Rates = None,
    steps: Sequence[int] | None = None,
) -> Checkpoints:
    """A training history: a packaged one by its name, ``"tiny"`` or ``"digits"``, or your own with a model to read it with.

    ``source`` is a folder of ``.safetensors`` files, or of ``.pt``, ``.pth`` or ``.bin`` files with a state dict (bare, or
    under ``"model"``, ``"state_dict"`` or ``"model_state_dict"``); a folder that the Trainer of the transformers library
    wrote, with ``checkpoint-500`` and so on in it; or a list of files, or of such folders, in the order of training.
    ``model`` is an ``nn.Module`` of the same architecture, which is copied and keeps its weights, or a Scope, whose tokenizer
    and loss are taken. ``history[i]`` is a Scope, loaded when it is asked for and never held.

    Steps are told by the names (``step000600``, ``checkpoint-500``, ``model_step_40.pt``), by the file (``"step"``, the
    ``"step"`` of safetensors metadata, ``trainer_state.json``), or by ``steps=`` beside a list. Learning rates are told by the
    file (``"lr"``, ``"learning_rate"``, the optimizer's state where all its groups have one rate, metadata,
    ``trainer_state.json`` where it logged at that step), by a ``history.json`` beside it with ``{"learning_rates": {step:
    rate}}``, or by ``learning_rates=`` (one number, or one each), which has the last word; None is where nothing tells one.

    Errors: everything is checked now, before anything runs on it. ValueError where two checkpoints have the same weights,
    steps are not in order or occur twice, what tells a step disagrees or nothing does, tensors are missing, unexpected or
    of another shape, or a file is more than weights (nothing of it is run); OSError for a file that is cut off or not there.
    Cost: every file is read once, and memory for two more copies of the model, of which one stays.

    >>> import tensorscope_nb as ts
    >>> history = ts.checkpoints("tiny")
    >>> len(history), history.steps[-1], history[2].name
    (8, 3000, 'tiny@600')

    >>> import tempfile
    >>> from tensorscope_nb.models.digits import new_digits_model, train_digits
    >>> folder = tempfile.mkdtemp()
    >>> _ = train_digits(ts.datasets.digits("train"), n_steps=90, save_at=(0, 45, 90), folder=folder)
    >>> own = ts.checkpoints(folder, new_digits_model())
    >>> own.steps, own.learning_rates, own[-1].losses(ts.datasets.digits()).shape
    ((0, 45, 90), (0.2, 0.2, 0.2), torch.Size([360]))
    """
    if model is None:
        if any(given is not None for given in (tokenizer, loss, learning_rates, steps)) or not isinstance(source, str):
            raise TypeError("a history of your own needs the model: ts.checkpoints(folder_or_paths, model, …)")
        return _packaged(source)
    import torch

    if isinstance(model, Scope):
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        loss = model.rule.custom if loss is None else loss
        called, model = model.name, model.model
    elif isinstance(model, torch.nn.Module):
        called = type(model).__name__
    else:
        raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module, or a Scope, to read the checkpoints with")
    if steps is not None and isinstance(source, str | Path):
        raise ValueError("steps= goes with a list of files, one step for each: a folder has no order but that of its names")
    files = checkpoints_in(source)
    folders = {file.resolve().parent for file in files}
    name = folders.pop().name if len(folders) == 1 else called
    return Checkpoints(
        files, model, name=name, tokenizer=tokenizer, loss=loss, learning_rates=learning_rates, steps=steps
    )  # fmt: skip


def _packaged(name: str) -> Checkpoints:
    if name == "tiny":
        rates = json.loads((FOLDER / "history.json").read_text())["learning_rates"]
        files = [checkpoint_file(0, step) for step in CHECKPOINT_STEPS]
        told = [rates[str(step)] for step in CHECKPOINT_STEPS]
        return Checkpoints(files, new_tiny_model(), name=name, tokenizer=packaged_tokenizer(), learning_rates=told)
    if name == "digits":
        from tensorscope_nb.models.digits import new_digits_model

        return Checkpoints([step_file(DIGITS, step) for step in DIGITS_STEPS], new_digits_model(), name=name)
    if Path(name).exists():
        raise TypeError(f"{name!r} is there, and nothing says of which model: give it, ts.checkpoints({name!r}, model)")
    raise LookupError(
        f"there is no packaged history {name!r}: there are 'tiny' and 'digits'; your own goes as ts.checkpoints(folder, model)"
    )


def _is_one(rates: Any) -> bool:
    return (
        rates is not None
        and (not isinstance(rates, Sequence) or isinstance(rates, str | bytes))
        and not getattr(rates, "ndim", 0)
    )


def _one_each(values: Any, name: str, files: Sequence[Path]) -> list[Any] | None:
    if values is None:
        return None
    text = isinstance(values, str | bytes)
    listed = values.tolist() if hasattr(values, "tolist") else list(values) if isinstance(values, Sequence) and not text else None
    if not isinstance(listed, list):
        raise TypeError(f"{name} is {values!r}: give a list, one for each of {len(files)} checkpoints")
    if len(listed) != len(files):
        raise ValueError(f"{name} has {len(listed)} entries for {len(files)} checkpoints: give one for each")
    return listed


def _rate(file: Path, stored: Stored, step: int) -> float | None:
    beside = rates_beside(file)
    told = stored.rates | ({"history.json": beside[step]} if step in beside else {})
    return agreed(file, told, "learning rate") if told else None


def _out_of_order(files: Sequence[Path], steps: Sequence[int], step: int) -> str:
    if step in steps:
        return f"step {step} occurs twice: {files[steps.index(step)]} and {files[-1]}; leave one out"
    return f"{files[-1]} is of step {step} and comes after step {steps[-1]}: give the files in the order of training"
