"""What says that two results were found on the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.samples.samples import Samples


def fingerprint(samples: Samples) -> str:
    """A hash of inputs, labels and vocabulary, row by row: equal for equal data, whatever its ids, tasks and texts are.

    Of tokens just those between the first and the last of each row count, and what stands under the mask does not: neither
    the side of the padding, nor its width, nor the padding's id changes it.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{samples.vocabulary};{len(samples)}".encode())
    given = samples.inputs | ({} if samples.labels is None else {"labels of the samples": samples.labels})
    for name, tensor in sorted(given.items()):
        digest.update(f";{name};{tensor.dtype}".encode())
        for row in _rows(samples, tensor):
            digest.update(f";{tuple(row.shape)};".encode())
            digest.update(bytes_of(row))
    return digest.hexdigest()


def _rows(samples: Samples, tensor: Tensor) -> Iterator[Tensor]:
    """Row by row, cut to its tokens and zero between them where the mask is, where there is a value for each token."""
    mask = samples.attention_mask.bool() if samples.has_tokens else None
    for i, row in enumerate(tensor):
        if mask is not None and tensor.shape[:2] == mask.shape:
            places = mask[i].nonzero()[:, 0]
            kept = slice(int(places[0]), int(places[-1]) + 1)
            hidden = ~mask[i, kept].to(row.device).reshape(-1, *[1] * (row.ndim - 1))
            row = row[kept].masked_fill(hidden, 0)
        yield row


def bytes_of(tensor: Tensor) -> bytes:
    """What it stores, element by element."""
    import torch

    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
