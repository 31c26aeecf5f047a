"""Samples from whatever holds data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.samples import Samples, tokenize
from tensorscope_nb.samples.tokenize import vocabulary_of

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope

FORMS = "give texts, a data frame, a Dataset, token ids, a batch, (x, y), or a DataLoader"


def as_samples(data: Any, scope: Scope, task: str | None = None, max_length: int | None = None) -> Samples:
    """See :meth:`tensorscope_nb.Scope.samples`."""
    if isinstance(data, Samples):
        if task is not None or max_length is not None:
            raise ValueError("these are Samples already: task= and max_length= are for texts and tables")
        own = vocabulary_of(scope.tokenizer)
        if data.vocabulary and own and data.vocabulary != own:
            raise ValueError("these samples were made with another tokenizer: make them again with this scope")
        return data
    if type(data).__module__.startswith("xarray."):
        raise TypeError(f"this is a result ({type(data).__name__}), and samples are asked for: {FORMS}")
    if isinstance(data, torch.utils.data.DataLoader):
        return _joined([_one(batch, scope, task, max_length) for batch in data], task)
    return _one(data, scope, task, max_length)


def _one(data: Any, scope: Scope, task: str | None, max_length: int | None) -> Samples:
    if isinstance(data, np.ndarray) and data.dtype.kind in "iuf":
        data = torch.as_tensor(data)
    elif isinstance(data, np.ndarray) or type(data).__name__ == "Series":
        data = data.tolist()
    if max_length is not None and isinstance(data, torch.Tensor | Mapping):
        raise ValueError("max_length= cuts texts: slice token ids yourself")
    if isinstance(data, torch.Tensor):
        return Samples.tensors(data, task=task) if not scope.anatomy.n_vocab else Samples.tokens(data, task=task)
    if isinstance(data, Mapping):
        return _batch(dict(data), task)
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, torch.Tensor) for part in data):
        x, y = data
        tokens = scope.anatomy.n_vocab and not x.is_floating_point() and x.ndim == 2
        return Samples.tokens(x, labels=y, task=task) if tokens else Samples.tensors(x, y, task=task)
    columns = getattr(data, "columns", None)
    if columns is None:
        columns = getattr(data, "column_names", None)
    if columns is not None:
        return _table(data, list(columns), scope, task, max_length)
    if isinstance(data, list | tuple) and data and all(isinstance(row, list | tuple) for row in data):
        return _rows_of_ids(data, task)
    if isinstance(data, str | Sequence):
        return tokenize(data, scope, task=task, max_length=max_length)
    raise TypeError(f"samples cannot be made from a {type(data).__name__}: {FORMS}")


def _batch(data: dict[str, Any], task: str | None) -> Samples:
    """A batch of the transformers library: named inputs, and ``labels``."""
    labels = data.pop("labels", None)
    if "input_ids" in data:
        more = {name: torch.as_tensor(value) for name, value in data.items() if name not in ("input_ids", "attention_mask")}
        return Samples.tokens(data["input_ids"], data.get("attention_mask"), labels, task=task, more=more)
    return Samples.tensors(data, labels, task=task)


def _table(data: Any, columns: list[str], scope: Scope, task: str | None, max_length: int | None) -> Samples:
    if "text" not in columns:
        raise LookupError(f"the table has no column 'text': it has {', '.join(map(str, columns))}")
    samples = tokenize(list(data["text"]), scope, task=task, max_length=max_length)
    if "label" not in columns:
        return samples
    labels = torch.as_tensor(list(data["label"]))
    return Samples.tokens(
        samples.input_ids, samples.attention_mask, labels, task=task, texts=[t or "" for t in samples.texts],
        pieces=[p or () for p in samples.pieces], vocabulary=samples.vocabulary,
    )  # fmt: skip


def _rows_of_ids(rows: Sequence[Sequence[int]], task: str | None) -> Samples:
    """Token ids as lists of unequal length, padded on the right."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return Samples.tokens(ids, mask, task=task)


def _joined(batches: list[Samples], task: str | None) -> Samples:
    """The batches of a loader one after the other, numbered through."""
    if not batches:
        raise ValueError("the DataLoader gives no batches: give at least one")
    renamed, start = [], 0
    for batch in batches:
        renamed.append(batch.renamed([f"{task or 'samples'}-{start + i}" for i in range(len(batch))]))
        start += len(batch)
    return reduce(add, renamed)
