import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a file, or a view as one, in Chromium with the network shut off; anything that asks for it is noted."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        (pytest.fail if os.environ.get("TENSORSCOPE_REQUIRE_BROWSER") else pytest.skip)("no Chromium on PATH")
    from tensorscope_nb.views import export_html

    folder = tmp_path_factory.mktemp("pages")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)

        def open_page(source: Any, **options: Any) -> Any:
            path = source if isinstance(source, Path) else export_html(source, folder / "page.html", title="A page")
            context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900}, **options)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.problems = []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("console", lambda line: page.problems.append(line.text) if line.type == "error" else None)
            page.on(
                "request", lambda r: page.problems.append(r.url) if not r.url.startswith(("file:", "blob:", "data:")) else None
            )
            page.goto(path.as_uri())
            page.locator("[data-ts-focus]").first.wait_for()
            return page

        yield open_page
        browser.close()
