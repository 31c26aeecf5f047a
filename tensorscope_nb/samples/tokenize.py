"""Texts to Samples, with any tokenizer of the transformers library."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tensorscope_nb.samples.samples import Samples

if TYPE_CHECKING:
    from torch import Tensor


def tokenizer_of(carrier: Any) -> Any:
    """The tokenizer itself, from a tokenizer or from anything that has a ``tokenizer``."""
    tokenizer = getattr(carrier, "tokenizer", None) if not callable(getattr(carrier, "encode", None)) else carrier
    if tokenizer is None:
        raise TypeError(
            f"{type(carrier).__name__} has no tokenizer: pass token ids with Samples.tokens(...), or give the Scope a tokenizer"
        )
    return tokenizer


def tokenize(
    texts: str | Sequence[str],
    carrier: Any,
    *,
    task: str | None = None,
    max_length: int | None = None,
    ids: Sequence[str] | None = None,
) -> Samples:
    """Samples of one or several texts, padded on the right; longer texts are cut only where ``max_length`` says so."""
    import torch

    texts = [texts] if isinstance(texts, str) else list(texts)
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}: keep at least 1 token, or leave it out")
    if not texts:
        raise ValueError("there are no texts: give at least one")
    bad = next((t for t in texts if not isinstance(t, str)), None)
    if bad is not None:
        raise TypeError(f"a text is a {type(bad).__name__} ({str(bad)[:40]!r}): give strings")
    tokenizer = tokenizer_of(carrier)
    # verbose: the tokenizer's own length warning is answered by an error where the model is run
    rows = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
    empty = [i for i, row in enumerate(rows) if not row]
    if empty:
        raise ValueError(f"text {empty[0]} ({texts[empty[0]]!r}) has no tokens: leave it out")
    rows = [row[:max_length] for row in rows]
    length = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    input_ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    pieces = [(*token_strings(tokenizer, row), *[""] * (length - len(row))) for row in rows]
    made = vocabulary_of(tokenizer)
    return Samples.tokens(input_ids, mask, task=task, ids=ids, texts=texts, pieces=pieces, vocabulary=made)


def start_of(tokenizer: Any) -> int | None:
    """The token that stands before a text: that of a beginning, or where there is none that of an end, as GPT-2 has it."""
    tokens = (getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((token for token in tokens if token is not None), None)


def vocabulary_of(tokenizer: Any) -> str:
    """A fingerprint of what its ids mean: equal for equal vocabularies."""
    if tokenizer is None or not hasattr(tokenizer, "get_vocab"):
        return ""
    known = _vocabularies.get(id(tokenizer))
    if known is None or known[0]() is not tokenizer:
        listed = json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()
        known = _vocabularies[id(tokenizer)] = (weakref.ref(tokenizer), hashlib.blake2b(listed, digest_size=8).hexdigest())
    return known[1]


_vocabularies: dict[int, tuple[weakref.ref, str]] = {}


def token_strings(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as the text it stands for; bytes that are no text of their own, and control characters, as ``\\x12``."""
    decoded = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
    raw = tokenizer.convert_ids_to_tokens(list(ids))
    return [_readable(piece, str(token)) for piece, token in zip(decoded, raw, strict=True)]


def _readable(piece: str, raw: str) -> str:
    if "\ufffd" in piece:  # part of a character: the vocabulary spells each byte as a character of its own
        spelled = _byte_of()
        return "".join(f"\\x{spelled[c]:02x}" if c in spelled else c for c in raw)
    return "".join(c if c.isprintable() or c in "\n\t " else f"\\x{ord(c):02x}" for c in piece)


@cache
def _byte_of() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def ordinary_ids(tokenizer: Any) -> Tensor:
    """The ids of all tokens that are not special."""
    import torch

    special = set(tokenizer.all_special_ids)
    return torch.tensor([i for i in range(len(tokenizer)) if i not in special])
