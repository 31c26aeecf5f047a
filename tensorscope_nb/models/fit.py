"""Puts the weights of a file into a model, all of them or none: what does not fit is named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

DERIVED = re.compile(r"rotary_emb\.inv_freq$|attn\.masked_bias$")  # that older versions of the transformers library saved


def put(weights: Mapping[str, Tensor], model: nn.Module, file: Path) -> None:
    """Gives ``model`` the weights of ``file``, in the model's own precision.

    A tied weight may be in the file under one of its names. A causal mask, or another buffer that is no learned number, may
    be missing, or be there where the model keeps none. Prefixes of ``torch.compile`` and DataParallel do not matter.
    """
    own = {name: value for name, value in model.state_dict(keep_vars=True).items() if hasattr(value, "is_floating_point")}
    weights = _renamed(weights, own)
    buffers = dict(model.named_buffers(remove_duplicate=False))
    names_of: dict[int, list[str]] = {}
    for name, value in own.items():
        names_of.setdefault(id(value), []).append(name)
    state: dict[str, Tensor] = {}
    missing, misshapen = [], []
    for names in names_of.values():
        given = [name for name in names if name in weights]
        if not given and not (names[0] in buffers and _is_constant(own[names[0]])):
            missing.append(names[0])
            continue
        _check_tied(weights, given, file)
        for name in names:
            state[name] = weights[given[0]] if given else own[name]
        if given and (said := _misfit(given[0], weights[given[0]], own[given[0]])):
            misshapen.append(said)
    kept = set(own) | set(buffers)
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    unexpected = [
        name for name, value in weights.items()
        if name not in kept and not DERIVED.search(name) and not any(re.search(p, name) for p in ignored) and not _is_mask(value)
    ]  # fmt: skip
    faults = [
        f"it lacks {_some(missing)}" if missing else "",
        f"it has {_some(unexpected)}, which the model has not" if unexpected else "",
        _some(misshapen),
    ]
    if any(faults):
        raise ValueError(f"{file} is of another model than the {type(model).__name__} given: {'; '.join(filter(None, faults))}")
    try:
        model.load_state_dict(model.state_dict() | state)
    except RuntimeError as error:  # of a model that reads its weights in its own way
        raise ValueError(f"{file} does not go into the {type(model).__name__}: {' '.join(str(error).split())}") from error


def _renamed(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the model's names, whatever either was wrapped in when it was saved."""
    plain = lambda name: name.replace("_orig_mod.", "").removeprefix("module.")
    known = {plain(name): name for name in own}
    renamed = {known.get(plain(name), plain(name)): value for name, value in weights.items()}
    return renamed if len(known) == len(own) and len(renamed) == len(weights) else dict(weights)


def _check_tied(weights: Mapping[str, Tensor], names: list[str], file: Path) -> None:
    import torch

    first = weights[names[0]] if names else None
    for name in names[1:]:
        if first is not None and not torch.equal(first, weights[name].to(first.dtype)):
            raise ValueError(f"{file} has other numbers in {names[0]} than in {name}, which are one weight in the model given")


def _misfit(name: str, given: Tensor, own: Tensor) -> str:
    if given.shape != own.shape:
        turned = given.shape == own.shape[::-1] and given.ndim == 2
        hint = " (turned: nn.Linear keeps it the other way than Conv1D)" if turned else ""
        return f"{name} is {tuple(given.shape)} there and {tuple(own.shape)} in the model{hint}"
    kind = str(given.dtype).removeprefix("torch.")
    if own.is_floating_point() and not given.is_floating_point():
        return f"{name} is {kind} there, as quantised weights are"
    if given.layout != own.layout:
        return f"{name} is {str(given.layout).removeprefix('torch.')} there"
    put = given.to(own.dtype)
    lost = put.isinf() & ~given.isinf() if own.is_floating_point() else put.to(given.dtype) != given
    if bool(lost.any()):
        return f"{name} is {kind} there, with numbers that {str(own.dtype).removeprefix('torch.')} cannot hold"
    return ""


def _is_constant(buffer: Tensor) -> bool:
    """Whether the buffer of a model is the same in any training: whole numbers (positions, counts) and masks."""
    return not buffer.is_floating_point() or _is_mask(buffer)


def _is_mask(value: Tensor) -> bool:
    """Whether it is a causal mask: ones on and below the diagonal, nothing above."""
    import torch

    if value.ndim < 2 or value.shape[-1] != value.shape[-2] or value.shape[-1] < 2 or value.layout != torch.strided:
        return False
    if bool(value[..., 0, 1:].any()) or not bool(value[..., -1, 0].all()):
        return False  # before anything of its size is made: a file can claim any size
    return bool((value == torch.ones_like(value).tril()).all())


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
