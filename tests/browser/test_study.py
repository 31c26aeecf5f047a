"""A Study run from its view and from a cell, in a real JupyterLab: what is measured appears while it is measured."""

from typing import Any

import pytest

pytestmark = pytest.mark.browser

MODEL = """
import tensorscope_nb as ts
tiny = ts.load("tiny")
texts = ts.datasets.shakespeare(tiny, n=24, length=64)
masses = ts.recipes.grouped_fisher.using(granularity="head", per_sample=True, chunk=2, name="masses")
health = ts.recipes.gradient_health.using(per_sample=True, chunk=2)
"""
ONE = """
study = ts.Study(tiny, ts.datasets.repeats(tiny, n=424, period=60))
study.view(masses, health)
"""
ALONG = """
along = ts.Study(ts.checkpoints("tiny"), texts)
along.view()
"""


@pytest.fixture
def lab(open_notebook: Any) -> Any:
    notebook = open_notebook([MODEL, ONE, ALONG, "along.run(masses, health)"])
    notebook.run_cell(0)
    return notebook


def test_a_run_from_the_view_is_stopped_and_keeps_what_it_has(lab: Any) -> None:
    page = lab.page
    page.set_viewport_size({"width": 1400, "height": 1500})
    lab.run_cell(1)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator("[data-ts-view=HeadGrid] .ts-partial").first.wait_for()
    line = page.locator("[data-ts-run=running] .ts-run-line")
    assert " of 424" in line.text_content()
    assert lab.python("1 + 1") == 2  # the kernel answers meanwhile
    lab.screenshot("study-running")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("[data-ts-run=stopped]").wait_for()
    used = page.locator("[data-ts-view=HeadGrid] .ts-partial").first.text_content()
    kept = lab.python("__import__('json').loads(study['masses'].attrs['tensorscope'])")
    assert kept["partial"] and used == f"partial: {kept['n_used']} of 424 samples" and 0 < kept["n_used"] < 424
    lab.screenshot("study-stopped")
    assert lab.console_errors == []


def test_a_view_that_was_made_before_the_run_fills_in(lab: Any) -> None:
    page = lab.page
    page.set_viewport_size({"width": 1400, "height": 1900})
    lab.run_cell(2)
    page.locator(".ts-empty").first.wait_for()  # the cell is done before its view is drawn
    assert page.locator(".ts-empty").first.is_visible()
    lab.start_cell(3)
    page.locator("[data-ts-view=Timeline]").first.wait_for()
    page.locator("[data-ts-run=running]").wait_for()
    lab.screenshot("study-along-running")
    lab.wait_cell(3)
    page.locator("[data-ts-run=done]").wait_for()
    assert page.locator(".ts-partial:visible").count() == 0
    lab.screenshot("study-along")
    lab.set_theme("JupyterLab Dark")
    page.wait_for_timeout(700)
    lab.screenshot("study-along-dark")
    assert lab.console_errors == []
