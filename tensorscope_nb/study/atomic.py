"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; what the block writes there is on the disk before it takes the place of ``path``."""
    path = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on the disk."""
    if os.name == "nt":  # opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that syncs no folders
            raise
    finally:
        os.close(handle)


@contextmanager
def explained(what: str, then: str = "earlier files are as they were") -> Iterator[None]:
    """An OSError inside says in one line what could not be written, and stays the kind of error that it is."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{what}: {error.strerror or error}; {then}") from error
