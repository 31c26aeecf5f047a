"""``tensorscope recipes``: what there is to ask, from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tensorscope", description="Look into trained models.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("recipes", help="list the recipes: name, question and source")
    parser.parse_args(arguments)
    return _recipes()


def _recipes() -> int:
    from tensorscope_nb.recipes import catalogue

    table = catalogue()
    width = max(map(len, table["name"]))
    for row in table.itertuples():
        sys.stdout.write(f"{row.name:<{width}}  {row.question}  ({row.source})\n")
    return 0
