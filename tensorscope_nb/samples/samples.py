"""Samples: the data, each row with an id that stays with it, a task name, and optionally its text and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # a label that is not predicted


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Token sequences, padded to one length, with everything that must stay with a row.

    Make them with ``scope.samples(texts)`` or :meth:`tokens`. Slicing and ``a + b`` keep ids and tasks, so that a
    sample found anywhere can be read again everywhere.

    >>> import torch, tensorscope_nb as ts
    >>> prose = ts.Samples.tokens(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]), task="prose")
    >>> prose.ids, prose[1:].ids, prose.lengths.tolist()
    (('prose-0', 'prose-1'), ('prose-1',), [3, 2])
    """

    input_ids: Tensor  # (n, T)
    attention_mask: Tensor  # (n, T), 1 where there is a token
    labels: Tensor  # (n, T), IGNORED where a token is not to be predicted
    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str | None, ...]
    pieces: tuple[tuple[str, ...] | None, ...]  # the tokens of each row as strings

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
    ) -> Samples:
        """Samples from token ids (n, T); without ``labels`` every token is predicted from those before it."""
        import torch

        input_ids = torch.as_tensor(input_ids)
        if input_ids.ndim != 2 or input_ids.is_floating_point() or 0 in input_ids.shape:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}: "
                "give integer token ids (n, T) with n, T >= 1"
            )
        n = len(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else torch.as_tensor(attention_mask).to(input_ids.dtype)
        labels = input_ids.clone() if labels is None else torch.as_tensor(labels)
        for name, given in (("attention_mask", mask), ("labels", labels)):
            if given.shape != input_ids.shape:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}, input_ids {tuple(input_ids.shape)}: they must be the same"
                )
        empty = [i for i, row in enumerate(mask.bool().any(1).tolist()) if not row]
        if empty:
            raise ValueError(f"rows {empty[:5]} of attention_mask have no token at all: leave those samples out")
        name = task or "samples"
        row_ids = tuple(ids) if ids is not None else tuple(f"{name}-{i}" for i in range(n))
        for label, given_rows in (("ids", row_ids), ("texts", texts), ("pieces", pieces)):
            if given_rows is not None and len(given_rows) != n:
                raise ValueError(f"{label} has {len(given_rows)} entries for {n} rows of input_ids")
        _check_unique(row_ids)
        nothing = (None,) * n
        return cls(
            input_ids,
            mask,
            labels.masked_fill(mask == 0, IGNORED),
            row_ids,
            (name,) * n,
            tuple(texts or nothing),
            tuple(pieces or nothing),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """The number of tokens of each row (n,)."""
        return self.attention_mask.sum(1)

    def text(self, i: int) -> str:
        """The text of row ``i``; the token ids in words where the text is not known."""
        text = self.texts[i]
        return text if text is not None else " ".join(map(str, self.input_ids[i][self.attention_mask[i].bool()].tolist()))

    def token_strings(self, i: int) -> list[str]:
        """What stands at each position of row ``i``: token strings where known, else ids; ``""`` where there is padding."""
        pieces = self.pieces[i] or tuple(map(str, self.input_ids[i].tolist()))
        return [piece if seen else "" for piece, seen in zip(pieces, self.attention_mask[i].tolist(), strict=True)]

    def __getitem__(self, rows: slice | Sequence[int] | int) -> Samples:
        indices = (
            [range(len(self))[rows]]
            if isinstance(rows, int)
            else range(len(self))[rows]
            if isinstance(rows, slice)
            else list(rows)
        )
        if not len(indices):
            raise ValueError(f"{rows} selects none of {len(self)} samples")
        index = list(indices)

        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in index)

        return Samples(
            self.input_ids[index], self.attention_mask[index], self.labels[index],
            pick(self.ids), pick(self.tasks), pick(self.texts), pick(self.pieces),
        )  # fmt: skip

    def __add__(self, other: Samples) -> Samples:
        import torch

        length = max(self.input_ids.shape[1], other.input_ids.shape[1])
        a, b = self._padded(length), other._padded(length)
        _check_unique(self.ids + other.ids)
        return Samples(
            torch.cat([a.input_ids, b.input_ids]), torch.cat([a.attention_mask, b.attention_mask]),
            torch.cat([a.labels, b.labels]),
            a.ids + b.ids, a.tasks + b.tasks, a.texts + b.texts, a.pieces + b.pieces,
        )  # fmt: skip

    def _padded(self, length: int) -> Samples:
        from torch.nn.functional import pad

        extra = length - self.input_ids.shape[1]
        pieces = tuple(p if p is None else (*p, *[""] * extra) for p in self.pieces)
        return Samples(
            pad(self.input_ids, (0, extra)), pad(self.attention_mask, (0, extra)), pad(self.labels, (0, extra), value=IGNORED),
            self.ids, self.tasks, self.texts, pieces,
        )  # fmt: skip

    def __repr__(self) -> str:
        counts = {task: self.tasks.count(task) for task in dict.fromkeys(self.tasks)}
        low, high = int(self.lengths.min()), int(self.lengths.max())
        length = f"{low}" if low == high else f"{low}–{high}"
        return f"Samples({', '.join(f'{n} {task}' for task, n in counts.items())}; {length} tokens each)"


def _check_unique(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"the sample id {twice!r} occurs twice: give the two sets different task names, or pass ids=")
