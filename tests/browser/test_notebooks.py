"""The other notebooks in a real JupyterLab: every view that a cell shows is drawn."""

from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
OTHERS = sorted(path for path in RECIPES.glob("*.ipynb") if not path.name.startswith("00_"))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_view_is_drawn(open_notebook, path):
    lab = open_notebook(path)
    lab.page.set_viewport_size({"width": 1400, "height": 2600})
    lab.run_all(timeout=120)
    views = lab.page.locator("[data-ts-view]")
    views.first.wait_for(timeout=20_000)
    lab.page.wait_for_timeout(500)
    assert views.count() >= 3
    marks = lab.page.locator("[data-ts-view] canvas, [data-ts-view] table")
    sizes = [marks.nth(i).bounding_box() for i in range(marks.count())]
    assert sizes and all(box and box["width"] > 50 and box["height"] > 20 for box in sizes)
    assert not lab.page.locator("text=Error displaying widget").count()
    lab.screenshot(path.stem)
