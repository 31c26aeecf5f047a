"""What the manifest beside a list of weights says of how the list came to be."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tensorscope_nb.cli.experiment import FORMAT, MANIFEST
from tensorscope_nb.cli.texts import Text, TextFile, checksum, read_texts
from tensorscope_nb.cli.usage import UseError


@dataclass(frozen=True)
class Before:
    """What the manifest beside a list says: how the list came to be."""

    path: Path
    model: dict[str, Any]
    data: dict[str, Any]
    calibration: dict[str, Any]
    evaluation: dict[str, Any]
    seed: int
    versions: dict[str, str]

    @classmethod
    def beside(cls, weights: Path) -> Before | None:
        path = weights.with_name(MANIFEST)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            said = {field.name: found[field.name] for field in fields(cls) if field.name != "path"}
            if found["format"] != FORMAT:
                raise LookupError
        except (ValueError, LookupError, TypeError):
            raise UseError(f"{path} is damaged, or of another program: move it away, and give --model and --data-file") from None
        return cls(path, **said)

    def read(self, given: str) -> TextFile:
        """The texts of a file, as those of its own were read."""
        return read_texts(given, paragraphs=self.data["paragraphs"], field=self.data["text_field"])

    def has_read(self, given: str) -> bool:
        """Whether a file has the bytes of that which the list was made with."""
        return checksum(given) == self.data["sha256"]

    def own_file(self) -> TextFile:
        """The file that the list was made with, as it was."""
        path = self.data["path"]
        if not Path(path).expanduser().is_file():
            raise UseError(f"there is no {path}, the data file that {self.path} names: give --data-file, or go where it is")
        if not self.has_read(path):
            raise UseError(
                f"{path} is not what it was when the list was made (its sha256 is not that in {self.path}): put it back, or "
                "give --data-file to measure with other texts"
            )
        return self.read(path)

    def ranked_with(self, file: TextFile) -> list[Text]:
        return file.at(self.calibration["places"])

    def measured_with(self, file: TextFile) -> list[Text]:
        return file.at(self.evaluation["places"])
