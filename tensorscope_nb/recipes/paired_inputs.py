"""The same inputs for two models, each with tokens of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorscope_nb.samples import Samples
from tensorscope_nb.samples.tokenize import vocabulary_of
from tensorscope_nb.scope import Scope

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Recipe

TOKENS = ("all", "mean", "last")
APART = 'rows of tokens="all" would stand for different tokens: compare them with tokens="mean" or tokens="last"'


@dataclass(frozen=True)
class Paired:
    """Two models and what each is given, row by row the same input; one model alone where there is no other."""

    scope_a: Scope
    scope_b: Scope | None
    a: Samples
    b: Samples

    def require(self, least: int) -> None:
        if (n := len(self.a)) < least:
            raise ValueError(f"there {'is 1 sample' if n == 1 else f'are {n} samples'}: this takes at least {least}")


def paired_inputs(recipe: Recipe, scope_a: Scope, scope_b: Scope | None, samples: Any, tokens: str) -> Paired:
    """The same samples for both, or texts as the tokenizer of each reads them."""
    if tokens not in TOKENS:
        raise ValueError(f"tokens is {tokens!r}: choose {', '.join(map(repr, TOKENS))}")
    if scope_b is not None and not isinstance(scope_b, Scope):
        raise TypeError(
            f"scope_b is a {type(scope_b).__name__}: give a second Scope; samples go by name, {recipe.name}(scope, samples=…)"
        )
    if samples is None:
        raise TypeError(f"samples are missing: {recipe.name}(scope_a, scope_b, samples), or {recipe.name}(scope, samples=…)")
    a = scope_a.samples(samples)
    if scope_b is None or scope_b is scope_a:
        return Paired(scope_a, None, a, a)
    b = _read_by(scope_b, scope_a, a)
    if tokens == "all" and b is not a and not _same_tokens(a, b):
        raise ValueError(f"{scope_b.name} reads the texts as other tokens than {scope_a.name}, and {APART}")
    return Paired(scope_a, scope_b, a, b)


def _read_by(scope: Scope, first: Scope, samples: Samples) -> Samples:
    """The samples for a second model: as they are where their ids mean the same to it, else their texts, read again."""
    own, others = vocabulary_of(scope.tokenizer), samples.vocabulary or vocabulary_of(first.tokenizer)
    if not samples.has_tokens or not own or not others or own == others:
        return samples
    texts = [text for text in samples.texts if text is not None]
    again = first.samples(texts) if len(texts) == len(samples) else None
    if again is None or not _same_tokens(samples, again):  # texts that were cut would be other inputs
        raise ValueError(
            f"{scope.name} has another tokenizer than {first.name}, to whose tokens these samples are bound "
            f"({'their texts are not whole' if again else 'they carry no texts'}): give texts, which each model reads by itself"
        )
    return scope.samples(texts).renamed(samples.ids)


def _same_tokens(a: Samples, b: Samples) -> bool:
    rows = ([row[seen.bool()].tolist() for row, seen in zip(s.input_ids, s.attention_mask, strict=True)] for s in (a, b))
    return all(one == other for one, other in zip(*rows, strict=True))
