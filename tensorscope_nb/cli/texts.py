"""The texts of a file, each with its place in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorscope_nb.cli.usage import UseError

KINDS = (".txt", ".jsonl", ".json", ".csv")


@dataclass(frozen=True)
class Text:
    """A text, and where it stands in its file: ``line 17``, ``entry 3``."""

    place: str
    text: str


@dataclass(frozen=True)
class TextFile:
    """The texts of a file in their order, and the checksum of its bytes."""

    path: str  # as it was given
    sha256: str
    texts: list[Text]

    def at(self, places: list[str]) -> list[Text]:
        """The texts at these places."""
        there = {text.place: text for text in self.texts}
        if lost := [place for place in places if place not in there]:
            raise UseError(f"{self.path} has no {lost[0]}, which its manifest names: read it as it was read then")
        return [there[place] for place in places]


def read_texts(given: str, *, paragraphs: bool = False, field: str = "text") -> TextFile:
    """The texts of ``given``: its lines (or paragraphs), the entries of a JSON list, or the rows of a table."""
    kind = Path(given).suffix.lower()
    if kind not in KINDS:
        raise UseError(f"the data file {given} is none of {', '.join(KINDS)}: write one text to a line into a .txt")
    content = _content(given)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UseError(f"line {line} of {given} is no UTF-8: convert the file") from error
    if kind == ".txt":
        found = list(_paragraphs(text) if paragraphs else _lines(text))
    elif kind == ".csv":
        found = list(_rows(text, given, field))
    else:
        found = [_entry(place, value, given, field) for place, value in (_json if kind == ".json" else _jsonl)(text, given)]
    if not found:
        raise UseError(f"the data file {given} holds no texts")
    return TextFile(given, hashlib.sha256(content).hexdigest(), found)


def checksum(given: str) -> str:
    """The sha256 of a file's bytes."""
    return hashlib.sha256(_content(given)).hexdigest()


def _content(given: str) -> bytes:
    try:
        return Path(given).expanduser().read_bytes()
    except FileNotFoundError:
        raise UseError(f"there is no data file {given}: check the path") from None
    except OSError as error:
        raise UseError(f"the data file {given} cannot be read: {error.strerror or error}") from error


def _lines(text: str) -> Iterator[Text]:
    for number, line in _numbered(text):
        if line.strip():
            yield Text(f"line {number}", line)


def _numbered(text: str) -> list[tuple[int, str]]:
    """Lines as an editor numbers them; Python's own ``splitlines`` also cuts at form feeds and the like."""
    return list(enumerate(re.split(r"\r\n|\r|\n", text), 1))


def _paragraphs(text: str) -> Iterator[Text]:
    start, lines = 0, list[str]()
    for number, line in [*_numbered(text), (0, "")]:
        if line.strip():
            start = start or number
            lines.append(line)
        elif lines:
            yield Text(f"line {start}", "\n".join(lines))
            start, lines = 0, []


def _jsonl(text: str, given: str) -> Iterator[tuple[str, Any]]:
    for number, line in _numbered(text):
        if line.strip():
            yield f"line {number}", _parsed(line, f"line {number} of {given}")


def _json(text: str, given: str) -> Iterator[tuple[str, Any]]:
    value = _parsed(text, given)
    if not isinstance(value, list):
        raise UseError(f"{given} holds a {type(value).__name__}: give a list of texts, or of objects with a text each")
    return ((f"entry {i}", entry) for i, entry in enumerate(value))


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UseError(f"{what} is not JSON ({error})") from error


def _entry(place: str, value: Any, given: str, field: str) -> Text:
    if isinstance(value, dict):
        if field not in value:
            raise UseError(f"{place} of {given} has no field {field!r} (it has {_named(value)}): name it with --text-field")
        value = value[field]
    if not isinstance(value, str):
        raise UseError(f"{place} of {given} is a {type(value).__name__}, not a text")
    return Text(place, value)


def _rows(text: str, given: str, field: str) -> Iterator[Text]:
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB that are the default
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if field not in header:
            raise UseError(f"{given} has no column {field!r} (it has {_named(header)}): name it with --text-field")
        column, before = header.index(field), reader.line_num
        for row in reader:
            place, before = f"line {before + 1}", reader.line_num
            if row and len(row) != len(header):
                raise UseError(f"{place} of {given} has {len(row)} cells under {len(header)} columns: quote texts with commas")
            if row:
                yield Text(place, row[column])
    except csv.Error as error:
        raise UseError(f"line {reader.line_num} of {given} is no CSV ({error})") from error


def _named(names: Any) -> str:
    listed = list(map(str, names))
    return ", ".join(listed[:6]) + (" …" if len(listed) > 6 else "") if listed else "none"
