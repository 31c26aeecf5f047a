"""The frozen texts that ship with the package (their licences: ``data/NOTICE.md``)."""

import json
import lzma
from functools import cache
from importlib import resources

TRAINED_SHARE = 0.9  # the packaged model saw this share of each prose and code corpus


@cache
def corpus(name: str, split: str = "test") -> str:
    """The text of ``"shakespeare"`` or ``"code"``: the nine tenths that the packaged model was trained on, or the rest."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: use 'train' or 'test'")
    text = _read(f"{name}.txt.xz")
    cut = text.index("\n", int(len(text) * TRAINED_SHARE)) + 1
    return text[:cut] if split == "train" else text[cut:]


@cache
def problems() -> tuple[tuple[str, str], ...]:
    """(question, answer) of each grade-school maths problem."""
    records = (json.loads(line) for line in _read("maths.jsonl.xz").splitlines())
    return tuple((r["question"], r["answer"]) for r in records)


def _read(name: str) -> str:
    return lzma.decompress((resources.files(__package__) / "data" / name).read_bytes()).decode()
