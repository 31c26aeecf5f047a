"""What a user installs: the contents of the wheel and of the sdist."""

import email
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "tensorscope_nb"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(built: Path) -> set[str]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames()}


def shipped() -> dict[str, bytes]:
    """Every file of the package that runs or is read at run time."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(REPOSITORY).as_posix(): path.read_bytes() for path in files}


def test_the_wheel_is_the_package_and_its_licence(wheel: dict[str, bytes]) -> None:
    expected = shipped()
    assert {name: data for name, data in wheel.items() if ".dist-info/" not in name} == expected
    assert wheel["tensorscope_nb-0.1.0.dist-info/licenses/LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
    assert wheel["tensorscope_nb/static/widgets.js"]
    assert any(name.startswith("tensorscope_nb/models/data/") and name.endswith(".safetensors") for name in wheel)
    assert any(name.startswith("tensorscope_nb/samples/data/") and name.endswith(".bz2") for name in wheel)


def test_the_metadata_promises_what_pyproject_says(wheel: dict[str, bytes]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    metadata = email.message_from_bytes(wheel["tensorscope_nb-0.1.0.dist-info/METADATA"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(required) == len(project["dependencies"])
    assert not any("node" in line for line in required)


def test_the_sdist_builds_without_node(sdist: set[str]) -> None:
    assert set(shipped()) <= sdist
    assert {"hatch_build.py", "pyproject.toml", "LICENSE", "PKG-INFO", "widgets/package-lock.json"} <= sdist
    assert not [name for name in sdist if "node_modules" in name or name.startswith((".venv", ".git/", "screenshots"))]
