"""Texts to rank weights with and others to measure with: no text is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope_nb.cli.texts import Text
from tensorscope_nb.cli.usage import UseError

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


@dataclass
class Reading:
    """How texts become tokens, and what was left out on the way."""

    scope: Scope
    path: str
    max_length: int | None = None
    skip_short: bool = False
    n_short: int = 0
    n_equal: int = 0

    def __post_init__(self) -> None:
        context = self.scope.anatomy.context
        if self.scope.tokenizer is None:
            raise UseError(f"{self.scope.name} has no tokenizer to read texts with")
        if self.max_length is not None and (self.max_length < 2 or (context and self.max_length > context)):
            bound = f"from 2 to {context}, the context of {self.scope.name}" if context else "at least 2"
            raise UseError(f"--max-length is {self.max_length}: give {bound}")

    def tokens(self, text: Text) -> tuple[int, ...]:
        """The token ids of a text, cut where ``max_length`` says so; none where it is too short and may be left out."""
        ids = tuple(self.scope.tokenizer(text.text, verbose=False)["input_ids"])[: self.max_length]
        context = self.scope.anatomy.context
        if context and len(ids) > context:
            raise UseError(
                f"{text.place} of {self.path} has {len(ids)} tokens, and the context of {self.scope.name} is {context}: "
                f"cut texts with --max-length {context}, or split them"
            )
        if len(ids) < 2 and not self.skip_short:
            has = "is empty" if not text.text.strip() else f"({text.text[:40]!r}) has {len(ids)} token"
            raise UseError(
                f"{text.place} of {self.path} {has}, and two are needed to predict one: remove it, or give --skip-short"
            )
        return ids if len(ids) >= 2 else ()

    def distinct(self, texts: Iterable[Text], without: Iterable[Text] = ()) -> Iterator[Text]:
        """Texts that are long enough, each once by its tokens, and none whose tokens are those of a text of ``without``."""
        seen = {self.tokens(text) for text in without}
        for text in texts:
            ids = self.tokens(text)
            self.n_short += not ids
            self.n_equal += bool(ids) and ids in seen
            if ids and ids not in seen:
                seen.add(ids)
                yield text

    def samples(self, texts: Sequence[Text], task: str) -> Samples:
        from tensorscope_nb.samples import tokenize

        ids = [f"{task}, {text.place}" for text in texts]
        return tokenize([text.text for text in texts], self.scope, task=task, max_length=self.max_length, ids=ids)


def in_random_order(texts: Sequence[Text], seed: int) -> list[Text]:
    import numpy as np

    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


def split(reading: Reading, texts: Sequence[Text], limits: tuple[int, int], seed: int) -> tuple[list[Text], list[Text]]:
    """At random so many texts to rank with and so many others to measure with; where there are fewer, in that proportion."""
    drawn = []
    for text in reading.distinct(in_random_order(texts, seed)):
        drawn.append(text)
        if len(drawn) == sum(limits):
            break
    if len(drawn) < 4:
        raise UseError(f"{reading.path} holds {len(drawn)} texts that differ: give at least 4, 2 to rank with and 2 to measure")
    wanted = round(len(drawn) * limits[0] / sum(limits))
    n_ranking = min(max(wanted, 2), len(drawn) - 2)
    return drawn[:n_ranking], drawn[n_ranking:]
