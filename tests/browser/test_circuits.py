"""From a circuit to its heads in a real JupyterLab: a row, a cell, a head, the parts of a score, and the kernel that hears of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from views.test_heads import cell

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
VIEW = """
import tensorscope_nb as ts
circuit = ts.view(composition()) & (ts.view(circuit_rows()) | ts.view(layers(3), "cosine")) & ts.view(attribution(layers=3))
circuit
"""
BUSY = """
import time
started = time.time()
while time.time() - started < 8: time.sleep(0.05)
"""


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Any:
    notebook = open_notebook([SYNTHETIC, VIEW, BUSY])
    notebook.page.set_viewport_size({"width": 1400, "height": 2200})
    notebook.run_cell(0)
    notebook.run_cell(1, timeout=90)
    part(notebook, "SampleTable").locator("tbody tr[data-row]").first.wait_for()
    return notebook


def part(lab: Any, view: str) -> Any:
    return lab.page.locator(f"[data-ts-view={view}]").first


def cursor(lab: Any) -> dict[str, Any]:
    return json.loads(part(lab, "FocusBar").get_attribute("data-ts-focus"))


def test_a_circuit_is_the_same_in_every_view_and_in_python(lab: Any) -> None:
    pair = {"kind": "K", "source": "0.1", "target": "1.2", "layer": 1, "head": 2}
    lab.start_cell(2)
    lab.page.wait_for_timeout(400)
    assert lab.kernel_status() == "busy"
    row = part(lab, "SampleTable").locator("tbody tr[data-row]").first
    row.click()
    lab.page.mouse.move(0, 0)
    assert cursor(lab) == {"circuit": "K 0.1 → 1.2", **pair}
    assert part(lab, "Matrix").get_by_role("combobox", name="kind").input_value() == "K"
    assert part(lab, "HeadGrid").get_by_text("source 0.1").is_visible()
    assert part(lab, "LayerBars").get_by_text("layer of the source 0.1").is_visible()
    assert part(lab, "AttentionPattern").locator(".ts-title").text_content().startswith("Layer 1 · head 2 ·")
    canvas = part(lab, "Matrix").locator("canvas")
    canvas.click(position=cell(canvas, 0, 4, 12))
    lab.page.mouse.move(0, 0)  # what the pointer is on is looked at before what is selected
    assert cursor(lab) == {**pair, "source": "0.0", "target": "1.0", "head": 0}
    lab.wait_cell(2)
    lab.wait_python("sorted(circuit.focus)", ["head", "kind", "layer", "source", "target"])
    lab.python("circuit.focus.clear() or circuit.focus.update({'kind': 'K', 'source': '0.1', 'target': '1.2'})")
    lab.page.wait_for_function(
        "() => document.querySelector('[data-ts-view=AttentionPattern] .ts-title').textContent.startsWith('Layer 1 · head 2')"
    )
    assert row.get_attribute("aria-selected") == "true"
    pattern = part(lab, "AttentionPattern").locator("canvas").first
    size = (pattern.bounding_box()["width"] - 1) / 16
    pattern.click(position={"x": 4.5 * size, "y": 11.5 * size})
    bars = part(lab, "Ranking").locator("tbody tr")
    assert bars.first.locator("td").nth(1).text_content() == "0.1"
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    for key in ("ArrowRight", "b", "ArrowLeft"):
        lab.page.keyboard.press(key)
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells
    bars.first.click()
    lab.wait_python("[circuit.focus.get(d) for d in ('source', 'query', 'key')]", ["0.1", 11, 4])
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        lab.set_theme(theme)
        lab.page.wait_for_timeout(600)
        lab.screenshot(f"circuits-{theme.rpartition(' ')[2].lower()}")
    assert lab.console_errors == []
