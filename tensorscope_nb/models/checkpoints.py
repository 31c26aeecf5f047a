"""A model along its training: the packaged history, step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from tensorscope_nb.models.load import from_safetensors
from tensorscope_nb.models.packaged import CHECKPOINT_STEPS, FOLDER, checkpoint_file, packaged_tokenizer
from tensorscope_nb.scope import Scope


class Checkpoints(Sequence[Scope]):
    """Checkpoints of one training run, in order of their steps; each is loaded when it is asked for.

    ``learning_rates`` holds the optimizer's rate at each step, ``fingerprints`` a hash of each file's bytes.
    """

    def __init__(self, files: Sequence[Path], steps: Sequence[int], learning_rates: Sequence[float], name: str) -> None:
        self.files = tuple(files)
        self.steps = tuple(steps)
        self.learning_rates = tuple(learning_rates)
        self.name = name

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Scope:  # type: ignore[override]
        if not -len(self) <= i < len(self):
            raise IndexError(
                f"there is no checkpoint {i}: {self.name} has {len(self)}, at steps {', '.join(map(str, self.steps))}"
            )
        return Scope(from_safetensors(self.files[i]), packaged_tokenizer(), name=f"{self.name}@{self.steps[i]}")

    def __iter__(self) -> Iterator[Scope]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Checkpoints({self.name}: steps {', '.join(map(str, self.steps))})"


def checkpoints(name: str) -> Checkpoints:
    """The training history of the packaged model.

    >>> import tensorscope_nb as ts
    >>> history = ts.checkpoints("tiny")
    >>> len(history), history.steps[-1], history[2].name
    (8, 3000, 'tiny@600')
    """
    if name != "tiny":
        own = "ts.Study({name: scope, …})"
        raise LookupError(f"there is no packaged history {name!r}: there is 'tiny'; models of your own go as {own}")
    rates = json.loads((FOLDER / "history.json").read_text())["learning_rates"]
    files = [checkpoint_file(0, step) for step in CHECKPOINT_STEPS]
    return Checkpoints(files, CHECKPOINT_STEPS, [rates[str(step)] for step in CHECKPOINT_STEPS], name)
