"""Small real data sets that ship with the package, and repeated random tokens.

Those of text take a tokenizer or anything that carries one, and give ``n`` samples that do not overlap. Prose and code come
from the tenth of each text that the packaged model was not trained on; ``split="train"`` gives the rest.
"""

from __future__ import annotations

import sys
from typing import Any

from tensorscope_nb.samples.corpora import corpus, handwritten, image_rows, problems
from tensorscope_nb.samples.samples import IGNORED, Samples
from tensorscope_nb.samples.tokenize import ordinary_ids, token_strings, tokenize, tokenizer_of, vocabulary_of

CHARACTERS_PER_TOKEN = 16  # more than any tokenizer here packs into one token on average


def shakespeare(scope: Any, n: int = 64, length: int = 64, *, split: str = "test") -> Samples:
    """Passages of Shakespeare (public domain), each ``length`` tokens from the start of a line."""
    return _windows("shakespeare", scope, n, length, split)


def code(scope: Any, n: int = 64, length: int = 64, *, split: str = "test") -> Samples:
    """Passages of Python source (pytest, MIT), each ``length`` tokens from the start of a line."""
    return _windows("code", scope, n, length, split)


def maths(scope: Any, n: int = 64, length: int | None = 64) -> Samples:
    """Grade-school problems with their worked answers (GSM8K test split, MIT); at most 200.

    Each is cut at ``length`` tokens; ``length=None`` gives them whole.
    """
    if not 1 <= n <= len(problems()):
        raise ValueError(f"n is {n}: there are {len(problems())} problems, ask for 1 to {len(problems())}")
    texts = [f"{question}\n{answer}" for question, answer in problems()[:n]]
    return tokenize(texts, scope, task="maths", max_length=length)


def digits(split: str = "test", n: int | None = None) -> Samples:
    """Handwritten digits (UCI, CC BY 4.0): images of 8 × 8 as ``x`` (n, 64) in 0..1, and their classes 0 to 9.

    ``split="train"`` gives the 1437 that ``ts.load("digits")`` was trained on, ``"test"`` the other 360, by a fixed random
    choice among images of the same 13 writers: it is no test of writers that were never seen. Both are in a random order,
    so that the first ``n`` are a draw. An image has the same id wherever it comes: its row in the published file.

    >>> import tensorscope_nb as ts
    >>> samples = ts.datasets.digits("train", n=3)
    >>> samples, samples.ids[0], samples.text(0), int(samples.labels[0])
    (Samples(3 digits; x 64), 'digit-1109', 'a 6', 6)
    """
    import torch

    rows = image_rows(split)
    if n is not None and not 1 <= n <= len(rows):
        raise ValueError(f"n is {n}: the {split} split has {len(rows)} digits, ask for 1 to {len(rows)}")
    rows = rows[:n]
    images = torch.tensor(handwritten()[rows])
    x, y = images[:, :64].float() / 16, images[:, 64].long()
    ids, texts = [f"digit-{row:04d}" for row in rows], [f"a {digit}" for digit in y.tolist()]
    return Samples.tensors(x, y, task="digits", ids=ids, texts=texts, picture=(8, 8))


def repeats(
    scope: Any,
    n: int = 8,
    period: int = 50,
    *,
    token_range: tuple[int, int] | None = None,
    bos: int | None = None,
    shuffled: bool = False,
    unrelated: bool = False,
    seed: int = 0,
) -> Samples:
    """A beginning-of-sequence token, then a random block of ``period`` tokens, twice; only the second copy is predicted.

    ``token_range`` bounds the ids drawn, without replacement where it is wide enough (default: all but the special
    tokens). ``bos`` defaults to the tokenizer's, if it has one. ``shuffled`` gives the control: the second copy in
    another order, in which no token keeps its place. ``unrelated`` gives, sample by sample, the counterpart of the same call
    without it, for patching: the same second copy after a first one of other tokens, so that there is nothing to copy.
    """
    import torch

    if period < 2:
        raise ValueError(f"period is {period}: a block needs at least 2 tokens")
    if n < 1:
        raise ValueError(f"n is {n}: make at least 1 sequence")
    if period > (longest := longest_period(scope)):
        raise ValueError(f"period is {period}: two copies and a first token must fit the context, ask for at most {longest}")
    tokenizer = getattr(scope, "tokenizer", scope)
    if token_range is None and tokenizer is None:
        raise TypeError(
            "there is no tokenizer to choose tokens from: pass token_range=(low, high), and bos= if the model has one"
        )
    pool = ordinary_ids(tokenizer) if token_range is None else torch.arange(*token_range)
    if len(pool) < 2:
        raise ValueError(f"token_range is {token_range}: it must hold at least 2 token ids")
    if shuffled and unrelated:
        raise ValueError("shuffled changes the second copy and unrelated the first: ask for one of the two")
    start = bos if bos is not None else getattr(tokenizer, "bos_token_id", None)
    generator, others = (torch.Generator().manual_seed(seed + k) for k in (0, 1))  # the blocks are the same in any variant
    rows = []
    for _ in range(n):
        distinct = len(pool) >= period
        drawn = (
            torch.randperm(len(pool), generator=generator)
            if distinct
            else torch.randint(len(pool), (period,), generator=generator)
        )
        block = pool[drawn[:period]]
        again = block[_cycle(period, generator)] if shuffled else block
        rows.append(torch.cat([_other_than(block, pool, others) if unrelated else block, again]))
    input_ids = torch.stack(rows)
    if start is not None:
        input_ids = torch.cat([torch.full((n, 1), start), input_ids], 1)
    labels = input_ids.clone()
    labels[:, :-period] = IGNORED
    pieces = [tuple(token_strings(tokenizer, row.tolist())) for row in input_ids] if tokenizer is not None else None
    task = "shuffled" if shuffled else "unrelated" if unrelated else "repeats"
    return Samples.tokens(input_ids, labels=labels, task=task, pieces=pieces, vocabulary=vocabulary_of(tokenizer))


def _other_than(block: Any, pool: Any, generator: Any) -> Any:
    """As many tokens of ``pool`` that are not in ``block``; each once, where there are enough."""
    import torch

    left = pool[~torch.isin(pool, block)]
    if not len(left):
        raise ValueError(f"unrelated: a block holds all {len(pool)} tokens of the range: widen token_range, or shorten period")
    if len(left) < len(block):
        return left[torch.randint(len(left), (len(block),), generator=generator)]
    return left[torch.randperm(len(left), generator=generator)[: len(block)]]


def longest_period(scope: Any) -> int:
    """The longest block that fits twice, after a first token, into the context of the model; without a model, any."""
    context = getattr(getattr(scope, "anatomy", None), "context", 0)
    return (context - 1) // 2 if context else sys.maxsize


def _cycle(n: int, generator: Any) -> list[int]:
    """A random order in which nothing stays in its place: one step along a random cycle."""
    import torch

    order = torch.randperm(n, generator=generator).tolist()
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [following[i] for i in range(n)]


def _windows(name: str, scope: Any, n: int, length: int, split: str) -> Samples:
    if n < 1 or length < 2:
        raise ValueError(f"n is {n} and length is {length}: ask for at least 1 sample of at least 2 tokens")
    text = corpus(name, split)
    span = len(text) // n
    starts = [text.index("\n", k * span) + 1 if k else 0 for k in range(n)]
    ends = [*starts[1:], len(text)]
    passages = [text[a : min(b, a + length * CHARACTERS_PER_TOKEN)] for a, b in zip(starts, ends, strict=True)]
    if not all(passages):
        raise ValueError(f"{n} passages do not fit into the {split} split of {name}, which has fewer lines: ask for fewer")
    samples = tokenize(passages, scope, task=name, max_length=length)
    shortest = int(samples.lengths.min())
    if shortest < length:
        raise ValueError(
            f"{n} passages of {length} tokens do not fit into the {split} split of {name} (one has {shortest}): "
            "ask for fewer or shorter ones"
        )
    tokenizer = tokenizer_of(scope)
    kept = [tokenizer.decode(row, skip_special_tokens=True) for row in samples.input_ids]
    pieces = [p for p in samples.pieces if p is not None]
    return Samples.tokens(samples.input_ids, task=name, texts=kept, pieces=pieces, vocabulary=samples.vocabulary)
