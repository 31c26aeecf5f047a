"""`make` on a machine that is not as it should be, and the order of the checks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on PATH")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}  # those of a make that runs these tests
    return subprocess.run(["make", *arguments], cwd=folder, env=own, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "hatch_build.py"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("goal", ["lab", "test"])
def test_an_old_python_is_refused_before_anything_is_made(folder: Path, goal: str) -> None:
    old = folder / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(folder, goal, f"PYTHON={old}")
    assert done.returncode != 0
    assert "tensorscope_nb needs Python 3.11 or newer: make PYTHON=" in done.stdout
    assert not (folder / ".venv").exists()


def test_an_installation_that_failed_is_tried_again(folder: Path) -> None:
    fake = folder / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\necho "$@" >> calls\ncase "$*" in *install*) test -e works ;; esac\n')
    fake.chmod(0o755)
    stamp, calls = ".venv/.make/lab", folder / "calls"
    assert make(folder, stamp).returncode != 0
    (folder / "works").touch()
    assert make(folder, stamp).returncode == 0
    assert calls.read_text().splitlines()[-1] == "-m pip install -c constraints.txt -e .[lab]"
    before = calls.read_text()
    assert make(folder, stamp).returncode == 0
    assert calls.read_text() == before
    (folder / "constraints.txt").write_text("# other pins")
    assert make(folder, stamp).returncode == 0
    assert calls.read_text() != before


def test_pytest_has_the_last_word(folder: Path) -> None:
    lines = make(REPOSITORY, "-n", "test").stdout.splitlines()
    checks = [
        "ruff check",
        "ruff format --check",
        "mypy",
        "typecheck",
        "npm test",
        "pytest tests/browser",
        "--ignore=tests/browser",
    ]
    order = [next(i for i, line in enumerate(lines) if check in line) for check in checks]
    assert order == sorted(order) and order[-1] == len(lines) - 1
