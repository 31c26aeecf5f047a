"""How a dimension follows the Focus: the rules that link the views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Value = str | int | float | bool
Selection = Value | list[Value]
Cursor = dict[str, Selection]
Others = Mapping[str, tuple[str, Sequence[Value]]]

BASES = (
    "checkpoint", "step", "model", "task", "sample", "position", "layer", "head", "block", "module", "neuron", "channel",
    "token_id", "component", "parameter", "metric",
)  # fmt: skip
TIME = ("checkpoint", "step")


def base_name(name: str) -> str | None:
    """The dimension that a variant of it is about.

    >>> base_name("sample_a"), base_name("test_sample"), base_name("query"), base_name("layer")
    ('sample', 'sample', 'position', None)
    """
    if name in ("query", "key"):
        return "position"
    return next((b for b in BASES if name != b and (name.startswith(f"{b}_") or name.endswith(f"_{b}"))), None)


def followed(dim: str) -> list[str]:
    """The names under which a dimension looks for a selection, in order."""
    names = [dim]
    if base := base_name(dim):
        names.append(base)
    other = {"checkpoint": "step", "step": "checkpoint"}
    return names + [other[name] for name in names if name in other]


def selection(cursor: Mapping[str, Selection], coords: Mapping[str, Sequence[Value]], others: Others) -> Cursor:
    """What the Focus selects along each dimension, as values that are there.

    ``coords`` has the values along each dimension; ``others`` the further coordinates, as ``name: (dimension, values)``.
    """
    found: Cursor = {}
    for dim, values in coords.items():
        selected = _by_name(cursor, dim, values)
        if selected is None:
            selected = _by_coordinate(cursor, dim, values, others)
        if selected is not None:
            found[dim] = selected
    return found


def _by_name(cursor: Mapping[str, Selection], dim: str, values: Sequence[Value]) -> Selection | None:
    for name in followed(dim):
        if name not in cursor:
            continue
        wanted = cursor[name]
        listed = wanted if isinstance(wanted, list) else [wanted]
        present = list(dict.fromkeys(_nearest(values, w) for w in listed)) if name in TIME else [w for w in listed if w in values]
        if present:
            return present if isinstance(wanted, list) else present[0]
    return None


def _nearest(values: Sequence[Value], wanted: Value) -> Value:
    return min(values, key=lambda v: abs(float(v) - float(wanted)))


def _by_coordinate(cursor: Mapping[str, Selection], dim: str, values: Sequence[Value], others: Others) -> Selection | None:
    kept: set[int] | None = None
    for name, (along, labels) in others.items():
        if along != dim:
            continue
        # module_layer on `module` is about its layer: the owner's name comes off first
        base = base_name(f"_{name.removeprefix(f'{dim}_')}" if name.startswith(f"{dim}_") else name)
        key = next((k for k in (name, base) if k in cursor), None)
        if key is None:
            continue
        wanted = cursor[key]
        listed = wanted if isinstance(wanted, list) else [wanted]
        matches = {i for i, label in enumerate(labels) if label in listed}
        kept = matches if kept is None else kept & matches
    return [values[i] for i in sorted(kept)] if kept else None


def plain(value: Any) -> Selection | None:
    """A coordinate value, or a list of them, as JSON has it."""
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        listed = [plain(v) for v in value]
        if all(isinstance(v, (str, int, float, bool)) for v in listed):
            return listed or None  # type: ignore[return-value]
    raise TypeError(f"a Focus holds coordinate values or lists of them; {value!r} came; pick the values and pass them as a list")
