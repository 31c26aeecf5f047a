"""Several processes that save into one folder: all may write at once, and one that is alone clears up.

Every save holds a shared lock on a file in the folder, which the system drops when its process ends, however it ends. Nobody
waits for another's save, and there is no rule for how old a lock must be to be dead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".tensorscope-lock"


@contextmanager
def beside_others(folder: Path, leftovers: Callable[[], list[Path]]) -> Iterator[None]:
    """The block is one save into ``folder``; at its end, also a bad one, ``leftovers`` go if no other save is under way.

    Where the system or the file system has no locks nobody is known to be alone, and nothing is removed.
    """
    path = folder / LOCK
    lock = _shared(path)
    try:
        yield
    finally:
        if lock is not None:
            for left in _alone(lock, path, leftovers):
                with suppress(OSError):  # the next save tries again
                    left.unlink()


def _alone(lock: int, path: Path, leftovers: Callable[[], list[Path]]) -> list[Path]:
    """The leftovers, listed while nobody saves: what is none's then is none's ever after, so only the listing holds the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = leftovers()
        path.unlink()
        return found
    except OSError:  # a save is under way
        return []
    finally:
        os.close(lock)


def _shared(path: Path) -> int | None:
    while fcntl is not None:
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            with suppress(PermissionError):  # another user made it
                os.fchmod(lock, 0o666)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        except FileNotFoundError:
            pass  # the one who cleared up has removed the file that this lock is on
        except OSError:
            path.unlink(missing_ok=True)
            os.close(lock)
            return None
        os.close(lock)
    return None
