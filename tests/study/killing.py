"""Saves in processes of their own, that stop at a given moment: to be killed there, or to go on later."""

import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorscope_nb.study.report import write_report
from tensorscope_nb.study.saving import LOCK
from tensorscope_nb.study.store import load_results, save_results

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tensorscope_nb.study.store", "h5netcdf", "study.killing"])
NOBODY = 65534


def no_sync(handle: int) -> None:
    """In place of ``os.fsync``: a process that is killed loses nothing that it wrote, and a busy disk takes its time."""


def results(mark: int, size: int = 50) -> dict[str, xr.Dataset]:
    """Two results that tell by their values who saved them."""
    values = np.full(size, mark, dtype=float)
    return {name: xr.Dataset({"value": ("x", values)}, {"x": np.arange(size)}) for name in ("first", "second")}


def marks(folder: Path) -> set[int]:
    """Who saved what is in ``folder``, all of it."""
    found = load_results(folder)
    assert list(found) == ["first", "second"]
    return {int(value) for result in found.values() for value in np.unique(result["value"])}


def _save_in_steps(folder: Path, mark: int, stop_at: int, talk: Connection) -> None:
    """Saves; at the ``stop_at``-th call that touches the disk it says which call that is, and waits."""
    calls = 0
    os.fsync = no_sync

    def stepping(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += LOCK not in str(args[0])  # others wait for one that stands there
            if calls == stop_at and LOCK not in str(args[0]):
                if name in ("write_bytes", "write_text"):
                    original(args[0], args[1][: len(args[1]) // 2], **options)
                talk.send(f"{name} {args[0]}")
                talk.recv()
            return original(*args, **options)

        setattr(owner, name, step)

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "write_bytes"), (Path, "write_text"), (Path, "unlink")):
        stepping(owner, name)
    save_results(results(mark), folder)
    talk.send("saved")


@contextmanager
def save_that_stops(folder: Path, mark: int, stop_at: int) -> Iterator[tuple[Any, Connection, str]]:
    """The process, the connection to it, and the call at which it stands (``saved`` if it made fewer)."""
    talk, theirs = processes.Pipe()
    process = processes.Process(target=_save_in_steps, args=(folder, mark, stop_at, theirs))
    process.start()
    theirs.close()
    try:
        yield process, talk, talk.recv()
    finally:
        process.kill()
        process.join()


def save_again_and_again(folder: Path, mark: int, times: int) -> None:
    os.fsync = no_sync
    for _ in range(times):
        save_results(results(mark), folder)


def _told(prepare: Callable[..., None], arguments: tuple, write: Callable[..., Any], path: Path, talk: Connection) -> None:
    prepare(*arguments)
    try:
        write(results(2, size=20_000), path)
        talk.send(("written", ""))
    except Exception as error:
        talk.send((type(error).__name__, str(error)))


def _failing(write: Callable[..., Any], path: Path, prepare: Callable[..., None], arguments: tuple) -> tuple[str, str, int]:
    talk, theirs = processes.Pipe()
    process = processes.Process(target=_told, args=(prepare, arguments, write, path, theirs))
    process.start()
    theirs.close()
    kind, text = talk.recv()
    process.join()
    return kind, text, process.exitcode


def failing_save(folder: Path, prepare: Callable[..., None], *arguments: Any) -> tuple[str, str, int]:
    """The error of a save of two large results after ``prepare``, its text, and how the process ended."""
    return _failing(save_results, folder, prepare, arguments)


def failing_report(path: Path, prepare: Callable[..., None], *arguments: Any) -> tuple[str, str, int]:
    return _failing(write_report, path, prepare, arguments)


def limit_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def become_nobody() -> None:
    if os.getuid() == 0:
        with tempfile.TemporaryDirectory() as folder:  # imports what a save imports: nobody may not read where it is
            save_results(results(1), Path(folder) / "study")
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def nothing() -> None:
    """Prepares nothing."""
