"""What training samples taught and what tickets are worth, in a real JupyterLab: the page and the kernel look at one place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from views.synthetic import tracin
from views.test_influence_page import order, ranking

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
TRACIN = """
import tensorscope_nb as ts
ds = tracin(length=12)
view = ts.view(ds)
view
"""
CURVES = "curves = ts.view(tickets())\ncurves"
SET = "view.focus.update({'test_sample': 'test-5', 'test_position': 3, 'sample': None})"
TAKEN = "sorted(view.focus.selection(ds).items())"


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Any:
    notebook = open_notebook([SYNTHETIC, TRACIN, CURVES, SET])
    notebook.page.set_viewport_size({"width": 1400, "height": 2600})
    for cell in range(3):
        notebook.run_cell(cell, timeout=90)
    notebook.page.locator("[data-ts-view=Timeline]").nth(2).wait_for()
    return notebook


def test_the_page_and_the_kernel_rank_for_the_same_test_sample(lab: Any) -> None:
    ds = tracin(length=12)
    part = lambda kind, i=0: lab.page.locator(f"[data-ts-view={kind}]").nth(i)
    at = lambda kind: json.loads(part(kind).get_attribute("data-ts-focus"))
    table = part("SampleTable")
    canvas = part("Matrix").locator("canvas")
    canvas.focus()
    for key in ("Enter", "ArrowRight", "ArrowRight"):
        lab.page.keyboard.press(key)
    assert at("SampleTable") == {"sample": "train-0", "test_sample": "test-2"}
    lab.wait_python(TAKEN, [("sample", "train-0"), ("test_sample", "test-2")])
    lab.run_cell(3)
    table.get_by_text("test sample test-5 · test position 3").wait_for()
    ranked = order(ds["token_influence"].sel(test_sample="test-5", test_position=3))
    assert at("TokenStrip") == {"test_sample": "test-5", "test_position": 3} and ranking(table)[:5] == ranked[:5]
    table.locator("tbody tr[data-row]").nth(2).click()
    lab.wait_python(TAKEN, [("sample", ranked[2]), ("test_position", 3), ("test_sample", "test-5")])
    part("Timeline").locator("canvas").focus()
    lab.page.keyboard.press("Enter")
    lab.page.keyboard.press("ArrowRight")
    lab.wait_python("dict(curves.focus)", {"sparsity": 0.8})
    assert lab.console_errors == []
