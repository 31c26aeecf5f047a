"""A trace over a generation: ``scope.trace(text, max_new_tokens=5)`` and ``for step in tracer.iter[:]``."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from tensorscope_nb.errors import UnsupportedModel

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope.scope import Scope
    from tensorscope_nb.scope.trace import Tracer


class Steps:
    """The steps of a generation; each turn of a loop over them begins one. It ends where the model does."""

    def __init__(self, tracer: Tracer, steps: Iterable[int]) -> None:
        self._tracer = tracer
        self._steps = steps

    def __getitem__(self, key: int | slice | list[int]) -> Steps:
        if isinstance(key, int):
            return Steps(self._tracer, [key])
        if not isinstance(key, slice):
            return Steps(self._tracer, list(key))
        if min(key.start or 0, key.stop or 0, (key.step or 1) - 1) < 0:
            raise ValueError(f"steps {key.start}:{key.stop}:{key.step} were asked for: count them from 0, forwards")
        start, by = key.start or 0, key.step or 1
        return Steps(self._tracer, itertools.count(start, by) if key.stop is None else range(start, key.stop, by))

    def __iter__(self) -> Iterator[int]:
        prompt = self._tracer.running
        for step in self._steps:
            if not prompt.to_step(step):
                if not isinstance(self._steps, itertools.count):
                    text = f"step {step} was asked for, and the model made {prompt.run.step + 1}: the loop ends before it"
                    warnings.warn(text, stacklevel=2)
                return
            yield step


def generating(scope: Scope, samples: Samples, options: dict[str, Any]) -> Callable[[], Any]:
    """A call of the model's own ``generate``: greedy unless ``options`` say otherwise, with its key-value cache.

    Padding goes to the left, where the next token does not see it.
    """
    model: Any = scope.model
    if scope.anatomy.task != "causal" or not hasattr(model, "generate"):
        raise UnsupportedModel(f"max_new_tokens= needs a causal language model: {scope.name} generates no text")
    n = options["max_new_tokens"]
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"max_new_tokens is {n!r}: generate at least 1 token")
    width = samples.input_ids.shape[1] + n - 1
    if scope.anatomy.context and width > scope.anatomy.context:
        raise ValueError(
            f"the prompt and its {n} new tokens take {width} positions, and the model's context is {scope.anatomy.context}: "
            "ask for fewer tokens, or shorten the prompt"
        )
    ids, mask = _padded_left(samples.input_ids, samples.attention_mask)
    device = next(model.parameters()).device
    given = {"do_sample": False, "pad_token_id": _padding(scope)} | options
    return lambda: model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **given)


def _padded_left(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def _padding(scope: Scope) -> int:
    config: Any = scope.model.config
    known = (getattr(scope.tokenizer, "pad_token_id", None), config.pad_token_id, config.eos_token_id)
    first = next((i for i in known if i is not None), 0)
    return first[0] if isinstance(first, list) else first
