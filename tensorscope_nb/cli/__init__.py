"""The ``tensorscope`` command."""

from tensorscope_nb.cli.main import main

__all__ = ["main"]
