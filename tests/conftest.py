import os
from pathlib import Path

# Before torch is imported: one thread per process, or the workers of pytest-xdist fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

# A deadline in milliseconds fails by what else the machine is doing.
hypothesis.settings.register_profile("tensorscope", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("tensorscope")

BROWSER = Path(__file__).parent / "browser"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests run last: while playwright's loop is alive, other tests of the process cannot use asyncio."""
    for item in items:
        if BROWSER in item.path.parents:
            item.add_marker("browser")
    items.sort(key=lambda item: BROWSER in item.path.parents)
