"""The ``tensorscope`` command: what there is to ask, which weights are critical, and what happens without them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tensorscope_nb import __version__
from tensorscope_nb.cli import critical_weights, perturb
from tensorscope_nb.cli.usage import Parser, is_of_use


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = Parser(prog="tensorscope", description="Look into trained models.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="recipes | critical-weights | perturb")
    recipes = commands.add_parser("recipes", help="list the recipes: name, question and source")
    recipes.set_defaults(run=lambda given, _: _recipes(), parser=recipes)
    critical_weights.add(commands)
    perturb.add(commands)
    given = parser.parse_args(arguments)
    try:
        code: int = given.run(given, arguments)
        return code
    except KeyboardInterrupt:
        sys.stderr.write(f"{given.parser.prog}: interrupted\n")
        return 130
    except Exception as error:
        if is_of_use(error):
            given.parser.error(str(error))
        raise


def _recipes() -> int:
    from tensorscope_nb.recipes import catalogue

    table = catalogue()
    width = max(map(len, table["name"]))
    for row in table.itertuples():
        sys.stdout.write(f"{row.name:<{width}}  {row.question}  ({row.source})\n")
    return 0
