"""Weights that are held at zero while something trains the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook


@contextmanager
def enforced(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the weights outside of ``masks`` are zero, whoever trains: set so now, and after every step of an optimizer.

    Their gradients are zero from the moment at which backward adds them, so that they count neither in a norm that
    gradients are clipped by nor in what an optimizer remembers. A step is seen by the hook that torch calls for all
    optimizers, also for those that hold none of these weights: they are zero already.
    """
    held = [parameters[name] for name in masks]
    factors = [mask.to(p) for p, mask in zip(held, masks.values(), strict=True)]

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        torch._foreach_mul_([p.data for p in held], factors)

    with ExitStack() as stack:
        for p, factor in zip(held, factors, strict=True):
            p.data.mul_(factor)
            stack.callback(p.register_post_accumulate_grad_hook(_times(factor)).remove)
        stack.callback(register_optimizer_step_post_hook(after).remove)
        yield


def _times(factor: Tensor) -> Callable[[Tensor], None]:
    def hook(p: Tensor) -> None:
        assert p.grad is not None
        p.grad.mul_(factor)

    return hook


def check_enforced(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Raises where a weight outside of ``masks`` is not zero."""
    for name, mask in masks.items():
        moved = int((parameters[name].detach()[~mask] != 0).sum())
        if moved:
            raise ValueError(
                f"train_fn moved {moved} pruned weights of {name}: hooks on backward() and on the steps of torch optimizers hold "
                "them at zero; where it changes weights by itself, it must leave alone those that are zero when it starts"
            )
