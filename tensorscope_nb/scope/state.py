"""What every function here promises: the model, and the user's random state, are bit-exact afterwards, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from tensorscope_nb.scope.interrupts import Interrupts, held_interrupts

if TYPE_CHECKING:
    from torch import nn

_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_guard = RLock()
_running: WeakSet[nn.Module] = WeakSet()


def lock_of(model: nn.Module) -> RLock:
    """One lock per model, held by everything that runs it, so that a hook never sees another thread's forward."""
    with _guard:
        return _locks.setdefault(model, RLock())


@contextmanager
def preserved(model: nn.Module, *, random_state: bool = True, interrupts: Interrupts | None = None) -> Iterator[None]:
    """Holds the model's lock, puts it into evaluation mode, and restores modes, gradients and random state at the end.

    Where the user's own code runs inside (an edit, a trace), pass ``random_state=False``: the numbers it draws are its
    own, and must be others the next time. An interrupt waits until the model runs, or the end; with ``interrupts`` the
    caller sees to that.
    """
    import torch

    with (
        nullcontext(interrupts) if interrupts else held_interrupts() as held,
        turn(model, held),
        _alone(model),
        _buffers(model),
        _random_state() if random_state else nullcontext(),
    ):
        differentiated = torch.is_grad_enabled()
        training = {module: module.training for module in model.modules()}
        parameters = list(model.parameters())
        gradients = [p.grad for p in parameters]
        wanted = [p.requires_grad for p in parameters]
        try:
            for p in parameters:
                p.grad = None
            for module in training:  # and not model.eval(): a layer may do more there than set its mode
                module.training = False
            yield
        finally:
            torch.set_grad_enabled(differentiated)
            for module, mode in training.items():
                module.training = mode
            for p, gradient, want in zip(parameters, gradients, wanted, strict=True):
                p.requires_grad_(want)
                p.grad = gradient


@contextmanager
def turn(model: nn.Module, interrupts: Interrupts) -> Iterator[None]:
    """Holds the model's lock."""
    lock = lock_of(model)
    while not lock.acquire(timeout=0.1):  # another thread's turn: an interrupt may end the waiting
        interrupts.deliver()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """Inside a trace or an edit the same thread holds the lock already, and the model is in the middle of a run."""
    if model in _running:
        raise ValueError(
            "the model is in the middle of a run: no record, losses, recipe or trace of it inside a trace or an edit"
        )
    _running.add(model)
    try:
        yield
    finally:
        _running.discard(model)


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    """What a forward writes into a model's buffers (a counter, a running mean of its own) is taken back."""
    held = [
        (module, name, buffer, buffer._version, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        for module, name, buffer, version, value in held:
            module._buffers[name] = buffer
            if buffer._version != version:
                buffer.detach().copy_(value)


@contextmanager
def _random_state() -> Iterator[None]:
    import torch

    state = torch.get_rng_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    device_states = [torch.cuda.get_rng_state(i) for i in devices]
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for i, device_state in zip(devices, device_states, strict=True):
            torch.cuda.set_rng_state(device_state, i)
