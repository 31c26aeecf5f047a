"""Other libraries, where they are installed apart: each is asked in a process of its own.

What they bring along is noticed by torch and transformers, which then work differently.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "second"


def found_by(program, libraries, *args):
    """What ``program``, a module of the tests that prints JSON, finds with ``libraries``: modules, or {name: module}."""
    modules = libraries if isinstance(libraries, Mapping) else {name: name for name in libraries}
    missing = [
        name for name, module in modules.items() if not (FOLDER / module).is_dir() and importlib.util.find_spec(module) is None
    ]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: make test puts them into {FOLDER}")
    done = subprocess.run(
        [sys.executable, program.__file__, *args],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
