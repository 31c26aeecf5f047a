"""A real JupyterLab server, and a notebook open in it in a real browser."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Page

REPOSITORY = Path(__file__).parents[2]
SCREENSHOTS = REPOSITORY / "screenshots"
LIGHT = "JupyterLab Light"

# Cells out of view stay in the page, so that a test finds a view wherever it is.
SETTINGS = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}

# `page.evaluate` has no time limit of its own.
RACE = """async ([argument, ms, what]) => {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`${what}: not done after ${ms / 1000} s`)), ms));
  return Promise.race([(%s)(argument), late]);
}"""

OPEN = """async path => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  await panel.context.ready;
  await panel.sessionContext.ready;
  const kernel = panel.sessionContext.session.kernel;
  await kernel.info;
  while (kernel.connectionStatus !== 'connected' || kernel.status !== 'idle')
    await new Promise(resolve => setTimeout(resolve, 20));
  app.shell.activateById(panel.id);
  app.shell.collapseLeft();
  window.panel = panel;
  window.runs = {};
}"""

START_CELL = """index => {
  const {app, panel} = {app: window.jupyterapp, panel: window.panel};
  app.shell.activateById(panel.id);
  panel.content.deselectAll();
  panel.content.activeCellIndex = index;
  window.runs[index] = app.commands.execute('notebook:run-cell');
}"""

EVALUATE = """async expression => {
  const kernel = window.panel.sessionContext.session.kernel;
  const request = {code: '', silent: true, store_history: false, user_expressions: {r: `repr(${expression})`}};
  return (await kernel.requestExecute(request).done).content.user_expressions.r;
}"""

ERRORS = """() => window.panel.content.widgets.flatMap((cell, index) =>
  (cell.model.sharedModel.toJSON().outputs ?? []).filter(o => o.output_type === 'error').map(o => ({
    cell: index, name: o.ename, value: o.evalue, traceback: o.traceback.join('\\n').replace(/\\x1b\\[[0-9;]*m/g, '')})))"""


class CellError(AssertionError):
    """A cell of the notebook raised."""


class LabServer:
    """JupyterLab on a free port of this machine, with settings, workspaces and files of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "files"
        self.root.mkdir(parents=True)
        settings = folder / "settings"
        shipped = json.loads((REPOSITORY / "binder" / "overrides.json").read_text())
        for plugin, values in {**shipped, **SETTINGS}.items():
            package, name = plugin.split(":")
            file = settings / package / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        private = {
            "JUPYTERLAB_SETTINGS_DIR": settings,
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "JUPYTER_CONFIG_DIR": folder / "config",
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "IPYTHONDIR": folder / "ipython",
        }
        environment = {**os.environ, **{name: str(path) for name, path in private.items()}}
        environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "jupyter.log"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"]
        command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", "--ServerApp.terminals_enabled=False"]
        command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly", "--LabApp.news_url=None"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/api/status", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        self.process.terminate()  # the kernels are gone by now: it sometimes waits 15 s for nothing
        try:
            self.process.wait(4)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)


def notebook_of(cells: Iterable[str]) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


class NotebookPage:
    """A notebook open in JupyterLab with a kernel that is ready. Every wait has a time limit, in seconds."""

    def __init__(self, page: Page, server: LabServer, path: str, timeout: float) -> None:
        self.page = page
        self.path = server.root / path
        self.themed = False
        self.console_errors: list[str] = []
        page.on("pageerror", lambda error: self.console_errors.append(str(error)))
        page.on("console", lambda line: self.console_errors.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(15_000)
        page.goto(f"{server.url}/lab?reset", timeout=timeout * 1000)
        page.wait_for_function("() => window.jupyterapp", timeout=timeout * 1000)
        self.call(OPEN, path, timeout=timeout, what=f"opening {path}")
        page.locator("#jupyterlab-splash").wait_for(state="detached")

    def call(self, function: str, argument: Any = None, *, timeout: float = 15, what: str = "the page") -> Any:
        """The awaited result of a JavaScript function of one argument."""
        return self.page.evaluate(RACE % function, [argument, timeout * 1000, what])

    def run_all(self, timeout: float = 120) -> None:
        """Runs every cell, waits for the last, and raises CellError if one failed."""
        self.call("() => window.jupyterapp.commands.execute('notebook:run-all-cells')", timeout=timeout, what="running all cells")
        self.check()

    def start_cell(self, index: int) -> None:
        """Starts one cell and returns at once."""
        self.call(START_CELL, index, what=f"starting cell {index}")

    def wait_cell(self, index: int, timeout: float = 60) -> None:
        """Waits for a started cell, and raises CellError if it failed."""
        self.call("async index => { await window.runs[index]; }", index, timeout=timeout, what=f"cell {index}")
        self.check(index)

    def run_cell(self, index: int, timeout: float = 60) -> None:
        self.start_cell(index)
        self.wait_cell(index, timeout)

    def python(self, expression: str, timeout: float = 30) -> Any:
        """The value of an expression in the kernel, which must be a literal; waits for a running cell."""
        reply = self.call(EVALUATE, expression, timeout=timeout, what=f"evaluating {expression}")
        if reply["status"] != "ok":
            raise CellError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        return ast.literal_eval(ast.literal_eval(reply["data"]["text/plain"]))

    def wait_python(self, expression: str, value: Any, timeout: float = 15) -> None:
        """Waits until an expression has this value: what a view sends arrives by a subshell, and not before the next request."""
        deadline = time.monotonic() + timeout
        while (found := self.python(expression, timeout)) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} is {found!r}, not {value!r}, after {timeout} s")
            time.sleep(0.05)

    def kernel_status(self) -> str:
        return self.call("() => window.panel.sessionContext.session.kernel.status")

    def interrupt(self) -> None:
        self.call("() => window.panel.sessionContext.session.kernel.interrupt()")

    def save(self) -> nbformat.NotebookNode:
        """Saves the notebook and returns what is now in the file."""
        self.call("async () => { await window.panel.context.save(); }", what="saving")
        return nbformat.read(self.path, as_version=4)

    def errors(self) -> list[dict[str, Any]]:
        """The error outputs of the cells: {cell, name, value, traceback}."""
        return self.call(ERRORS)

    def check(self, index: int | None = None) -> None:
        failed = [error for error in self.errors() if index in (None, error["cell"])]
        if failed:
            raise CellError("\n".join(f"cell {error['cell']}: {error['traceback']}" for error in failed))

    def cell(self, index: int) -> Any:
        """A playwright locator for a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def set_theme(self, name: str) -> None:
        """'JupyterLab Light', 'JupyterLab Dark' or 'JupyterLab Dark High Contrast'."""
        self.call("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name, what=name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        self.themed = name != LIGHT

    def screenshot(self, name: str, **options: Any) -> Path:
        """Saves screenshots/<name>.png in the repository."""
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, **options)
        return path

    def close(self) -> None:
        try:
            if self.themed:  # it is a setting of the server
                self.set_theme(LIGHT)
            self.call("async () => { await window.panel.sessionContext.shutdown(); }", what="shutting the kernel down")
        finally:
            self.page.context.close()
