"""Samples: the data, each row with an id that stays with it, a task name, and optionally its text and labels."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tensorscope_nb.samples.fingerprint import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # a label that is not predicted


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """What the model is given, row by row, with everything that must stay with a row.

    Make them with ``scope.samples(texts)``, :meth:`tokens` (token ids) or :meth:`tensors` (anything else). Slicing and
    ``a + b`` keep ids and tasks, so that a sample found anywhere can be read again everywhere.

    >>> import torch, tensorscope_nb as ts
    >>> prose = ts.Samples.tokens(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]), task="prose")
    >>> prose.ids, prose[1:].ids, prose.lengths.tolist()
    (('prose-0', 'prose-1'), ('prose-1',), [3, 2])
    """

    inputs: dict[str, Tensor]  # what the model is called with, first axis sample; "x" is given by position
    labels: Tensor | None  # (n, T) with IGNORED where a token is not predicted, or one target per sample; None: the default
    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str | None, ...]
    pieces: tuple[tuple[str, ...] | None, ...]  # the tokens of each row as strings
    vocabulary: str = ""  # which tokenizer made the ids, where that is known
    picture: tuple[int, int] | None = None  # rows and columns of the image that each x is, where it is one

    @classmethod
    def tokens(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        task: str | None = None,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        pieces: Sequence[tuple[str, ...]] | None = None,
        more: dict[str, Tensor] | None = None,
        vocabulary: str = "",
    ) -> Samples:
        """Samples from token ids (n, T); without ``labels`` a causal model predicts every token from those before it.

        ``labels`` are (n, T), or (n,) for a classifier. ``more`` are further inputs of the model, such as
        ``token_type_ids``.
        """
        import torch

        input_ids = torch.as_tensor(input_ids)
        if input_ids.ndim != 2 or input_ids.is_floating_point() or 0 in input_ids.shape:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}: "
                "give integer token ids (n, T) with n, T >= 1"
            )
        input_ids = input_ids.long().clone()  # the samples must not change with the caller's tensor
        n = len(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else torch.as_tensor(attention_mask).long().clone()
        labels = None if labels is None else torch.as_tensor(labels).clone()
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, input_ids {tuple(input_ids.shape)}: they must be the same"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"attention_mask holds {mask.unique().tolist()[:5]}: give 1 for a token and 0 for padding")
        if labels is not None and labels.shape not in (input_ids.shape, (n,)):
            raise ValueError(
                f"labels has shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}: give one label per token or per row"
            )
        empty = [i for i, row in enumerate(mask.bool().any(1).tolist()) if not row]
        if empty:
            raise ValueError(f"rows {empty[:5]} of attention_mask have no token at all: leave those samples out")
        if labels is not None and labels.ndim == 2:
            labels = labels.masked_fill(mask == 0, IGNORED)
        inputs = {"input_ids": input_ids, "attention_mask": mask, **(more or {})}
        return replace(cls._of(inputs, labels, task, ids, texts, pieces), vocabulary=vocabulary)

    @classmethod
    def tensors(
        cls,
        x: Tensor | dict[str, Tensor],
        y: Tensor | None = None,
        task: str | None = None,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        picture: tuple[int, int] | None = None,
    ) -> Samples:
        """Samples from any tensor ``x`` (n, …) that the model takes, or a dict of named ones, and targets ``y`` (n, …).

        ``texts`` say in words what each row is, for people to read; ``picture=(rows, columns)`` that each is a grey image from
        0 (black) to 1, which is then shown.

        >>> import torch, tensorscope_nb as ts
        >>> ts.Samples.tensors(torch.zeros(5, 64), torch.arange(5), task="digits")
        Samples(5 digits; x 64)
        """
        import torch

        inputs = {k: torch.as_tensor(v) for k, v in x.items()} if isinstance(x, dict) else {"x": torch.as_tensor(x)}
        sizes = {name: len(value) if value.ndim else 0 for name, value in inputs.items()}
        if not inputs or 0 in sizes.values() or len(set(sizes.values())) > 1:
            raise ValueError(f"x has {sizes or 'nothing'} rows: give tensors with the same number of rows, at least 1")
        labels = None if y is None else torch.as_tensor(y)
        if labels is not None and (not labels.ndim or len(labels) != len(next(iter(inputs.values())))):
            raise ValueError(
                f"y has shape {tuple(labels.shape)} for {next(iter(sizes.values()))} rows of x: give one target per row"
            )
        if picture is not None and ("x" not in inputs or inputs["x"][0].nelement() != math.prod(picture)):
            there = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in inputs.items())
            raise ValueError(f"picture is {picture}: give rows and columns that make up each x; {there} came")
        return replace(cls._of(inputs, labels, task, ids, texts, None), picture=picture)

    @classmethod
    def _of(
        cls,
        inputs: dict[str, Tensor],
        labels: Tensor | None,
        task: str | None,
        ids: Sequence[str] | None,
        texts: Sequence[str] | None,
        pieces: Sequence[tuple[str, ...]] | None,
    ) -> Samples:
        n = len(next(iter(inputs.values())))
        name = task or "samples"
        row_ids = tuple(ids) if ids is not None else tuple(f"{name}-{i}" for i in range(n))
        for label, given in (("ids", row_ids), ("texts", texts), ("pieces", pieces)):
            if given is not None and len(given) != n:
                raise ValueError(f"{label} has {len(given)} entries for {n} rows")
        _check_unique(row_ids)
        nothing = (None,) * n
        return cls(inputs, labels, row_ids, (name,) * n, tuple(texts or nothing), tuple(pieces or nothing))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """A hash of the data: equal for equal inputs, labels and vocabulary, whatever the ids, the tasks and the padding.

        >>> import torch, tensorscope_nb as ts
        >>> prose, again = (ts.Samples.tokens(torch.tensor([[5, 6]]), task=task) for task in ("prose", "code"))
        >>> prose.fingerprint == again.fingerprint
        True
        """
        return fingerprint(self)

    @property
    def has_tokens(self) -> bool:
        return "input_ids" in self.inputs

    @property
    def input_ids(self) -> Tensor:
        """Token ids (n, T)."""
        if not self.has_tokens:
            raise TypeError(f"these samples are tensors ({', '.join(self.inputs)}) and have no tokens: give texts or token ids")
        return self.inputs["input_ids"]

    @property
    def attention_mask(self) -> Tensor:
        """(n, T), 1 where there is a token."""
        return self.inputs["attention_mask"] if self.has_tokens else self.input_ids

    def seen(self, n_positions: int) -> Tensor:
        """(n, positions), true where there is something: every position, where the samples are no tokens."""
        import torch

        return self.attention_mask.bool() if self.has_tokens else torch.ones(len(self), n_positions, dtype=torch.bool)

    @property
    def token_labels(self) -> Tensor:
        """(n, T), the token to predict at each position, IGNORED where none is: the tokens themselves by default."""
        if self.labels is not None and self.labels.ndim == 2:
            return self.labels
        return self.input_ids.masked_fill(self.attention_mask == 0, IGNORED)

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each row (n,)."""
        return self.attention_mask.sum(1)

    def text(self, i: int) -> str:
        """The text of row ``i``; the token ids in words where the text is not known."""
        text = self.texts[i]
        if text is None and self.has_tokens:
            return " ".join(map(str, self.input_ids[i][self.attention_mask[i].bool()].tolist()))
        return text if text is not None else self.ids[i]

    @property
    def pictures(self) -> Tensor | None:
        """The images (n, rows, columns), where the samples are images."""
        return None if self.picture is None else self.inputs["x"].reshape(len(self), *self.picture)

    def token_strings(self, i: int) -> list[str]:
        """What stands at each position of row ``i``: token strings where known, else ids; ``""`` where there is padding."""
        pieces = self.pieces[i] or tuple(map(str, self.input_ids[i].tolist()))
        return [piece if seen else "" for piece, seen in zip(pieces, self.attention_mask[i].tolist(), strict=True)]

    def __getitem__(self, rows: Any) -> Samples:
        index = _row_numbers(self._numbered(rows), len(self))
        return self._picked(index, tuple(self.ids[i] for i in index))

    def _numbered(self, rows: Any) -> Any:
        """Ids as numbers."""
        names = [rows] if isinstance(rows, str) else rows
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            return rows
        if unknown := [name for name in names if name not in self.ids]:
            raise LookupError(f"there is no sample {unknown[0]!r}: ids are such as {self.ids[0]!r}")
        return [self.ids.index(name) for name in names]

    def _picked(self, index: list[int], ids: tuple[str, ...]) -> Samples:
        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in index)

        inputs = {name: value[index] for name, value in self.inputs.items()}
        labels = None if self.labels is None else self.labels[index]
        picked = (pick(self.tasks), pick(self.texts), pick(self.pieces))
        return Samples(inputs, labels, ids, *picked, self.vocabulary, self.picture)

    def __add__(self, other: Samples) -> Samples:
        import torch

        if not isinstance(other, Samples):
            raise TypeError(f"Samples join with Samples, and a {type(other).__name__} came: make it with scope.samples(…)")
        if self.inputs.keys() != other.inputs.keys():
            raise ValueError(
                f"samples of {', '.join(self.inputs)} and of {', '.join(other.inputs)} do not join: they go into different models"
            )
        a, b = self, other
        if self.has_tokens:
            length = max(self.input_ids.shape[1], other.input_ids.shape[1])
            a, b = self._padded(length), other._padded(length)
        _check_unique(self.ids + other.ids)
        labels = None
        if a.labels is not None or b.labels is not None:
            by_token = self.has_tokens and all(s.labels is None or s.labels.ndim == 2 for s in (a, b))
            if not by_token and (a.labels is None or b.labels is None):
                raise ValueError("one of the two has targets and the other has none: give both, or neither")
            labels = torch.cat([s.token_labels if by_token or s.labels is None else s.labels for s in (a, b)])
        inputs = {name: torch.cat([value, b.inputs[name]]) for name, value in a.inputs.items()}
        if a.vocabulary and b.vocabulary and a.vocabulary != b.vocabulary:
            raise ValueError("the two were made with different tokenizers: their ids do not mean the same tokens")
        joined = (a.ids + b.ids, a.tasks + b.tasks, a.texts + b.texts, a.pieces + b.pieces)
        return Samples(inputs, labels, *joined, a.vocabulary or b.vocabulary, a.picture if a.picture == b.picture else None)

    def replaced(self, **inputs: Tensor) -> Samples:
        """The same samples with other inputs."""
        return replace(self, inputs=self.inputs | inputs)

    def repeated(self, rows: Sequence[int], ids: Sequence[str]) -> Samples:
        """Rows, as often as they are named, under ids of their own."""
        _check_unique(ids)
        return self._picked(list(rows), tuple(ids))

    def renamed(self, ids: Sequence[str]) -> Samples:
        """The same samples under other ids."""
        _check_unique(ids)
        return replace(self, ids=tuple(ids))

    def _padded(self, length: int) -> Samples:
        from torch.nn.functional import pad

        extra = length - self.input_ids.shape[1]
        pieces = tuple(p if p is None else (*p, *[""] * extra) for p in self.pieces)
        labels = self.labels
        if labels is not None and labels.ndim == 2:
            labels = pad(labels, (0, extra), value=IGNORED)
        return replace(
            self, inputs={name: pad(value, (0, extra)) for name, value in self.inputs.items()}, labels=labels, pieces=pieces
        )

    def __repr__(self) -> str:
        counts = {task: self.tasks.count(task) for task in dict.fromkeys(self.tasks)}
        rows = ", ".join(f"{n} {task}" for task, n in counts.items())
        if not self.has_tokens:
            shapes = ", ".join(f"{name} {'×'.join(map(str, value.shape[1:]))}" for name, value in self.inputs.items())
            return f"Samples({rows}; {shapes})"
        low, high = int(self.lengths.min()), int(self.lengths.max())
        return f"Samples({rows}; {low if low == high else f'{low}–{high}'} tokens each)"


def _row_numbers(rows: Any, n: int) -> list[int]:
    """Row numbers from an int, a slice, a sequence of ints, or n booleans; each row at most once."""
    if isinstance(rows, slice):
        index = list(range(n)[rows])
    elif hasattr(rows, "__index__") and not getattr(rows, "ndim", 0):
        index = [range(n)[operator.index(rows)]]
    else:
        values = rows.tolist() if hasattr(rows, "tolist") else list(rows)
        if values and all(isinstance(value, bool) for value in values):
            if len(values) != n:
                raise ValueError(f"{len(values)} booleans choose among {n} samples: give one for each")
            index = [i for i, chosen in enumerate(values) if chosen]
        else:
            index = [range(n)[operator.index(value)] for value in values]
    if not index:
        raise ValueError(f"{rows} selects none of {n} samples")
    return index


def _check_unique(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(
            f"the sample id {twice!r} occurs twice: give the two sets different task names, as in "
            'scope.samples(texts, task="prose"), and leave out of one what is in both'
        )
