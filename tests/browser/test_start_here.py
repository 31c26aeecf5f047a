"""The start notebook as a user meets it: run, click a head, drag the checkpoint, and the same while the kernel is busy."""

import json
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "recipes" / "00_start_here.ipynb"


@pytest.fixture(scope="module")
def source():
    """The notebook, with a cell behind it that keeps the kernel busy."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import os, time\n\nif 'BUSY' in os.environ:\n    time.sleep(6)"))
    return notebook


def cells_with(source, text):
    return next(i for i, cell in enumerate(source.cells) if cell.cell_type == "code" and text in cell.source)


def find_head(page, canvas, layer, head):
    """Moves the mouse over the grid as a user would, until the tooltip names the head; returns where that is."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    wanted = f"Layer {layer} · head {head}"
    tip = page.locator(".ts-tip:visible", has_text=wanted)
    for y in range(6, int(box["height"]), 14):
        for x in range(6, int(box["width"]), 14):
            page.mouse.move(box["x"] + x, box["y"] + y)
            if tip.count():
                return {"x": x + 8, "y": y + 8}  # inside the cell, off its edge
    raise AssertionError(f"no place of the grid names {wanted}")


def test_the_start_notebook(open_notebook, source):
    lab = open_notebook(source)
    lab.page.set_viewport_size({"width": 1400, "height": 2600})
    lab.run_all(timeout=90)
    assert not lab.page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count()
    board, film = lab.cell(cells_with(source, "board = ")), lab.cell(cells_with(source, "film = "))
    pattern = board.locator("[data-ts-view=AttentionPattern]").first
    grid = board.locator("[data-ts-view=HeadGrid]").first
    effect = board.locator("[data-ts-view=HeadGrid]").nth(1)
    film.locator("[data-ts-view=Timeline]").first.wait_for(timeout=20_000)
    lab.screenshot("start-here")
    assert "Layer 1 · head 1" in pattern.inner_text()  # the notebook's own selection
    assert "without head 0.0" in lab.cell(cells_with(source, "whole = ")).inner_text()

    canvas = grid.locator("canvas").first
    place, other = find_head(lab.page, canvas, 0, 0), find_head(lab.page, canvas, 1, 2)
    canvas.click(position=place)
    lab.page.wait_for_function("root => root.innerText.includes('Layer 0 · head 0')", arg=pattern.element_handle(), timeout=2000)
    followed = json.loads(effect.get_attribute("data-ts-focus"))
    assert (followed["layer"], followed["head"]) == (0, 0)
    lab.wait_python("(int(board.focus['layer']), int(board.focus['head']))", (0, 0))

    # the same with the kernel busy: the page follows at once, Python when it can
    lab.python("__import__('os').environ.update(BUSY='1')")
    last = len(source.cells) - 1
    lab.start_cell(last)
    canvas.click(position=other)
    lab.page.wait_for_function("root => root.innerText.includes('Layer 1 · head 2')", arg=pattern.element_handle(), timeout=1000)
    assert "[*]" in lab.cell(last).locator(".jp-InputPrompt").inner_text()  # the cell still runs
    lab.wait_cell(last)
    lab.wait_python("(int(board.focus['layer']), int(board.focus['head']))", (1, 2))
    lab.screenshot("start-here-clicked")


def test_dragging_the_checkpoint_shows_the_bump(open_notebook, source):
    lab = open_notebook(source)
    lab.page.set_viewport_size({"width": 1400, "height": 2600})
    lab.run_all(timeout=90)
    film = lab.cell(cells_with(source, "film = "))
    timeline = film.locator("[data-ts-view=Timeline]").first
    grid = film.locator("[data-ts-view=HeadGrid]").first
    timeline.wait_for(timeout=20_000)
    timeline.scroll_into_view_if_needed()
    assert "3000" in grid.inner_text()
    box = timeline.locator("canvas").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    lab.page.mouse.move(box["x"] + box["width"] - 98, middle)
    lab.page.mouse.down()
    seen = set()
    for step in range(40, -1, -1):
        lab.page.mouse.move(box["x"] + box["width"] * (0.08 + 0.85 * step / 40), middle)
        lab.page.wait_for_timeout(30)
        seen.add(json.loads(grid.get_attribute("data-ts-focus")).get("checkpoint"))
    lab.page.mouse.up()
    seen.discard(None)
    assert len(seen) >= 6  # every checkpoint on the way, not only the last
    low = min(seen)
    assert low <= 200 and f"checkpoint {low}" in grid.inner_text()
    lab.wait_python("int(film.focus['checkpoint'])", low)
    lab.screenshot("start-here-early")
    lab.set_theme("JupyterLab Dark")
    lab.screenshot("start-here-dark")
