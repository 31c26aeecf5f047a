from pathlib import Path
import pytest
RECIPES = Path(__file__).parents[2] / "recipes"
import os
@pytest.mark.parametrize("name", os.environ["LOOK"].split(","))
def test_look(open_notebook, name):
    path = next(RECIPES.glob(f"{name}*.ipynb"))
    lab = open_notebook(path)
    lab.page.set_viewport_size({"width": 1400, "height": int(os.environ.get("TALL","5200"))})
    lab.run_all(timeout=240)
    lab.page.wait_for_timeout(1500)
    lab.page.evaluate("document.querySelector('.jp-WindowedPanel-outer, .jp-NotebookPanel-notebook')?.scrollTo(0,0)")
    lab.page.wait_for_timeout(800)
    lab.page.screenshot(path=f"/tmp/shots/{name}.png")
