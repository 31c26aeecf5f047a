"""Every kind of view in a real JupyterLab: click, keyboard, a busy kernel, a theme, a notebook reopened with its state."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
VIEW = """
from tensorscope_nb.views import *
history, by_sample = heads(), samples(100_000)
view = (
    (HeadGrid(history) | LayerBars(layers(2), "importance") | Matrix(circuits()))
    & (Ranking(ablation()) | Scatter(layers(2), "cosine", "importance") | Spectrum(eigenvalues()))
    & SampleTable(by_sample)
    & TokenStrip(token_losses())
)
view
"""
BUSY = """
import time
started = time.time()
while time.time() - started < 10: time.sleep(0.05)
"""
KINDS = ["HeadGrid", "LayerBars", "Matrix", "Ranking", "Scatter", "Spectrum", "SampleTable", "TokenStrip"]
# What a click in the middle of the main mark, or the first keys, select in each kind.
DIMS = {
    "HeadGrid": {"layer", "head"},
    "LayerBars": {"layer"},
    "Matrix": {"kind", "source", "target", "layer", "head"},
    "Ranking": {"layer", "head"},
    "Scatter": {"layer", "head"},
    "Spectrum": {"component"},
    "SampleTable": {"sample"},
    "TokenStrip": {"sample", "position"},
}
MARK = {"Ranking": "tbody tr", "SampleTable": "tbody tr[data-row]", "TokenStrip": ".ts-token"}
HOLDER = {"Ranking": "table", "SampleTable": "table", "TokenStrip": ".ts-coloured"}


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Iterator[Any]:
    notebook = open_notebook([SYNTHETIC, VIEW, BUSY])
    notebook.run_cell(0)
    notebook.run_cell(1, timeout=90)
    part(notebook, "TokenStrip", ".ts-token").first.wait_for()
    yield notebook


def part(lab: Any, view: str, inner: str = "") -> Any:
    return lab.page.locator(f"[data-ts-view={view}] {inner}".strip())


def cursor(lab: Any) -> dict[str, Any]:
    return json.loads(part(lab, "FocusBar").get_attribute("data-ts-focus"))


def clear(lab: Any) -> None:
    if cursor(lab):
        part(lab, "FocusBar").get_by_role("button", name="clear", exact=True).click()
    assert cursor(lab) == {}


def click(lab: Any, kind: str) -> None:
    if kind in MARK:
        part(lab, kind, MARK[kind]).nth(2).click()
        return
    canvas = part(lab, kind, "canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    spots = [(box["width"] * (0.55 + 0.04 * i), box["height"] * y) for y in (0.3, 0.5, 0.65, 0.2) for i in range(-8, 11)]
    for x, y in spots:
        canvas.hover(position={"x": x, "y": y})
        if part(lab, kind, ".ts-tip").is_visible():
            canvas.click(position={"x": x, "y": y})
            return
    raise AssertionError(f"nothing to click in {kind}")


def test_every_view_selects_by_click_and_by_keyboard_also_while_the_kernel_is_busy(lab: Any) -> None:
    assert {k for k in KINDS if part(lab, k).count() == 1} == set(KINDS)
    lab.start_cell(2)
    lab.page.wait_for_timeout(400)
    assert lab.kernel_status() == "busy"
    for kind in KINDS:
        click(lab, kind)
        assert set(cursor(lab)) == DIMS[kind], kind
        for view in KINDS:
            assert json.loads(part(lab, view).get_attribute("data-ts-focus")) == cursor(lab), view
        clear(lab)
    assert lab.cell(2).locator(".jp-InputPrompt").first.text_content() == "[*]:"
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    for kind in KINDS:
        holder = part(lab, kind, HOLDER.get(kind, "canvas"))
        holder.focus()
        for key in ("ArrowRight", "ArrowDown", "b", "Enter"):
            lab.page.keyboard.press(key)
        assert set(cursor(lab)) == DIMS[kind], kind
        assert part(lab, kind, ".ts-live").text_content(), kind
        lab.page.keyboard.press("Escape")
        assert not set(cursor(lab)) & (DIMS[kind] - {"sample", "kind"}), kind
        clear(lab)
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells
    lab.wait_cell(2)
    click(lab, "HeadGrid")
    lab.wait_python("sorted(view.focus)", ["head", "layer"])
    drill(lab)
    several(lab)
    bar(lab)
    table(lab)
    themes(lab)
    assert lab.console_errors == []


def drill(lab: Any) -> None:
    """Layer, head, sample, token: each narrows what the others show."""
    clear(lab)
    part(lab, "LayerBars", "canvas").focus()
    lab.page.keyboard.press("End")
    assert cursor(lab) == {"layer": 1}
    part(lab, "HeadGrid", "canvas").focus()
    lab.page.keyboard.press("Enter")
    lab.page.keyboard.press("ArrowRight")
    assert set(cursor(lab)) == {"layer", "head"}
    part(lab, "SampleTable", "tbody tr[data-row]").nth(4).click()
    part(lab, "TokenStrip", ".ts-token").nth(5).click()
    assert set(cursor(lab)) == {"layer", "head", "sample", "position"}
    assert "layer" in part(lab, "SampleTable", ".ts-sub").text_content()
    lab.wait_python("sorted(view.focus)", ["head", "layer", "position", "sample"])


def several(lab: Any) -> None:
    """Shift-click adds just the head that was clicked."""
    clear(lab)
    canvas = part(lab, "HeadGrid", "canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    cell, line = (box["width"] - 36) / 4, (box["height"] - 36) / 2
    for layer, head, keys in ((0, 0, []), (1, 2, ["Shift"])):
        canvas.click(position={"x": 34 + (head + 0.5) * cell, "y": 2 + (1.5 - layer) * line}, modifiers=keys)
    assert cursor(lab) == {"layer": [0, 1], "head": [0, 2]}
    chosen = part(lab, "Ranking", "tr[aria-selected=true]")
    assert sorted(tuple(row.locator("td").nth(i).inner_text() for i in (1, 2)) for row in chosen.all()) == [
        ("0", "0"),
        ("1", "2"),
    ]
    lab.wait_python("view.focus.places", [{"layer": 0, "head": 0}, {"layer": 1, "head": 2}])
    lab.python("view.focus.update({'layer': 1, 'head': [2, 3]})")
    lab.page.wait_for_function("() => document.querySelectorAll('[data-ts-view=Ranking] tr[aria-selected=true]').length === 2")
    lab.wait_python("view.focus.places", [])


def bar(lab: Any) -> None:
    """Chips show, change and take away; undo and redo; the selection as code."""
    clear(lab)
    focus = part(lab, "FocusBar")
    focus.get_by_role("combobox", name="layer").select_option("1")
    focus.get_by_role("combobox", name="head").select_option("2")
    assert cursor(lab) == {"layer": 1, "head": 2}
    focus.get_by_role("button", name="clear head").click()
    assert cursor(lab) == {"layer": 1}
    focus.get_by_role("button", name="undo").click()
    assert cursor(lab) == {"layer": 1, "head": 2}
    focus.get_by_role("button", name="redo").click()
    assert cursor(lab) == {"layer": 1}
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    focus.get_by_role("button", name="copy ds.sel").click()
    lab.page.get_by_text("copied ds.sel(layer=1)").first.wait_for(state="attached")
    assert lab.page.evaluate("navigator.clipboard.readText()") == "ds.sel(layer=1)"


def table(lab: Any) -> None:
    """A hundred thousand rows scroll, sort and are found."""
    clear(lab)
    rows = part(lab, "SampleTable", "tbody tr[data-row]")
    assert rows.count() < 60
    part(lab, "SampleTable", "table").focus()
    lab.page.keyboard.press("End")
    lab.page.wait_for_function("() => document.querySelector('[data-ts-view=SampleTable] [data-row=\"99999\"]')")
    assert cursor(lab) == {"sample": "s-99999"}
    part(lab, "SampleTable", "th button").filter(has_text="loss (nats").click()
    assert part(lab, "SampleTable", "th[aria-sort=descending]").inner_text().startswith("loss")
    part(lab, "SampleTable", "table").focus()
    lab.page.keyboard.press("Home")
    best = lab.python("str(by_sample.sample[int(by_sample.loss.argmax())].item())")
    assert cursor(lab) == {"sample": best}


def themes(lab: Any) -> None:
    for theme, dark in (("JupyterLab Dark", True), ("JupyterLab Dark High Contrast", True), ("JupyterLab Light", False)):
        lab.set_theme(theme)
        lab.page.wait_for_timeout(800)
        ink = lab.page.evaluate(
            "getComputedStyle(document.querySelector('[data-ts-view=HeadGrid]')).color.match(/[0-9.]+/g).slice(0, 3)"
        )
        assert (sum(map(float, ink)) > 384) == dark, theme
        lab.screenshot(f"views-{theme.rpartition(' ')[2].lower()}")


def test_all_kinds_are_linked_after_a_restart_and_in_a_notebook_opened_again(lab: Any, open_notebook: Callable[..., Any]) -> None:
    click(lab, "HeadGrid")
    part(lab, "Spectrum").get_by_role("button", name="log").click()
    lab.wait_python("view.parts[5].settings", {"log": True})
    chosen = cursor(lab)
    saved = lab.save()
    lab.call("async () => { await window.panel.sessionContext.restartKernel(); }", timeout=40, what="restarting the kernel")
    click(lab, "LayerBars")
    assert set(cursor(lab)) == {"layer", "head"} and json.loads(part(lab, "Ranking").get_attribute("data-ts-focus")) == cursor(
        lab
    )
    again = open_notebook(saved)
    part(again, "TokenStrip", ".ts-token").first.wait_for()
    assert cursor(again) == chosen and len(chosen) == 2
    assert "logarithmic" in part(again, "Spectrum", ".ts-sub").text_content()
    part(again, "FocusBar").get_by_role("button", name="clear", exact=True).click()
    for kind in KINDS:
        click(again, kind)
        assert DIMS[kind] <= set(cursor(again)), kind
    broken = "getComputedStyle(document.querySelector('.jupyter-widgets-disconnected') ?? document.body, '::before').display"
    assert again.page.evaluate(broken) in ("none", "inline")
    assert again.page.get_by_text("Error displaying widget").count() == 0
    assert again.console_errors == []


CURVATURE = """
from tensorscope_nb.views import view, Matrix, Landscape
surface = landscape()
curves = (
    (Landscape(surface, "increase", log=False) | view(surface))
    & (view(pruning()) | view(density()))
    & (view(eigenvalues()) | Matrix(surface, "increase"))
)
curves
"""


def test_a_landscape_is_picked_and_curves_are_read_in_light_and_dark(open_notebook: Callable[..., Any]) -> None:
    lab = open_notebook([SYNTHETIC, CURVATURE])
    lab.run_cell(0)
    lab.run_cell(1, timeout=90)
    first = part(lab, "Landscape", "canvas").first
    first.wait_for()
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    first.focus()
    for key in ("ArrowUp", "ArrowUp", "b", "ArrowRight"):
        lab.page.keyboard.press(key)
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells
    picked = lab.python("(float(surface.x[13]), float(surface.y[13]))")
    for root in lab.page.locator("[data-ts-view=Landscape], [data-ts-view=Matrix]").all():
        assert json.loads(root.get_attribute("data-ts-focus")) == dict(zip("xy", picked, strict=True))
    lab.wait_python("[curves.focus['x'], curves.focus['y']]", list(picked))
    second = part(lab, "Landscape").nth(1)
    assert "slices through (0.08333, 0.08333)" in second.locator(".ts-sub").first.text_content()
    # the kernel picks another point, and a point that the cell of a Matrix has is picked here
    lab.python("curves.focus.update({'x': -1.0, 'y': 0.5})")
    second.get_by_text("slices through (−1, 0.5)").wait_for()
    click(lab, "Matrix")
    assert set(cursor(lab)) == {"x", "y"}
    part(lab, "Timeline").nth(0).get_by_role("button", name="log").click()
    part(lab, "Timeline").nth(1).get_by_role("button", name="log").click()
    lab.wait_python("[part.settings for part in curves.parts if part.kind == 'Timeline']", [{"log": True}] * 2)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        lab.set_theme(theme)
        lab.page.wait_for_timeout(800)
        for name, kind in (("landscape", "Landscape"), ("curves", "Timeline"), ("spectrum", "Spectrum")):
            part(lab, kind).first.scroll_into_view_if_needed()
            lab.page.wait_for_timeout(200)
            lab.screenshot(f"{name}-{theme.rpartition(' ')[2].lower()}")
    assert lab.console_errors == []
