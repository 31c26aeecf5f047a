"""What says that two models have the same weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tensorscope_nb.samples.fingerprint import bytes_of

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope.scope import Scope


def fingerprint(of: Scope | nn.Module) -> str:
    """A hash of the model's parameters and buffers: equal for equal weights, whatever the file they came from."""
    import torch

    model = of if isinstance(of, torch.nn.Module) else of.model
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
