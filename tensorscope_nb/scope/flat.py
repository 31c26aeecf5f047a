"""All parameters as one long vector: a position in it is a coordinate of the dimension ``parameter``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """One after the other, each in the order of its memory."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def shaped(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The pieces of a vector, shaped as ``like``."""
    pieces = vector.split([tensor.nelement() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def starts_of(sizes: Iterable[int]) -> np.ndarray:
    """Where each of some parameters begins, when they stand one after the other."""
    return np.cumsum([0, *sizes])[:-1]


def placed(starts: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each place there the number of its parameter, and the index in it."""
    owners = np.searchsorted(starts, places, side="right") - 1
    return owners, places - starts[owners]


def positions(model: nn.Module, chosen: Iterable[str]) -> np.ndarray:
    """Where the weights of the ``chosen`` parameters stand among those of all (tied ones count once)."""
    chosen, start, found = set(chosen), 0, []
    for name, parameter in model.named_parameters():
        if name in chosen:
            found.append(np.arange(start, start + parameter.nelement()))
        start += parameter.nelement()
    return np.concatenate(found)


def unflatten(vector: Any, scope: Scope) -> Mapping[str, Tensor]:
    """What stands on the dimension ``parameter`` as tensors, {parameter name: tensor of its shape}.

    ``vector`` is one row of a result, such as ``ds["eigenvector"].sel(component=0)``, or any array of as many numbers as the
    model has weights. Parameters that it does not cover are left out; one that it covers in part is an error.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> ts.unflatten(range(211200), scope)["transformer.wte.weight"].shape
    torch.Size([512, 96])
    """
    if hasattr(vector, "data_vars"):
        raise TypeError('vector is a whole Dataset: pass one row of it, such as ds["eigenvector"].sel(component=0)')
    values = np.asarray(vector.detach().cpu() if isinstance(vector, Tensor) else vector)
    total = sum(p.nelement() for p in scope.model.parameters())
    coordinates = getattr(vector, "coords", {})
    at = np.asarray(coordinates["parameter"]) if "parameter" in coordinates else np.arange(len(values))
    if values.ndim != 1 or len(values) != len(at):
        raise ValueError(f"vector has the shape {values.shape}: give one value per weight, such as one component")
    if "parameter" not in coordinates and len(values) != total:
        raise ValueError(f"vector has {len(values)} values and {scope.name} {total} weights: do they belong together?")
    if len(at) and at.max() >= total:
        raise ValueError(f"vector names weight {at.max()} and {scope.name} has {total}: it is of another model")
    place = np.full(total, -1)
    place[at] = np.arange(len(at))
    found, start = {}, 0
    for name, parameter in scope.model.named_parameters():
        rows = place[start : start + parameter.nelement()]
        start += parameter.nelement()
        if (rows < 0).all():
            continue
        if (rows < 0).any():
            raise ValueError(f"vector covers {(rows >= 0).sum()} of the {len(rows)} weights of {name}: give whole parameters")
        found[name] = torch.as_tensor(values[rows]).reshape(parameter.shape)
    return found
