"""What is wrong with how a command was called is one line and exit code 2; anything else keeps its traceback."""

from __future__ import annotations

import argparse
import os
from types import TracebackType
from typing import NoReturn

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class UseError(Exception):
    """The command was asked for what cannot be done; the one-line message says what, and what to do."""


class Parser(argparse.ArgumentParser):
    """Says in one line what was wrong, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def is_of_use(error: Exception) -> bool:
    """Whether an error tells what was asked for wrongly, as those that this package raises on purpose do.

    What another library raised on the way, and what Python raises itself where a program is wrong, is none of these.
    """
    from tensorscope_nb.errors import UnsupportedModel

    if isinstance(error, UseError):
        return True
    if isinstance(error, KeyError | IndexError | UnicodeError):
        return False
    told = (ValueError, LookupError, OSError, ImportError, UnsupportedModel)
    return isinstance(error, told) and "\n" not in str(error) and _raised_here(error.__traceback__)


def _raised_here(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE + os.sep)
