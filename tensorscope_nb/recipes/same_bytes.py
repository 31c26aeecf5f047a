"""Texts as several models read them, each with its own tokenizer, so that all of them predict the very same bytes.

A model whose tokenizer has a start token can predict a text from its first byte on, one without only what follows its first
token. Where there is one without, the prediction begins for all at the first place in the text where each has a token begin.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import IGNORED, Samples, start_of
from tensorscope_nb.samples.windows import padded

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

HALF = re.compile("[\ud800-\udfff]")  # what is left of a character that was decoded in two parts, or with surrogateescape
FORMS = "give strings, a table with a column 'text', or Samples made from texts"


@dataclass(frozen=True)
class Texts:
    """Strings, and what they are called."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, data: Any) -> Texts:
        """Raises where there are no strings to read, or more than strings: tokens and labels belong to one tokenizer."""
        if isinstance(data, Samples):
            return cls._of_samples(data)
        columns = getattr(data, "columns", getattr(data, "column_names", None))
        if columns is not None:
            if "text" not in list(columns):
                raise LookupError(f"the table has no column 'text': it has {', '.join(map(str, columns))}")
            data = list(data["text"])
        if isinstance(data, str):
            data = [data]
        if isinstance(data, np.ndarray) or type(data).__name__ == "Series":
            data = data.tolist()
        if not isinstance(data, list | tuple):
            raise TypeError(f"texts are a {type(data).__name__}, which every model reads with its own tokenizer: {FORMS}")
        if not data:
            raise ValueError("there are no texts: give at least one")
        for i, text in enumerate(data):
            if not isinstance(text, str):
                raise TypeError(f"text {i} is a {type(text).__name__} ({str(text)[:40]!r}): {FORMS}")
            if not text:
                raise ValueError(f"text {i} is empty: leave it out")
            if half := HALF.search(text):
                raise ValueError(
                    f"text {i} has half a character at {half.start()} ({half[0]!r}), which has no bytes: read the file with the "
                    "encoding that it was written in"
                )
        return cls(tuple(data), tuple(f"samples-{i}" for i in range(len(data))), ("samples",) * len(data))

    @classmethod
    def _of_samples(cls, samples: Samples) -> Texts:
        for name, text in zip(samples.ids, samples.texts, strict=True):
            if not text:
                raise ValueError(f"sample {name!r} has no text, which every model reads with its own tokenizer: {FORMS}")
        if samples.labels is not None and samples.has_tokens and samples.labels.ndim == 2:
            raise ValueError("the samples have labels, tokens of one tokenizer: every model predicts all of a text, give texts")
        return cls(tuple(text or "" for text in samples.texts), samples.ids, samples.tasks)

    @property
    def coords(self) -> dict[str, Any]:
        """Those of a ``sample`` dimension."""
        ids, tasks, texts = (np.array(values, dtype=object) for values in (self.ids, self.tasks, self.texts))
        return {"sample": ids, "task": ("sample", tasks), "text": ("sample", texts)}

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(json.dumps(self.texts).encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Reading:
    """The texts in the tokens of each model, labelled from the same byte on, and how many bytes of each are predicted."""

    samples: dict[str, Samples]
    n_bytes: np.ndarray  # (texts,)
    coverage: float  # the share of all bytes
    start_tokens: dict[str, str | None]

    @classmethod
    def of(cls, models: Mapping[str, Scope], texts: Texts) -> Reading:
        starts = {name: start_of(scope.tokenizer) for name, scope in models.items()}
        tokens = {name: _tokens(name, scope, texts) for name, scope in models.items()}
        begins = [_begin(models, {name: tokens[name][i] for name in models}, starts, texts, i) for i in range(len(texts))]
        samples = {name: _samples(tokens[name], [at[name] for _, at in begins], starts[name], texts) for name in models}
        rest = [len(text[at:].encode()) for text, (at, _) in zip(texts.texts, begins, strict=True)]
        share = sum(rest) / sum(len(text.encode()) for text in texts.texts)
        said = {name: None if start is None else models[name].tokenizer.decode([start]) for name, start in starts.items()}
        return cls(samples, np.array(rest), share, said)


def check_readable(name: str, scope: Scope) -> None:
    """Raises where a model is none that predicts texts token by token."""
    if scope.anatomy.task != "causal" or scope.rule.custom is not None:
        kind = "a loss= of its own" if scope.rule.custom is not None else f"no next token to predict ({scope.anatomy.family})"
        raise UnsupportedModel(f"the model {name!r} has {kind}: bits per byte are of causal language models")
    if scope.tokenizer is None:
        raise UnsupportedModel(f"the model {name!r} has no tokenizer to read the texts with: ts.Scope(model, tokenizer)")


def _tokens(name: str, scope: Scope, texts: Texts) -> list[list[int]]:
    """The tokens of each text and no special ones; raises where they are not all of the text."""
    found: list[list[int]] = []
    for known, text in zip(texts.ids, texts.texts, strict=True):
        tokens = scope.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        back = _decoded(scope.tokenizer, tokens)
        if text not in (back, f" {back}"):  # one that sets a space before every text reads one that begins with a space alike
            at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
            raise ValueError(
                f"the tokenizer of {name!r} does not keep the text of {known!r}: from character {at} on {text[at : at + 12]!r} "
                f"becomes {back[at : at + 12]!r}, so that the model predicts another text; leave out what it cannot spell"
            )
        found.append(tokens)
    return found


def _decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def _begin(
    models: Mapping[str, Scope], tokens: Mapping[str, Sequence[int]], starts: Mapping[str, int | None], texts: Texts, i: int
) -> tuple[int, dict[str, int]]:
    """The character from which on a text is predicted, and the token of each model that begins there."""
    text = texts.texts[i]
    places = {name: _next_place(models[name], tokens[name], text, start is None) for name, start in starts.items()}
    while len({at for at, _ in places.values()}) > 1:
        name = min(places, key=lambda name: places[name][0])
        places[name] = _next_place(models[name], tokens[name], text, places[name][1] + 1)
    at = next(iter(places.values()))[0]
    if at == len(text):
        without = ", ".join(repr(name) for name, start in starts.items() if start is None)
        raise ValueError(
            f"of {texts.ids[i]!r} there is nothing to predict: {without} has no start token, and no later token begins "
            "where one of every other model does; leave the text out"
        )
    return at, {name: k for name, (_, k) in places.items()}


def _next_place(scope: Scope, tokens: Sequence[int], text: str, k: int) -> tuple[int, int]:
    """Where in the text token ``k`` begins, or the next one that does not begin inside a character."""
    for number in range(int(k), len(tokens)):
        before = _decoded(scope.tokenizer, tokens[:number]) if number else ""
        before = before if text.startswith(before) else f" {before}"
        if text.startswith(before) and not before.endswith("\ufffd"):
            return len(before), number
    return len(text), len(tokens)


def _samples(tokens: Sequence[list[int]], begins: Sequence[int], start: int | None, texts: Texts) -> Samples:
    before = [] if start is None else [start]
    rows = [([*before, *row], [IGNORED] * (len(before) + at) + row[at:]) for row, at in zip(tokens, begins, strict=True)]
    return padded(rows, texts.ids, texts.texts)
