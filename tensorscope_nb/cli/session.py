"""A folder that one run of a command fills: its files, each there whole or not at all, and its log."""

from __future__ import annotations

import json
import shlex
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.usage import UseError, is_of_use

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Session:
    """The folder while the run lasts. ``last`` is the file that is written at the end, and says that all others are there."""

    def __init__(self, folder: Path, last: str, log: str, *, overwrite: bool, command: list[str]) -> None:
        self.folder, self.last = folder, last
        self.files: list[str] = []
        self.started, self._clock = now(), time.monotonic()
        self._made = not folder.exists()
        before = folder / last
        if before.exists() and not overwrite:
            raise UseError(f"{folder} holds the files of an earlier run ({last}): give another --out, or --overwrite")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if before.exists():
                _remove_earlier(before)
            self._log = open(folder / log, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise UseError(f"{folder} cannot be written to: {error.strerror or error}") from error
        self.command = shlex.join(["tensorscope", *command])
        self.files.append(log)
        self.log(self.command)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not is_of_use(error):
            self.log("".join(traceback.format_exception(error)).rstrip())
        elif error is not None:
            self.log(f"ended by {kind.__name__ if kind else ''}: {error}")
        self._log.close()
        if self._made and isinstance(error, Exception) and is_of_use(error) and len(self.files) == 1:
            (self.folder / self.files[0]).unlink()  # nothing was done: no folder is left that looks as if
            self.folder.rmdir()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._clock, 3)

    def log(self, text: str) -> None:
        self._log.write(f"{now()} {text}\n")
        self._log.flush()

    def say(self, text: str) -> None:
        """To whoever waits, and into the log."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self.log(text)

    def write(self, name: str, text: str) -> None:
        from tensorscope_nb.study.atomic import whole

        with whole(self.folder / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")
        self.files.append(name)

    def write_json(self, name: str, content: Any) -> None:
        from tensorscope_nb.study.metadata import plain

        self.write(name, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        self.write(name, table.to_csv(index=False, lineterminator="\n"))

    def write_result(self, name: str, result: xr.Dataset) -> None:
        from tensorscope_nb.study.atomic import whole

        with whole(self.folder / name) as path:
            result.to_netcdf(path, engine="h5netcdf")
        self.files.append(name)

    def finish(self, content: dict[str, Any]) -> None:
        """Writes the last file: ``content``, when the run was and how long it took, and all files."""
        times = {"started": self.started, "finished": now(), "seconds": self.seconds}
        self.write_json(self.last, content | times | {"files": [*self.files, self.last]})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _remove_earlier(last: Path) -> None:
    """What an earlier run says that it has written: a list of other sizes would stay beside the new ones."""
    try:
        files = json.loads(last.read_text(encoding="utf-8"))["files"]
    except (ValueError, LookupError, TypeError):
        files = []
    for name in [str(file) for file in files if Path(str(file)).name == file] + [last.name]:
        (last.parent / name).unlink(missing_ok=True)
