"""``tensorscope perturb``: changes listed weights of some modules, beside controls, and measures what the loss does."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorscope_nb.cli.before import Before
from tensorscope_nb.cli.experiment import MANIFEST
from tensorscope_nb.cli.model import add_model
from tensorscope_nb.cli.options import CONTROLS, METHODS, RATIOS, add_reading, add_running, ratio, whole
from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.targeted import SUMMARY, Targeted
from tensorscope_nb.cli.texts import TextFile, read_texts
from tensorscope_nb.cli.usage import UseError

VARIABLE = "TARGET_LAYER"
WORDS = """\
Changes the listed weights that are in some modules, and measures the loss on texts that the list was not made with, beside
matched random weights and the least critical ones. What is not given is taken from manifest.json beside the list."""


def add(commands: Any) -> None:
    parser = commands.add_parser("perturb", help="change the listed weights of some modules", description=WORDS)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--weights", required=True, metavar="CSV", help="a list such as out/top_100_weights_grad_x_weight.csv")
    parser.add_argument(
        "--module", nargs="+", action="extend", metavar="NAME",
        help=f"modules or parameters, or globs of them; each is a run of its own (default: those in ${VARIABLE}, parted by "
        "commas; else the whole list)",
    )  # fmt: skip
    add_model(parser, required=False, default=" (default: the model that the list was made with)")
    add_reading(parser, required=False)
    parser.add_argument("--eval-limit", type=whole(2), metavar="N", help="texts to measure with (default: as many as then)")
    parser.add_argument("--method", choices=METHODS, default="zero", help="how they are changed (default: zero)")
    parser.add_argument(
        "--ratios", nargs="+", type=ratio, default=list(RATIOS), metavar="R",
        help=f"shares of the list that are changed (default: {' '.join(map('{:g}'.format, RATIOS))})",
    )  # fmt: skip
    parser.add_argument(
        "--controls", nargs="+", choices=(*CONTROLS, "none"), default=list(CONTROLS), metavar="CONTROL",
        help=f"any of {', '.join(CONTROLS)}; or none (default: {' '.join(CONTROLS)})",
    )  # fmt: skip
    add_running(parser, seed=None)
    parser.add_argument("--out", "--output", metavar="FOLDER", help="default: perturb_MODULE beside the list")


def run(given: argparse.Namespace, command: list[str]) -> int:
    if "none" in given.controls:
        if len(given.controls) > 1:
            raise UseError(f"--controls is {' '.join(given.controls)}: none goes with no other")
        given.controls = []
    path = Path(given.weights).expanduser()
    if not path.is_file():
        raise UseError(f"there is no list {given.weights}: give a top_….csv of tensorscope critical-weights")
    before = Before.beside(path)
    modules = list(dict.fromkeys(given.module or _from_environment() or [None]))
    if given.model is None and before is None:
        raise UseError(f"there is no {MANIFEST} beside {given.weights}, so what the list is of is not known: give --model")
    file = _file(given, before)
    folder = Path(given.out).expanduser() if given.out else path.with_name(f"perturb_{_called(modules)}")
    with Session(folder, SUMMARY, "targeted_analysis.log", overwrite=given.overwrite, command=command) as session:
        lines = Targeted(given, session, path, before, file).measured(modules)
    sys.stdout.write("\n".join([*lines, f"files: {folder}"]) + "\n")
    return 0


def _file(given: argparse.Namespace, before: Before | None) -> TextFile:
    """The file that is given, read as then where it is the same; else that of the list, which must be as it was."""
    if given.data_file is None and before is None:
        raise UseError(f"there is no {MANIFEST} beside {given.weights}, so its texts are not known: give --data-file")
    if given.data_file is None and before is not None:
        return before.own_file()
    if before is not None and before.has_read(given.data_file):
        return before.read(given.data_file)
    return read_texts(given.data_file, paragraphs=given.paragraphs, field=given.text_field)


def _from_environment() -> list[str] | None:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()] or None


def _called(modules: Sequence[str | None]) -> str:
    named = "_and_".join(module or "all" for module in modules)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", named) if len(named) <= 100 else f"{len(modules)}_modules"
