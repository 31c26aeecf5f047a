"""The Focus: the place that everyone is looking at."""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as t

from tensorscope_nb.views.rules import TIME, Cursor, Selection, Value, followed, names_of, plain, selection
from tensorscope_nb.views.runtime import SILENT

if TYPE_CHECKING:
    import xarray as xr

Observer = Callable[[Cursor], Any]


class FocusModel(anywidget.AnyWidget):
    """The synced half of a Focus.

    The page sends its whole cursor, and beside it the one it had last ``known`` from here. What changed between the two is
    what someone did there: a click neither undoes what a cell has set meanwhile, nor is undone by it.
    """

    _esm = SILENT
    cursor = t.Dict().tag(sync=True)
    known = t.Dict().tag(sync=True)
    places: Any = t.List().tag(sync=True)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        if "cursor" in sync_data and "known" in sync_data:
            cursor, known = sync_data["cursor"], sync_data["known"]
            merged = {dim: value for dim, value in self.cursor.items() if dim not in known or dim in cursor}
            merged |= {dim: value for dim, value in cursor.items() if dim not in known or known[dim] != value}
            sync_data = {**sync_data, "cursor": merged}
        super().set_state(sync_data)


class Focus:
    """At most one selection per dimension name: a coordinate value or a list of them, never indices.

    It lives in the front end, where every view of a composition reads and writes it, and is mirrored here.

    >>> focus = Focus(layer=1)
    >>> focus["head"] = [2, 3]
    >>> focus
    Focus(layer=1, head=[2, 3])
    >>> del focus["layer"]
    >>> "layer" in focus
    False
    >>> dict(focus)
    {'head': [2, 3]}
    """

    def __init__(self, **selections: Any) -> None:
        self.model = FocusModel()
        self._observers: list[Observer] = []
        self._lock = threading.RLock()
        self.viewers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.model.observe(self._tell, names="cursor")
        self.update(selections)

    @property
    def cursor(self) -> Cursor:
        """A copy of all selections."""
        return dict(self.model.cursor)

    def __getitem__(self, dim: str) -> Selection:
        try:
            return self.cursor[dim]
        except KeyError:
            raise KeyError(f"nothing is selected along {dim!r}; selected: {', '.join(self) or 'nothing'}") from None

    def get(self, dim: str, default: Any = None) -> Any:
        """The selection along a dimension, or a default."""
        return self.cursor.get(dim, default)

    def __setitem__(self, dim: str, value: Any) -> None:
        self.update({dim: value})

    def __delitem__(self, dim: str) -> None:
        self[dim]
        self.update({dim: None})

    def __contains__(self, dim: object) -> bool:
        return dim in self.model.cursor

    def __iter__(self) -> Iterator[str]:
        return iter(self.cursor)

    def __len__(self) -> int:
        return len(self.model.cursor)

    def keys(self) -> KeysView[str]:
        """The dimensions along which something is selected, so that ``dict(focus)`` is what is selected."""
        return self.cursor.keys()

    def update(self, selections: Mapping[str, Any]) -> None:
        """Set several selections in one message; None clears one."""
        for dim in selections:
            if not isinstance(dim, str):
                raise TypeError(f"a Focus selects by dimension name; {dim!r} came")
        changes = {dim: plain(value) for dim, value in selections.items()}
        # callbacks from the page run on a thread of their own
        with self._lock:
            merged = {**self.model.cursor, **changes}
            listed = [] if any(dim in place for place in self.model.places for dim in changes) else self.model.places
            self._write({dim: value for dim, value in merged.items() if value is not None}, listed)
        for words in self._unseen({dim: value for dim, value in changes.items() if value is not None}):
            warnings.warn(words, stacklevel=2)

    def clear(self) -> None:
        """Select nothing."""
        with self._lock:
            self._write({}, [])

    @property
    def places(self) -> list[dict[str, Value]]:
        """The places that were picked one by one, where they are not all combinations of what is selected; else empty.

        >>> focus = Focus()
        >>> focus.places = [{"layer": 0, "head": 0}, {"layer": 1, "head": 2}]
        >>> focus
        Focus(layer=[0, 1], head=[0, 2])
        >>> focus["layer"] = 1
        >>> focus.places
        []
        """
        return [dict(place) for place in self.model.places]

    @places.setter
    def places(self, places: Iterable[Mapping[str, Any]]) -> None:
        listed: list[dict[str, Any]] = [{dim: plain(value) for dim, value in place.items()} for place in places]
        if len({frozenset(place) for place in listed}) > 1:
            raise ValueError(f"places share their dimensions; {listed!r} came")
        along = {dim: list(dict.fromkeys(place[dim] for place in listed)) for dim in (listed[0] if listed else [])}
        single: Cursor = {dim: values[0] if len(values) == 1 else values for dim, values in along.items()}
        rectangle = math.prod(len(values) for values in along.values()) == len(listed)
        with self._lock:
            self._write({**self.model.cursor, **single}, [] if rectangle else listed)

    def _write(self, cursor: Cursor, places: list[Any]) -> None:
        with self.model.hold_sync(), self.model.hold_trait_notifications():
            self.model.cursor, self.model.places = cursor, places

    def _unseen(self, changes: Cursor) -> list[str]:
        """Words for what no view of this Focus has."""
        cubes = [view.cube.data for view in list(self.viewers) if view.cube is not None]
        found: list[str] = []
        for dim, value in changes.items() if cubes else ():
            there = sorted({name for cube in cubes for name, names in _answering(cube) if dim in names})
            if not there:
                dims = sorted({d for cube in cubes for d in cube["dims"]})
                found.append(f"no linked view has {dim!r}; they have {', '.join(dims)}")
                continue
            known = [c["values"] for cube in cubes for name, c in cube["coords"].items() if name in there]
            bare = [range(cube["dims"][d]) for cube in cubes for d in there if d in cube["dims"] and d not in cube["coords"]]
            has = dict.fromkeys(v for values in (*known, *bare) for v in values)
            missing = [v for v in (value if isinstance(value, list) else [value]) if v not in has]
            if missing and dim not in TIME:
                shown = ", ".join(map(str, list(has)[:12])) + (", …" if len(has) > 12 else "")
                found.append(f"no linked view has {dim} {', '.join(map(repr, missing))}; there are {shown}")
        return found

    def observe(self, fn: Observer) -> None:
        """Call ``fn(cursor)`` whenever the selection changes, here or in the page."""
        self._observers.append(fn)

    def unobserve(self, fn: Observer) -> None:
        """Stop calling ``fn``."""
        self._observers.remove(fn)

    def selection(self, ds: xr.Dataset | xr.DataArray) -> Cursor:
        """What is selected, for ``ds.sel(**focus.selection(ds))``: only dimensions of ``ds``, only values that are there.

        >>> import numpy as np, xarray as xr
        >>> ds = xr.Dataset({"score": (("step", "layer"), np.zeros((3, 2)))}, {"step": [0, 200, 600], "layer": [0, 1]})
        >>> Focus(checkpoint=250, layer=1, head=3).selection(ds)
        {'step': 200, 'layer': 1}
        """
        coords = {str(d): ds[d].values.tolist() for d in ds.dims}
        others = {
            str(name): (str(c.dims[0]), c.values.tolist())
            for name, c in ds.coords.items()
            if len(c.dims) == 1 and name not in ds.dims
        }
        return selection(self.cursor, coords, others)

    def absorb(self, other: Focus) -> None:
        """Become one with another Focus: where both select, this one's selection stays. Both objects then are the same place."""
        if other.model is self.model:
            return
        missing = {dim: value for dim, value in other.cursor.items() if dim not in self}
        other.model.unobserve(other._tell, names="cursor")
        self._observers.extend(other._observers)
        self.viewers.update(other.viewers)
        other.model, other._observers, other._lock, other.viewers = self.model, self._observers, self._lock, self.viewers
        if missing:
            self.update(missing)

    def _tell(self, change: Any) -> None:
        for fn in list(self._observers):
            fn(dict(change["new"]))

    def __repr__(self) -> str:
        return f"Focus({', '.join(f'{dim}={value!r}' for dim, value in self.cursor.items())})"


def _answering(cube: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The dimensions and coordinates of a Cube, each with the names in a Focus that it follows."""
    yield from ((d, followed(d, cube["dims"])) for d in cube["dims"])
    for name, coordinate in cube["coords"].items():
        yield name, [*followed(name, cube["dims"]), *(n for d in coordinate["dims"] for n in names_of(name, d))]
