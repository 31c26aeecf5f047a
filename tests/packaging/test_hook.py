"""When the build hook builds, what it asks for, and what it says when it cannot."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.bridge.app import Application

REPOSITORY = Path(__file__).parents[2]
NPM = """#!/bin/sh
echo "$@" >> ../npm.log
case "$1" in
  ci) mkdir -p node_modules && echo {} > node_modules/.package-lock.json ;;
  run) mkdir -p ../tensorscope_nb/static && cp src/index.ts ../tensorscope_nb/static/widgets.js ;;
esac
"""
Put = Callable[[str, str], Path]


@pytest.fixture
def hatch_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("widgets/package.json", "widgets/package-lock.json", "widgets/src/deep/view.ts", "widgets/src/index.ts"):
        write(tmp_path / name, "{}", age=100)
    return tmp_path


def write(path: Path, text: str, age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts an executable on a PATH that holds nothing else but the system's own shell tools."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "mkdir", "cp", "echo"):
        (folder / name).symlink_to(next(Path(place, name) for place in ("/bin", "/usr/bin") if Path(place, name).exists()))
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> Path:
        path = write(folder / name, script)
        path.chmod(0o755)
        return path

    return put


def hook(module: ModuleType, root: Path):
    return module.FrontEndHook(str(root), {}, None, None, str(root), "wheel", Application())


def log(root: Path) -> list[str]:
    file = root / "npm.log"
    return file.read_text().splitlines() if file.exists() else []


def test_builds_only_when_a_source_is_newer(hatch_build: ModuleType, project: Path, tool: Put) -> None:
    tool("npm", NPM), tool("node", "#!/bin/sh\necho v22.1.0")
    full, bundle = ["ci --no-audit --no-fund", "run build"], project / hatch_build.BUNDLE
    hook(hatch_build, project).initialize("standard", {})
    assert log(project) == full and bundle.read_text() == "{}"
    hook(hatch_build, project).initialize("standard", {})
    assert log(project) == full

    write(project / "widgets/src/index.ts", "changed", age=-10)
    assert not hatch_build.is_fresh(project)
    hook(hatch_build, project).initialize("editable", {})
    assert log(project) == [*full, "run build"] and bundle.read_text() == "changed"

    write(project / "widgets/src/index.ts", "changed", age=50)
    write(project / "widgets/package-lock.json", "{ }", age=-10)
    hook(hatch_build, project).initialize("editable", {})
    assert log(project) == [*full, "run build", *full]


@pytest.mark.parametrize("changed", ["package.json", "package-lock.json", "src/deep/view.ts"])
def test_what_makes_a_bundle_stale(hatch_build: ModuleType, project: Path, changed: str) -> None:
    write(project / hatch_build.BUNDLE, "bundle", age=50)
    write(project / "widgets/node_modules/new.js", "")
    assert hatch_build.is_fresh(project)
    write(project / "widgets" / changed, "{}")
    assert not hatch_build.is_fresh(project)


def test_asks_for_node_only_when_needed(hatch_build: ModuleType, project: Path, tool: Put) -> None:
    assert hook(hatch_build, project).dependencies() == [hatch_build.NODE_WHEEL]
    tool("npm", NPM)
    old = tool("node", "#!/bin/sh\necho v12.22.9")
    assert hook(hatch_build, project).dependencies() == [hatch_build.NODE_WHEEL]
    old.write_text("#!/bin/sh\necho v20.19.0")
    assert hook(hatch_build, project).dependencies() == []
    old.unlink()
    write(project / hatch_build.BUNDLE, "bundle")
    assert hook(hatch_build, project).dependencies() == []


def test_an_sdist_needs_no_node(hatch_build: ModuleType, project: Path, tool: Put) -> None:
    write(project / hatch_build.BUNDLE, "bundle", age=500)
    assert not hatch_build.is_fresh(project)
    write(project / "PKG-INFO", "")
    assert hook(hatch_build, project).dependencies() == []
    hook(hatch_build, project).initialize("standard", {})
    assert (project / hatch_build.BUNDLE).read_text() == "bundle"


@pytest.mark.parametrize(
    ("npm", "says"),
    [
        (None, "npm with Node.js >= 18 is needed"),
        ("#!/bin/sh\necho cannot resolve >&2\nexit 3", "`npm ci --no-audit --no-fund` failed with exit status 3"),
        ("#!/bin/sh\nmkdir -p node_modules; echo > node_modules/.package-lock.json", "did not write tensorscope_nb/static/"),
    ],
)
def test_errors_are_one_line(
    hatch_build: ModuleType, project: Path, tool: Put, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, npm, says
) -> None:
    monkeypatch.setattr(hatch_build, "wheel_npm", lambda: None)
    if npm:
        tool("npm", npm), tool("node", "#!/bin/sh\necho v22.1.0")
    with pytest.raises(SystemExit):
        hook(hatch_build, project).initialize("standard", {})
    out, err = capsys.readouterr()
    message = [line for line in (out + err).splitlines() if line.startswith("tensorscope_nb front end: ")]
    assert len(message) == 1 and says in message[0]
