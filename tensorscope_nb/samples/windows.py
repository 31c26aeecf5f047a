"""Texts as a causal model is to read them: a start token before each, and long ones cut into overlapping windows.

The windows are those that the transformers library describes for perplexity: each as long as the context, moved on by
``stride`` tokens; the first predicts all its tokens, a later one those that are new. With ``stride`` = context nothing
overlaps, and the first token of a window has nothing before it there: it is predicted from the window before, as what
follows its last token. So every token is predicted once, whatever the stride.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope_nb.samples.samples import IGNORED, Samples

if TYPE_CHECKING:
    from torch import Tensor

Row = tuple[list[int], list[int]]  # the tokens of a text without padding, and the label of each, IGNORED where it has none


@dataclass(frozen=True)
class Windows:
    """Rows that fit into the context, in which each label is predicted just once; those of a text stand together."""

    samples: Samples
    source: Tensor  # of each row the number of its text
    following: Tensor  # of each row the label of what comes after its last token, IGNORED where another row predicts it

    @classmethod
    def whole(cls, samples: Samples) -> Windows:
        """One row for each text, as it is."""
        import torch

        return cls(samples, torch.arange(len(samples)), torch.full((len(samples),), IGNORED))


def with_start(samples: Samples, predicted: Tensor, start: int) -> Samples:
    """The token ``start`` before every text that does not begin with it: the first token is then predicted too.

    ``predicted`` (n, T) are the labels that count without it.
    """
    rows = []
    for i, (tokens, labels) in enumerate(_rows(samples, predicted)):
        first = samples.token_labels[i][samples.attention_mask[i].bool()][:1].tolist()
        begins = tokens[0] == start
        rows.append((tokens, labels) if begins else ([start, *tokens], [IGNORED, *first, *labels[1:]]))
    return padded(rows, samples.ids)


def windows(samples: Samples, predicted: Tensor, context: int, stride: int) -> Windows:
    """What of ``samples`` is ``predicted`` (n, T), window by window; a window that would predict nothing is left out."""
    import torch

    rows, ids, source, following = [], [], [], []
    for i, (tokens, labels) in enumerate(_rows(samples, predicted)):
        for begin, end, new, reach in _cuts(len(tokens), context, stride):
            own = [IGNORED] * (new - begin) + labels[new:end]
            after = labels[end] if reach > end else IGNORED
            if after != IGNORED or any(label != IGNORED for label in own):
                rows.append((tokens[begin:end], own))
                ids.append(f"{samples.ids[i]}@{begin}")
                source.append(i)
                following.append(after)
    return Windows(padded(rows, ids), torch.tensor(source), torch.tensor(following))


def _cuts(n: int, context: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """(begin, end, first new token, end of what is predicted) of each window of a text of n tokens."""
    begin = reach = 0
    while reach < n:
        end, new = min(begin + context, n), max(reach, begin)
        reach = end + (stride == context and end < n)
        yield begin, end, new, reach
        begin += stride


def _rows(samples: Samples, predicted: Tensor) -> Iterator[Row]:
    if more := samples.inputs.keys() - {"input_ids", "attention_mask"}:
        raise ValueError(f"the samples have {', '.join(sorted(more))} beside tokens, which cannot be cut along: leave it out")
    for i, seen in enumerate(samples.attention_mask.bool()):
        labels = samples.token_labels[i].masked_fill(~predicted[i], IGNORED)
        yield samples.input_ids[i][seen].tolist(), labels[seen].tolist()


def padded(rows: Sequence[Row], ids: Sequence[str], texts: Sequence[str] | None = None) -> Samples:
    """Tokens and labels as Samples, padded on the right."""
    import torch

    width = max(len(tokens) for tokens, _ in rows)

    def filled(values: Sequence[list[int]], with_: int) -> Tensor:
        return torch.tensor([[*row, *[with_] * (width - len(row))] for row in values])

    tokens, labels = zip(*rows, strict=True)
    mask = filled([[1] * len(row) for row in tokens], 0)
    return Samples.tokens(filled(tokens, 0), mask, filled(labels, IGNORED), ids=ids, texts=texts)
