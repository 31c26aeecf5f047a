"""The names that someone may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wanted: str, names: Iterable[str]) -> str:
    """What to say of a module path, a parameter name or a glob of them that is not there: it is compared with the ends."""
    wanted = wanted.strip("*.")
    depth = wanted.count(".") + 1
    ends: dict[str, str] = {}
    for name in names:
        ends.setdefault(".".join(name.split(".")[-depth:]), name)
    ends.pop("", None)
    found = [ends[end] for end in difflib.get_close_matches(wanted, ends, cutoff=0.4)]
    return f"did you mean {' or '.join(found)}?" if found else "look at model.named_parameters()"
