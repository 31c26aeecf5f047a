"""The step and the learning rate of a checkpoint, on which all that tell them must agree."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# "step000600", "model_step_40", "checkpoint-500"; not "step5k", "step0.5", "timestep3", "step1_000" or "checkpoint-2024-01-05"
NAMED = r"(?<![a-z])(?:{})[-_=]?(\d+)(?![-_.,']?\d|[a-z])"
WORDS = (r"(?:global_?)?steps?", r"checkpoint|ckpt|iter(?:ation)?")
PLAIN = ("model", "pytorch_model")  # names that say nothing: the folder's does


def step_in_name(path: Path) -> int | None:
    """The step that the name of a file tells, or that of its folder where the file is just "model"."""
    for name in (path.name if path.is_dir() else path.stem, path.parent.name if path.stem in PLAIN else ""):
        for words in WORDS:
            steps = {int(found) for found in re.findall(NAMED.format(words), name, re.IGNORECASE)}
            if len(steps) > 1:
                raise ValueError(f"the name of {path} tells {len(steps)} steps: {', '.join(map(str, sorted(steps)))}; rename it")
            if steps:
                return steps.pop()
    return None


def step_of(file: Path, told: Mapping[str, int], given: Any = None) -> int:
    """The step of a checkpoint by its name, by what it says itself, and by what the caller gave."""
    named = step_in_name(file)
    told = ({} if named is None else {"its name": named}) | dict(told)
    if given is not None:
        told["steps="] = whole(given, "an entry of steps=")
    if not told:
        raise ValueError(f"nothing tells the step of {file}: name it step000600{file.suffix}, or give a list of files and steps=")
    return int(agreed(file, told, "step"))


def agreed(file: Path, told: Mapping[str, float], what: str) -> float:
    """The one number that all sources tell."""
    (first, value), *others = told.items()
    if other := [(source, found) for source, found in others if not _same(found, value)]:
        source, found = other[0]
        raise ValueError(
            f"the {what} of {file} is {value:.9g} by {first} and {found:.9g} by {source}: which is right cannot be told; "
            "correct the one that is wrong"
        )
    return value


def _same(a: float, b: float) -> bool:
    """Steps are equal exactly, rates as far as they were written out."""
    return a == b or (isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6))


def whole(value: Any, what: str) -> int:
    """A training step."""
    found = number(value)
    if found is None or found < 0 or found != int(found):
        raise ValueError(f"{what} is {value!r}: a training step is a whole number, at least 0")
    return int(found)


def rate(value: Any, what: str) -> float:
    """A learning rate."""
    found = number(value)
    if found is None or found < 0:
        raise ValueError(f"{what} is {value!r}: a learning rate is a finite number, at least 0")
    return found


def number(value: Any) -> float | None:
    """A finite number, or a text or a tensor that holds one; else None."""
    if hasattr(value, "item") and getattr(value, "size", None) is not None and not getattr(value, "ndim", 1):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
