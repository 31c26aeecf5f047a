"""The first notebook, saved and opened again: its views are there and linked before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

START = Path(__file__).parents[2] / "recipes" / "00_start_here.ipynb"


def test_the_first_notebook_shows_its_views_when_it_is_opened_again(open_notebook: Callable[..., Any]) -> None:
    first = open_notebook(START)
    first.run_all(timeout=180)
    views = first.page.locator("[data-ts-view]:not([data-ts-view=Composition])")
    views.first.wait_for()
    count = views.count()
    saved = first.save()
    first.call("async () => { await window.panel.sessionContext.shutdown(); }")
    again = open_notebook(saved)
    again.page.locator("[data-ts-view=HeadGrid] canvas").first.wait_for()
    again.page.wait_for_function(
        f"() => document.querySelectorAll('[data-ts-view]:not([data-ts-view=Composition])').length === {count}"
    )
    assert again.page.get_by_text("Error displaying widget").count() == 0
    canvas = again.page.locator("[data-ts-view=HeadGrid] canvas").first
    canvas.click(position={"x": 60, "y": 20})
    cursors = again.page.evaluate("[...new Set([...document.querySelectorAll('[data-ts-view]')].map(e => e.dataset.tsFocus))]")
    assert any("layer" in cursor for cursor in cursors)
