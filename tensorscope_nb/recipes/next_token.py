"""Which token each position is asked about."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from tensorscope_nb.samples import IGNORED, Samples

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.scope import Scope


def next_tokens(scope: Scope, samples: Samples) -> Tensor:
    """(n, T): the label of the token after each position, IGNORED where none is predicted."""
    labels = samples.token_labels.masked_fill(~scope.rule.predicted(samples), IGNORED)
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def token_ids(given: Any, name: str, samples: Samples, n_vocab: int) -> Tensor:
    """(n, T) from one id, one per sample (n,) or one per position (n, T), IGNORED at padding; ``name`` is the option's."""
    n, length = samples.input_ids.shape
    wanted = f"give a token id, one per sample ({n},) or one per position ({n}, {length})"
    if isinstance(given, str | bool | float):
        raise TypeError(f"{name} is {given!r}: {wanted}")
    if hasattr(given, "__index__") and not getattr(given, "ndim", 0):
        given = [operator.index(given)] * n
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):  # words, rows of different lengths, or nothing that holds numbers
        raise TypeError(f"{name} is {given!r:.80}: {wanted}") from None
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.shape not in ((n,), (n, length)):
        raise ValueError(
            f"{name} has shape {tuple(ids.shape)} and dtype {ids.dtype}: {wanted}, {IGNORED} where none is asked for"
        )
    ids = ids.long() if ids.ndim == 2 else ids.long()[:, None].expand(n, length)
    ids = ids.masked_fill(samples.attention_mask == 0, IGNORED)
    asked = ids[ids != IGNORED]
    if len(asked) and (int(asked.min()) < 0 or int(asked.max()) >= n_vocab):
        outside = int(asked.min()) if int(asked.min()) < 0 else int(asked.max())
        raise ValueError(f"{name} holds the token id {outside}: the model's vocabulary has {n_vocab}, ids 0 to {n_vocab - 1}")
    return ids
