"""The frozen texts and images that ship with the package (their licences: ``data/NOTICE.md``)."""

from __future__ import annotations

import bz2
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TRAINED_SHARE = 0.9  # the packaged model saw this share of each prose and code corpus
N_TEST_IMAGES = 360  # of the 1797 handwritten digits: a fifth


@cache
def corpus(name: str, split: str = "test") -> str:
    """The text of ``"shakespeare"`` or ``"code"``: the nine tenths that the packaged model was trained on, or the rest."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: use 'train' or 'test'")
    text = _read(f"{name}.txt.bz2").decode()
    cut = text.index("\n", int(len(text) * TRAINED_SHARE)) + 1
    return text[:cut] if split == "train" else text[cut:]


@cache
def problems() -> tuple[tuple[str, str], ...]:
    """(question, answer) of each grade-school maths problem."""
    records = (json.loads(line) for line in _read("maths.jsonl.bz2").decode().splitlines())
    return tuple((r["question"], r["answer"]) for r in records)


@cache
def handwritten() -> np.ndarray:
    """The handwritten digits (1797, 65) as they were published: 64 pixels in 0..16, row by row of the image, and the class."""
    import numpy as np

    return np.frombuffer(_read("digits.u8.bz2"), np.uint8).reshape(-1, 65)


def image_rows(split: str) -> np.ndarray:
    """Which rows of :func:`handwritten` a split has, in a fixed random order: the published one goes 0..9 in turn."""
    import numpy as np

    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: use 'train' or 'test'")
    order = np.random.RandomState(0).permutation(len(handwritten()))  # RandomState: the one generator that numpy froze
    return order[N_TEST_IMAGES:] if split == "train" else order[:N_TEST_IMAGES]


def _read(name: str) -> bytes:
    return bz2.decompress((resources.files(__package__) / "data" / name).read_bytes())
