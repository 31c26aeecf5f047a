"""Live: a dashboard that fills in while its results are computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import traitlets as t

from tensorscope_nb.views.base import Composition, View, references
from tensorscope_nb.views.cube import MEGABYTE
from tensorscope_nb.views.dashboard import arranged, by_sample, pieces, table
from tensorscope_nb.views.focus import Focus

if TYPE_CHECKING:
    import xarray as xr

#: What one result may send to the page in a second while it is computed; attention patterns would fill the line.
RATE = 8 * MEGABYTE


class Live(View):
    """A dashboard of results that are still coming; empty until the first.

    ``start`` puts a Run button above it, ``stop`` a Stop button while it runs. Both are called on a thread of their own and
    return at once. Whoever computes calls :meth:`show`, :meth:`report` and, at the end, :meth:`finish`, from any thread.

    >>> import numpy as np, xarray as xr
    >>> live = Live()
    >>> live
    Live(no results yet)
    >>> live.report(0.5, "heads: 1 of 2 samples")
    >>> live.show({"heads": xr.Dataset({"score": (("layer", "head"), np.eye(2, 4))})})
    >>> live.finish("done", "2 samples in 0.1 s")
    >>> live
    Live(HeadGrid(score))
    """

    children: Any = t.List().tag(sync=True, to_json=references)
    #: What the bar above the dashboard says.
    status = t.Dict().tag(sync=True)

    def __init__(
        self,
        *,
        start: Callable[[], None] | None = None,
        stop: Callable[[], None] | None = None,
        focus: Focus | None = None,
    ) -> None:
        self.children = []
        self.status = {"state": "idle", "done": 0.0, "text": "", "start": start is not None, "stop": stop is not None}
        super().__init__(focus=focus)
        self._start, self._stop = start, stop
        self._lock = threading.RLock()
        self._shown: dict[str | None, _Shown] = {}
        self.on_msg(self._clicked)

    def show(self, results: Mapping[str, xr.Dataset]) -> None:
        """Show these results: new values in the views that are there, further views for what is new."""
        with self._lock:
            sources: dict[str | None, xr.Dataset] = {name: results[name] for name in results}
            samples = by_sample(results)
            if samples is not None:
                sources[None] = samples
            former = self._shown
            hurry = self.status["state"] != "running"
            kept = {name: former[name] for name, ds in sources.items() if name in former and former[name].takes(ds, hurry)}
            self._shown = {
                name: kept.get(name) or _Shown(ds, by_samples=name is None, focus=self.focus) for name, ds in sources.items()
            }
            gone = [shown for name, shown in former.items() if name not in kept]
            if any(shown.views for name, shown in (*self._shown.items(), *former.items()) if name not in kept):
                self._arrange()
            for shown in gone:
                shown.close()

    def report(self, done: float, text: str) -> None:
        """How far it is, from 0 to 1, and one line about it."""
        with self._lock:
            self.status = {**self.status, "state": "running", "done": min(1.0, max(0.0, float(done))), "text": text}

    def finish(self, state: Literal["done", "stopped", "failed"], text: str) -> None:
        """Nothing more comes: all of it is there, someone stopped it, or it failed for this one-line reason."""
        if state not in ("done", "stopped", "failed"):
            raise ValueError(f"finish takes done, stopped or failed; {state!r} came")
        with self._lock:
            for shown in self._shown.values():
                shown.catch_up()
            self.status = {**self.status, "state": state, "done": 1.0 if state == "done" else self.status["done"], "text": text}

    @property
    def parts(self) -> list[View]:
        """The single views of the dashboard, in reading order."""
        return [part for child in self.children for part in child.parts]

    def __repr__(self) -> str:
        return f"Live({self.children[0]!r})" if self.children else "Live(no results yet)"

    def _arrange(self) -> None:
        former = self.children
        made = arranged(view for shown in self._shown.values() for view in shown.views)
        self.children = [] if made is None else [made]
        for view in former:
            _dissolve(view)

    def _clicked(self, _: Any, content: Any, __: Any) -> None:
        asked = content.get("ask")
        running = self.status["state"] == "running"
        try:
            if asked == "start" and self._start is not None and not running:
                self.report(0, "starting")
                self._start()
            elif asked == "stop" and self._stop is not None and running:
                self._stop()
        except Exception as error:
            self.finish("failed", " ".join(f"{type(error).__name__}: {error}".split()))


class _Shown:
    """The views of one result, and what they can take."""

    def __init__(self, ds: xr.Dataset, *, by_samples: bool, focus: Focus) -> None:
        self.form, self.sizes = _form(ds), dict(ds.sizes)
        # a Dataset of its own has a Cube of its own: what others view of this result does not change under their hands
        own = ds.copy(deep=False)
        self.views = table(own, focus=focus) if by_samples else pieces(own, focus=focus)
        self.waiting: xr.Dataset | None = None
        self.due = 0.0
        self._sent()

    def takes(self, ds: xr.Dataset, hurry: bool) -> bool:
        """Whether the views can show this in place; if so they do, now or (a heavy one, unless there is a hurry) later."""
        if _form(ds) != self.form:
            return False
        if not self.views:
            return dict(ds.sizes) == self.sizes
        self.waiting = ds
        try:
            if hurry or time.monotonic() >= self.due:
                self.catch_up()
        except ValueError:  # grown beyond what a page takes
            return False
        return True

    def catch_up(self) -> None:
        """Show what waits."""
        if self.waiting is not None:
            self.views[0].cube.update(self.waiting)
            self.waiting = None
            self._sent()

    def _sent(self) -> None:
        if self.views:
            self.due = time.monotonic() + self.views[0].cube.nbytes / RATE

    def close(self) -> None:
        cubes = {view.cube for view in self.views}
        for widget in (*self.views, *cubes):
            widget.close()


def _form(ds: xr.Dataset) -> dict[str, tuple[Any, str]]:
    """What decides which views fit: the variables, their dimensions and their kinds, but no sizes."""
    kinds = {"u": "i", "U": "O", "S": "O", "T": "O"}
    return {str(name): (v.dims, kinds.get(v.dtype.kind, v.dtype.kind)) for name, v in ds.variables.items()}


def _dissolve(view: View) -> None:
    """Close the compositions that held the views; the views go on."""
    if isinstance(view, Composition):
        for child in view.children:
            _dissolve(child)
        view.close()
