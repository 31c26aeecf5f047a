"""Which files make a history, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tensorscope_nb.models.stored import SUFFIXES, is_saved, read
from tensorscope_nb.models.told import step_in_name, step_of

OTHER = re.compile(r"(?:optimizer|scheduler|scaler|rng_state.*|training_args)")  # what the Trainer saves beside a model

NUMBERED = re.compile(r"checkpoint-\d+")  # how the Trainer calls a checkpoint


def checkpoints_in(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The checkpoints that are meant: of a folder in the order of their steps, of a list as they are given."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"there is no folder or file {str(source)!r}: check the path")
        return _in_folder(path) if path.is_dir() and not _is_one(path) else [path]
    if not isinstance(source, Sequence) or not all(isinstance(path, str | Path) for path in source):
        kind = type(source).__name__
        raise TypeError(f"checkpoints come from a folder or a list of paths, and a {kind} came that is neither")
    if not source:
        raise ValueError("the list of checkpoints is empty: give at least one file")
    return [Path(path).expanduser() for path in source]


def _is_one(folder: Path) -> bool:
    return is_saved(folder) and not _saved_in(folder)


def _saved_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and is_saved(path) and step_in_name(path) is not None]


def _in_folder(folder: Path) -> list[Path]:
    """The folders of the Trainer, beside which the final model may lie; else the files."""
    there = sorted(folder.iterdir())
    files = [path for path in there if not path.is_dir() and path.suffix in SUFFIXES and not OTHER.fullmatch(path.stem)]
    if lost := [path for path in files if not path.exists()]:
        raise FileNotFoundError(f"{lost[0]} is a link to what is not there: fetch the file again, or remove the link")
    if saved := _saved_in(folder):
        empty = [path for path in there if path.is_dir() and path not in saved and NUMBERED.fullmatch(path.name)]
        if empty:
            raise FileNotFoundError(f"{empty[0]} holds no weights, and others beside it do: save it again, or remove it")
        if more := [path for path in files if step_in_name(path) is not None]:
            raise ValueError(f"{folder} has folders of checkpoints and the file {more[0].name}: give a list of those meant")
        return _ordered(saved)
    if not files:
        names = [path.name for path in there]
        held = f"it holds {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else "it is empty"
        raise FileNotFoundError(
            f"{folder} has no checkpoints: {held}; give {', '.join(SUFFIXES)} files, or checkpoint-500 folders"
        )
    return _ordered(files)


def _ordered(paths: list[Path]) -> list[Path]:
    named = {path: step_in_name(path) for path in paths}
    return sorted(paths, key=lambda path: (step_of(path, read(path).steps) if named[path] is None else named[path], path.name))
