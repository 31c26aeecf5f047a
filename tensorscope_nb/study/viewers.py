"""The views that stand open on a study while it runs, and the thread in which a view runs it."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from tensorscope_nb.views.live import Live


class Viewers:
    """Hears of a run, shows it in every view, and can be told to stop it."""

    def __init__(self) -> None:
        self._views: weakref.WeakSet[Live] = weakref.WeakSet()
        self._shown: dict[str, xr.Dataset] = {}
        self._stop = threading.Event()
        self._turn = threading.Lock()

    def view(self, results: Mapping[str, xr.Dataset], run: Callable[[], Any] | None) -> Live:
        """A view of the results, which has a Run button where ``run`` is given."""
        from tensorscope_nb.views.live import Live

        live = Live(start=None if run is None else lambda: self._start(run), stop=self._stop.set)
        self._views.add(live)
        self._shown = {**results, **self._shown}  # a run that goes on has newer ones
        if self._shown:
            live.show(self._shown)
        return live

    @contextmanager
    def running(self, results: Mapping[str, xr.Dataset]) -> Iterator[None]:
        """Around one run, which changes ``results``: one at a time; at its end every view shows them, and says how it ended."""
        if not self._turn.acquire(blocking=False):
            raise ValueError("this study is running already: wait for it, or stop it")
        try:
            yield
        except KeyboardInterrupt:
            self._finish(results, "stopped", "stopped: the results are of what was done")
            raise
        except BaseException as error:
            self._finish(results, "failed", f"{type(error).__name__}: {error}".partition("\n")[0])
            raise
        else:
            self._finish(results, "done", "")
        finally:
            self._stop.clear()
            self._turn.release()

    def progress(self, done: float, text: str) -> None:
        for live in list(self._views):
            live.report(done, text)
        if self._stop.is_set():
            raise KeyboardInterrupt

    def show(self, results: Mapping[str, xr.Dataset]) -> None:
        self._shown |= results
        for live in list(self._views):
            live.show(self._shown)

    def _start(self, run: Callable[[], Any]) -> None:
        """In a thread of its own, with the options that hold here; how it ends stands in the views."""

        def work() -> None:
            try:
                run()
            except (Exception, KeyboardInterrupt):
                return  # the views say it

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name="tensorscope study", daemon=True).start()

    def _finish(self, results: Mapping[str, xr.Dataset], state: Any, text: str) -> None:
        self._shown = dict(results)
        for live in list(self._views):
            if results:
                live.show(self._shown)
            live.finish(state, text)
