"""The tested versions are allowed by pyproject.toml, and Binder and the front end's lock file agree with them."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PIN = re.compile(r"^\s*(?:- )?([A-Za-z0-9._-]+)==([^\s+]+)(?:\+cpu)?\s*$", re.MULTILINE)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]


def pins(file: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in PIN.findall((REPOSITORY / file).read_text())}


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS])
def test_every_direct_dependency_is_pinned_within_its_bounds(line: str) -> None:
    requirement = Requirement(line)
    assert Version(pins("constraints.txt")[canonicalize_name(requirement.name)]) in requirement.specifier


def test_constraints_hold_nothing_but_pins() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0].startswith("torch==")
    assert len(pins("constraints.txt")) == len(lines)


def test_binder_pins_what_was_tested() -> None:
    binder, tested = pins("binder/environment.yml"), pins("constraints.txt")
    assert {"torch", "jupyterlab", "ipykernel", "ipywidgets", "anywidget"} <= set(binder)
    assert binder == {name: tested[name] for name in binder}
    text = (REPOSITORY / "binder/environment.yml").read_text()
    assert f"torch=={tested['torch']}+cpu" in text
    assert len(binder) == text.count("==")
    assert Version(re.search(r"python=([\d.]+)", text)[1]) in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_binder_saves_widget_state() -> None:
    overrides = json.loads((REPOSITORY / "binder/overrides.json").read_text())
    assert overrides["@jupyter-widgets/jupyterlab-manager:plugin"] == {"saveState": True}
    script = REPOSITORY / "binder/postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "binder/overrides.json" in script.read_text()


def test_no_file_names_an_address_but_that_of_the_cpu_builds() -> None:
    files = ["widgets/package-lock.json", "constraints.txt", "binder/environment.yml", "pyproject.toml", "Makefile", ".ci/run"]
    allowed = "https://download.pytorch.org/whl/cpu"
    addresses = {name: re.findall(r"https?://\S+|\"resolved\"", (REPOSITORY / name).read_text()) for name in files}
    assert {name: found for name, found in addresses.items() if set(found) - {allowed}} == {}
