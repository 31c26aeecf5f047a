"""How a dimension follows the Focus: the rules that link the views."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Value = str | int | float | bool
Selection = Value | list[Value]
Cursor = dict[str, Selection]
Others = Mapping[str, tuple[str, Sequence[Value]]]

BASES = (
    "checkpoint", "step", "model", "task", "sample", "position", "layer", "head", "block", "module", "neuron", "channel",
    "token_id", "component", "parameter", "metric",
)  # fmt: skip
# Places without variants: a ``source_layer`` is about a layer.
ALONE = ("kind", "source", "target")
TIME = ("checkpoint", "step")


def base_name(name: str) -> str | None:
    """The dimension that a variant of it is about.

    >>> base_name("sample_a"), base_name("test_sample"), base_name("query"), base_name("layer")
    ('sample', 'sample', 'position', None)
    """
    if name in ("query", "key"):
        return "position"
    return next((b for b in BASES if name != b and (name.startswith(f"{b}_") or name.endswith(f"_{b}"))), None)


def alone(dim: str, dims: Collection[str]) -> bool:
    """Whether a dimension goes by its own name alone: what is about test samples, where there are training samples beside them.

    >>> alone("test_sample", ["sample", "test_sample"]), alone("test_sample", ["test_sample"])
    (True, False)
    """
    return dim.startswith("test_") and "sample" in dims and "test_sample" in dims


def followed(dim: str, dims: Collection[str] = ()) -> list[str]:
    """The names under which a dimension looks for a selection, in order; ``dims`` are all that stand beside it."""
    names = [dim]
    if (base := base_name(dim)) and not alone(dim, dims):
        names.append(base)
    other = {"checkpoint": "step", "step": "checkpoint"}
    return names + [other[name] for name in names if name in other]


def head_of(name: Value) -> dict[str, Value] | None:
    """The layer and the head that a name is about.

    >>> head_of("0.3"), head_of("mlp 0")
    ({'layer': 0, 'head': 3}, None)
    """
    found = re.fullmatch(r"(\d+)\.(\d+)", name) if isinstance(name, str) else None
    return {"layer": int(found[1]), "head": int(found[2])} if found else None


def twins(a: str, b: str) -> bool:
    """Whether two dimensions are sides of one thing.

    >>> twins("source", "target"), twins("layer_a", "layer_b"), twins("layer", "head")
    (True, True, False)
    """
    base = base_name(a)
    return a != b and (base == base_name(b) if base is not None else {a, b} == {"source", "target"})


def targeted(dim: str, cursor: Mapping[str, Selection]) -> list[Value]:
    """Layer and head are those of a ``target`` such as "1.2" where nothing else says them.

    >>> targeted("head", {"target": "1.2"}), targeted("head", {"target": "1.2", "layer": 0})
    ([2], [])
    """
    if dim not in ("layer", "head") or "layer" in cursor or "head" in cursor or "target" not in cursor:
        return []
    return [head[dim] for name in _listed(cursor["target"]) if (head := head_of(name))]


def _listed(wanted: Selection) -> list[Value]:
    return wanted if isinstance(wanted, list) else [wanted]


def selection(cursor: Mapping[str, Selection], coords: Mapping[str, Sequence[Value]], others: Others) -> Cursor:
    """What the Focus selects along each dimension, as values that are there.

    ``coords`` has the values along each dimension; ``others`` the further coordinates, as ``name: (dimension, values)``.
    """
    found: Cursor = {}
    for dim, values in coords.items():
        selected = _by_name(cursor, dim, values, coords)
        if selected is None:
            selected = _by_coordinate(cursor, dim, values, others)
        if selected is not None:
            found[dim] = selected
    return found


def _by_name(cursor: Mapping[str, Selection], dim: str, values: Sequence[Value], dims: Collection[str]) -> Selection | None:
    for name in followed(dim, dims):
        if name not in cursor:
            continue
        wanted = cursor[name]
        listed = _listed(wanted)
        if name in TIME:
            present = list(dict.fromkeys(_nearest(values, w) for w in listed))
        else:
            # a brush selects thousands of fifty thousand
            there = set(values) if len(listed) > 1 else values
            present = [w for w in listed if w in there]
        if present:
            return present if isinstance(wanted, list) else present[0]
    heads = list(dict.fromkeys(v for v in targeted(dim, cursor) if v in values))
    return (heads if len(heads) > 1 else heads[0]) if heads else None


def _nearest(values: Sequence[Value], wanted: Value) -> Value:
    return min(values, key=lambda v: abs(float(v) - float(wanted)))


def own_name(name: str, dim: str) -> str:
    """What a coordinate is about: the name of the dimension that owns it comes off.

    >>> own_name("module_layer", "module"), own_name("pair_sample_a", "pair"), own_name("sample_a", "pair")
    ('layer', 'sample_a', 'sample_a')
    """
    return name.removeprefix(f"{dim}_")


def names_of(name: str, dim: str) -> list[str]:
    """The names in the Focus that a coordinate of a dimension answers to, in order.

    >>> names_of("pair_sample_a", "pair"), names_of("layer_a", "layer_a")
    (['pair_sample_a', 'sample_a', 'sample'], ['layer_a', 'layer'])
    """
    own = own_name(name, dim)
    return list(dict.fromkeys(n for n in (name, own, base_name(own)) if n is not None))


def _by_coordinate(cursor: Mapping[str, Selection], dim: str, values: Sequence[Value], others: Others) -> Selection | None:
    """What the coordinates of a dimension leave of it, each asked by the first of its names that is selected.

    Those that are left with a base alone (``sample`` for ``pair_sample_a`` and ``pair_sample_b``) are sides of one thing: it
    may be on either. Where one side is asked for by its own name, the base says no more.
    """
    found: dict[str, set[int]] = {}
    settled: set[str | None] = set()
    sides: list[tuple[str, set[int]]] = []
    for name, (along, labels) in others.items():
        if along != dim:
            continue
        base = base_name(own_name(name, dim))
        key = next((k for k in names_of(name, dim) if k in cursor), None)
        if key is None:
            continue
        listed = set(_listed(cursor[key]))
        matches = {i for i, label in enumerate(labels) if label in listed}
        if key == base:
            sides.append((base, matches))
        else:
            found[name] = matches
            settled.add(base)
    for base, matches in sides:
        if base not in settled:
            found[base] = found.get(base, set()) | matches
    kept = set.intersection(*found.values()) if found else set()
    return [values[i] for i in sorted(kept)] or None


def parts_of(dims: Sequence[str]) -> list[str]:
    """The dimensions that a number for each query and key has besides: what a cell of a pattern is made of.

    >>> parts_of(["sample", "head", "query", "key", "source"]), parts_of(["head", "query", "key"]), parts_of(["source"])
    (['source'], [], [])
    """
    if not {"query", "key"} <= set(dims):
        return []
    whose = ("query", "key", "layer", "head", "checkpoint", "step", "model", "task", "sample", "replicate")
    return [d for d in dims if d not in whose]


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
