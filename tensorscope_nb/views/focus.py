"""The Focus: the place that everyone is looking at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as t

from tensorscope_nb.views.rules import Cursor, Selection, plain, selection
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
    """

    def __init__(self, **selections: Any) -> None:
        self.model = FocusModel()
        self._observers: list[Observer] = []
        self._lock = threading.RLock()
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

    def update(self, selections: Mapping[str, Any]) -> None:
        """Set several selections in one message; None clears one."""
        for dim in selections:
            if not isinstance(dim, str):
                raise TypeError(f"a Focus selects by dimension name; {dim!r} came")
        changes = {dim: plain(value) for dim, value in selections.items()}
        # callbacks from the page run on a thread of their own
        with self._lock:
            merged = {**self.model.cursor, **changes}
            self.model.cursor = {dim: value for dim, value in merged.items() if value is not None}

    def clear(self) -> None:
        """Select nothing."""
        with self._lock:
            self.model.cursor = {}

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
        other.model, other._observers, other._lock = self.model, self._observers, self._lock
        if missing:
            self.update(missing)

    def _tell(self, change: Any) -> None:
        for fn in list(self._observers):
            fn(dict(change["new"]))

    def __repr__(self) -> str:
        return f"Focus({', '.join(f'{dim}={value!r}' for dim, value in self.cursor.items())})"
