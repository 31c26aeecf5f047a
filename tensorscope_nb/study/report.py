"""A report of what a study holds: to read (.md), for programs (.json), and as a page with the linked dashboard (.html)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from tensorscope_nb.study.atomic import explained, whole
from tensorscope_nb.study.metadata import metadata, plain
from tensorscope_nb.study.page import write_page
from tensorscope_nb.study.summary import Row, summary


def write_report(results: Mapping[str, xr.Dataset], path: Path) -> Path:
    writers = {".md": _write_markdown, ".json": _write_json, ".html": write_page}
    if path.suffix not in writers:
        raise ValueError(
            f"the report's name is {path.name!r}: let it end in {', '.join(list(writers)[:-1])} or {list(writers)[-1]}"
        )
    if not results:
        raise ValueError("the study holds no results: run a recipe before you report")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r}: make it first")
    with explained(f"the report could not be written to {str(path)!r}", "an earlier file is as it was"), whole(path) as temporary:
        writers[path.suffix](results, temporary)
    return path


def _write_markdown(results: Mapping[str, xr.Dataset], path: Path) -> None:
    lines = ["# Study", ""]
    for name, result in results.items():
        said = summary(result)
        lines += [f"## {_markdown(name)}", ""]
        if said.partial:
            lines += [f"**Partial**: the run was interrupted; this is what it had done, {_markdown(said.partial)}.", ""]
        lines += [_markdown(said.question), ""] if said.question else []
        lines += [f"{_markdown('; '.join(said.facts))}.", ""]
        lines += [f"- Note: {_markdown(note)}" for note in said.notes] + [""] * bool(said.notes)
        lines += ["| variable | dimensions | unit | mean | lowest | highest | undefined | what it is |", "|---" * 8 + "|"]
        lines += [_markdown_row(row) for row in said.rows]
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")


def _markdown_row(row: Row) -> str:
    name = f"`{row.name}`" if re.fullmatch(r"[\w.]+", row.name) else _markdown(row.name)
    cells = [row.dims or "–", row.units, *(row.ranges or (row.holds, "", "")), row.undefined, row.meaning]
    return f"| {name} | {' | '.join(map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    """As text: no markup, no HTML, no end of a line or of a cell."""
    return re.sub(r"([\\`*_\[\]<>&|#~])", r"\\\1", " ".join(text.split()))


def _write_json(results: Mapping[str, xr.Dataset], path: Path) -> None:
    """Numbers that are not finite are null: JSON has no others."""
    said = {
        name: {"partial": bool(metadata(r).get("partial")), "metadata": metadata(r), "data": r.to_dict()}
        for name, r in results.items()
    }
    path.write_text(json.dumps(plain(said), indent=2), encoding="utf-8")
