"""Options that several commands have, and the kinds of value that they take."""

from __future__ import annotations

import argparse
from collections.abc import Callable

METRICS = ("grad_x_weight", "grad_squared", "hessian_diag", "magnitude")
METHODS = ("zero", "sign_flip", "gaussian", "scale", "bit_flip")
CONTROLS = ("random", "bottom")
RATIOS = (0.1, 0.25, 0.5, 0.75, 1.0)


def whole(least: int) -> Callable[[str], int]:
    """A whole number that is not too small."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return value

    return read


def ratio(text: str) -> float:
    """A share of the list."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of the list: give numbers above 0 and up to 1")
    return value


def add_reading(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """How a file is read."""
    parser.add_argument(
        "--data-file", required=required, metavar="F",
        help=".txt (one text to a line; empty lines are skipped), .jsonl or .json (texts, or objects with a field text), or "
        ".csv (a column text)" + ("" if required else " (default: the file that the list was made with)"),
    )  # fmt: skip
    parser.add_argument("--paragraphs", action="store_true", help="texts of a .txt are parted by empty lines, not by lines")
    parser.add_argument("--text-field", default="text", metavar="NAME", help="field or column of the text (default: text)")
    parser.add_argument("--max-length", type=whole(2), metavar="N", help="cut texts after N tokens; nothing else cuts them")
    parser.add_argument("--skip-short", action="store_true", help="leave out texts of fewer than two tokens, and count them")


def add_running(parser: argparse.ArgumentParser, *, seed: int | None = 0) -> None:
    parser.add_argument("--n-seeds", type=whole(1), default=5, metavar="N", help="random controls at each ratio (default: 5)")
    parser.add_argument(
        "--first-order",
        action="store_true",
        help="predict by the gradient alone, without the curvature: about a fifth of the time",
    )
    usual = "that of the list" if seed is None else str(seed)
    parser.add_argument("--seed", type=whole(0), default=seed, metavar="N", help=f"of every random choice (default: {usual})")
    parser.add_argument(
        "--memory", type=whole(1), default=1, metavar="GIB",
        help="memory that one large thing may take; intervals take 8 gradients (default: 1)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in that folder")
