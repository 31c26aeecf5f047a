"""Per-sample squared gradients, computed when they are looked at: ``contributions[task][sample][parameter]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tensorscope_nb.scope.reference import per_sample_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


class Contributions(Mapping[str, "TaskContributions"]):
    """By task. Nothing is stored: a cache of them would take samples × parameters."""

    def __init__(self, scope: Scope, samples: Samples) -> None:
        self._tasks = {task: TaskContributions(scope, samples, task) for task in dict.fromkeys(samples.tasks)}

    def __getitem__(self, task: str) -> TaskContributions:
        if task not in self._tasks:
            raise KeyError(f"there is no task {task!r}: there are {', '.join(self._tasks)}")
        return self._tasks[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def fisher(self, task: str, parameter: str) -> Tensor:
        """The mean over the task's samples of their squared gradients of one parameter: its empirical diagonal Fisher."""
        samples = self[task]
        return sum((samples[name][parameter] for name in samples), start=0) / len(samples)  # type: ignore[return-value]


class TaskContributions(Mapping[str, "SampleContributions"]):
    """By sample id."""

    def __init__(self, scope: Scope, samples: Samples, task: str) -> None:
        self._scope = scope
        self._samples = samples[[i for i, name in enumerate(samples.tasks) if name == task]]

    def __getitem__(self, sample: str) -> SampleContributions:
        if sample not in self._samples.ids:
            raise KeyError(f"there is no sample {sample!r} here: there are {', '.join(self._samples.ids[:4])} …")
        return SampleContributions(self._scope, self._samples[self._samples.ids.index(sample)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples.ids)

    def __len__(self) -> int:
        return len(self._samples)


class SampleContributions(Mapping[str, "Tensor"]):
    """By parameter, with the parameter's shape."""

    def __init__(self, scope: Scope, sample: Samples) -> None:
        self._scope = scope
        self._sample = sample
        self._names = [name for name, p in scope.model.named_parameters() if p.requires_grad]

    def __getitem__(self, parameter: str) -> Tensor:
        if parameter not in self._names:
            raise KeyError(f"there is no trainable parameter {parameter!r}: names are such as {', '.join(self._names[:3])}")
        return per_sample_gradients(self._scope, self._sample, parameters=[parameter])[parameter][0] ** 2

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
