"""The views in a real JupyterLab: linked at once, also while the kernel is busy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
VIEW = """
from tensorscope_nb.views import AttentionPattern, HeadGrid, Timeline
history = heads()
view = (HeadGrid(history) | AttentionPattern(patterns())) & Timeline(history)
seen = []
view.focus.observe(seen.append)
view
"""
BUSY = """
import time
started = time.time()
while time.time() - started < 12: time.sleep(0.05)
"""


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Any:
    notebook = open_notebook([SYNTHETIC, VIEW, BUSY])
    notebook.run_cell(0)
    notebook.run_cell(1)
    notebook.page.locator("[data-ts-view=Timeline] canvas").wait_for()
    notebook.page.locator("[data-ts-view=HeadGrid]").scroll_into_view_if_needed()
    return notebook


def part(lab: Any, view: str, inner: str = "") -> Any:
    return lab.page.locator(f"[data-ts-view={view}] {inner}".strip())


def click_head(lab: Any, layer: int, head: int) -> None:
    canvas = part(lab, "HeadGrid", "canvas")
    box = canvas.bounding_box()
    cell, line = (box["width"] - 36) / 4, (box["height"] - 36) / 2
    canvas.click(position={"x": 34 + (head + 0.5) * cell, "y": 2 + (1.5 - layer) * line})


def until(lab: Any, expression: str) -> bool:
    """Whether Python comes to agree within ten seconds."""
    return any(lab.python(expression) or lab.page.wait_for_timeout(100) for _ in range(100))


def title(lab: Any) -> str:
    return part(lab, "AttentionPattern", ".ts-title").text_content()


def test_a_click_reaches_the_other_views_and_python(lab: Any) -> None:
    assert title(lab) == "Layer 0 · head 0 · sample shakespeare-0"
    assert "click a head" in part(lab, "AttentionPattern", ".ts-sub").first.text_content()
    click_head(lab, 1, 2)
    assert title(lab) == "Layer 1 · head 2 · sample shakespeare-0"
    assert json.loads(part(lab, "Timeline").get_attribute("data-ts-focus")) == {"layer": 1, "head": 2}
    assert until(lab, "view.focus.cursor == {'layer': 1, 'head': 2}")
    assert lab.python("seen") == [{"layer": 1, "head": 2}]
    assert lab.python("view.focus.selection(history)") == {"layer": 1, "head": 2}
    assert lab.console_errors == []


def test_python_moves_the_page(lab: Any) -> None:
    lab.python("view.focus.update({'layer': 1, 'head': [0, 2], 'checkpoint': 900})")
    part(lab, "AttentionPattern", ".ts-caption").get_by_text("layer 1 · head 2").wait_for()
    assert title(lab) == "2 heads · sample shakespeare-0"
    assert part(lab, "HeadGrid", ".ts-sub").text_content() == "at checkpoint 900"


def test_an_observer_may_move_the_focus_further(lab: Any) -> None:
    lab.python("view.focus.observe(lambda cursor: view.focus.update({'sample': f'shakespeare-{cursor.get(\"layer\", 0)}'}))")
    click_head(lab, 1, 2)
    lab.page.get_by_text("Layer 1 · head 2 · sample shakespeare-1").wait_for()
    assert until(lab, "view.focus.cursor == {'layer': 1, 'head': 2, 'sample': 'shakespeare-1'}")


def test_a_click_and_a_running_cell_do_not_undo_each_other(lab: Any) -> None:
    click_head(lab, 1, 2)
    lab.python("view.focus.update({'checkpoint': 900})")
    click_head(lab, 0, 1)
    assert until(lab, "view.focus.cursor == {'layer': 0, 'head': 1, 'checkpoint': 900}")
    assert part(lab, "HeadGrid", ".ts-sub").text_content() == "at checkpoint 900"


def test_views_follow_while_the_kernel_is_busy(lab: Any) -> None:
    lab.start_cell(2)
    lab.page.wait_for_timeout(500)
    assert lab.kernel_status() == "busy"
    click_head(lab, 0, 1)
    assert title(lab) == "Layer 0 · head 1 · sample shakespeare-0"
    lab.page.get_by_label("next sample").click()
    assert title(lab) == "Layer 0 · head 1 · sample shakespeare-1"
    assert lab.cell(2).locator(".jp-InputPrompt").first.text_content() == "[*]:"
    lab.wait_cell(2)
    assert until(lab, "view.focus.cursor == {'layer': 0, 'head': 1, 'sample': 'shakespeare-1'}")


def test_dragging_the_checkpoint_moves_the_grid(lab: Any) -> None:
    canvas = part(lab, "Timeline", "canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    left, right = box["x"] + 64, box["x"] + box["width"] - 98
    mouse, y = lab.page.mouse, box["y"] + 120
    subtitle = part(lab, "HeadGrid", ".ts-sub")
    assert subtitle.text_content() == "at checkpoint 3000"
    mouse.move(right, y)
    mouse.down()
    passed = set()
    for i in range(1, 41):
        mouse.move(right + (left - right) * i / 40, y)
        passed.add(subtitle.text_content())
    mouse.up()
    assert subtitle.text_content() == "at checkpoint 0"
    assert len(passed) >= 6
    assert until(lab, "view.focus.cursor == {'checkpoint': 0}")


def test_a_line_selects_its_head(lab: Any) -> None:
    canvas = part(lab, "Timeline", "canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # the induction head is the one line at the top once training is over
    x = 64 + 0.8 * (box["width"] - 162)
    for y in range(30, 100, 3):
        canvas.hover(position={"x": x, "y": y})
        if part(lab, "Timeline", ".ts-tip").is_visible():
            break
    assert "Layer 1 · head 2" in part(lab, "Timeline", ".ts-tip").text_content()
    lab.page.mouse.down()
    lab.page.mouse.up()
    assert title(lab) == "Layer 1 · head 2 · sample shakespeare-0"
    assert until(lab, "view.focus.cursor == {'layer': 1, 'head': 2}")


def test_the_keyboard_is_enough(lab: Any) -> None:
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    part(lab, "HeadGrid", "select").focus()
    for _ in range(2):  # past the button that saves a picture
        lab.page.keyboard.press("Tab")
    press = lab.page.keyboard.press
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "b"):
        press(key)
    assert title(lab) == "Layer 1 · head 1 · sample shakespeare-0"
    assert "Layer 1 · head 1" in part(lab, "HeadGrid", ".ts-live").text_content()
    press("Escape")
    assert json.loads(part(lab, "HeadGrid").get_attribute("data-ts-focus")) == {}
    part(lab, "Timeline", "canvas").focus()
    press("ArrowLeft")
    assert part(lab, "HeadGrid", ".ts-sub").text_content() == "at checkpoint 1800"
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert until(lab, "view.focus.cursor == {'checkpoint': 1800}")


def test_hovering_stays_in_the_page(lab: Any) -> None:
    canvas = part(lab, "HeadGrid", "canvas")
    canvas.hover(position={"x": 60, "y": 20})
    assert title(lab).startswith("Layer 1 · head 0")
    assert "preview" in part(lab, "AttentionPattern", ".ts-sub").first.text_content()
    part(lab, "Timeline", "canvas").hover(position={"x": 5, "y": 5})
    assert title(lab).startswith("Layer 0 · head 0")
    assert lab.python("seen") == [] and lab.python("view.focus.cursor") == {}


def test_the_grid_shows_another_variable(lab: Any) -> None:
    part(lab, "HeadGrid", "select").select_option("copying")
    assert part(lab, "HeadGrid", ".ts-title").text_content() == "Copying score"
    assert until(lab, "view.parts[0].variable == 'copying'")


def test_a_saved_notebook_shows_linked_views_before_anything_runs(lab: Any, open_notebook: Callable[..., Any]) -> None:
    click_head(lab, 1, 2)
    assert until(lab, "view.focus.cursor == {'layer': 1, 'head': 2}")
    again = open_notebook(lab.save())
    part(again, "Timeline", "canvas").wait_for()
    assert title(again) == "Layer 1 · head 2 · sample shakespeare-0"
    click_head(again, 0, 1)
    assert title(again) == "Layer 0 · head 1 · sample shakespeare-0"
    assert again.console_errors == []
