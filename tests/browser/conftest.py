import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

import nbformat
import pytest
from browser.labpage import LabServer, NotebookPage, notebook_of
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
LIMIT = 300

Opener = Callable[..., NotebookPage]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        reason = "no Chromium on PATH (Debian: apt-get install --no-install-recommends chromium fonts-dejavu)"
        if os.environ.get("TENSORSCOPE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_server(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    server = LabServer(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """A page whose JavaScript never returns would hold the test for ever: no wait inside the page can end it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"a browser test took more than {LIMIT} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def open_notebook(chromium: Browser, lab_server: LabServer, request: pytest.FixtureRequest) -> Iterator[Opener]:
    """`open_notebook(source)`: a path, a notebook node, or a list of cell sources, opened with its kernel ready."""
    opened: list[NotebookPage] = []

    def open_one(source: str | Path | nbformat.NotebookNode | Iterable[str], timeout: float = 90) -> NotebookPage:
        if isinstance(source, str | Path):
            notebook = nbformat.read(source, as_version=4)
        elif isinstance(source, nbformat.NotebookNode):
            notebook = source
        else:
            notebook = notebook_of(source)
        name = f"{request.node.name.replace('/', '-')}-{len(opened)}.ipynb"
        nbformat.write(notebook, lab_server.root / name)
        context = chromium.new_context(viewport={"width": 1400, "height": 1000})
        try:
            opened.append(NotebookPage(context.new_page(), lab_server, name, timeout))
        except BaseException:
            context.close()
            raise
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()
