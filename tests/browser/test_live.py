"""A dashboard that fills in, in a real JupyterLab: run, watch, select, stop, and what is left of it in a saved notebook."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
LIVE = """
import json, threading, time
from tensorscope_nb.views import Live
COUNT, PAUSE = 400, 0.06
halt = threading.Event()
def partial(ds, n):
    said = {"partial": n < COUNT, "n_used": n, "n_available": COUNT}
    return ds.assign_attrs(tensorscope=json.dumps(said))
def work():
    rng = np.random.default_rng(0)
    whole, losses = ablation(), samples(40)
    for n in range(1, COUNT + 1):
        if halt.is_set():
            return live.finish("stopped", f"{n - 1} of {COUNT} samples")
        noise = rng.normal(0, 0.3 / n**0.5, (2, 4))
        results = {"ablation": partial(whole.assign(loss_increase=whole["loss_increase"].copy(data=whole["loss_increase"] + noise)), n)}
        if n > 3:
            results["losses"] = partial(losses.assign(loss=losses["loss"] * n / COUNT), n)
        live.show(results)
        live.report(n / COUNT, f"gradients: {n} of {COUNT} samples, about {(COUNT - n) * PAUSE:.0f} s left")
        time.sleep(PAUSE)
    live.finish("done", f"{COUNT} samples in {COUNT * PAUSE:.0f} s")
def start():
    halt.clear()
    threading.Thread(target=work).start()
live = Live(start=start, stop=halt.set)
live
"""
AXE = Path(__file__).parents[2] / "widgets" / "node_modules" / "axe-core" / "axe.min.js"
SHOWN = "() => document.querySelector('[data-ts-view=HeadGrid] canvas').toDataURL()"


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Any:
    notebook = open_notebook([SYNTHETIC, LIVE])
    notebook.run_cell(0)
    notebook.run_cell(1)
    notebook.page.locator("[data-ts-run]").wait_for()
    notebook.page.locator("[data-ts-view=Live]").scroll_into_view_if_needed()
    return notebook


def part(lab: Any, view: str, inner: str = "") -> Any:
    return lab.page.locator(f"[data-ts-view={view}] {inner}".strip()).first


def bar(lab: Any, state: str) -> Any:
    found = lab.page.locator(f"[data-ts-run={state}]")
    found.wait_for()
    return found


def click_head(lab: Any, layer: int, head: int) -> None:
    canvas = part(lab, "HeadGrid", "canvas")
    box = canvas.bounding_box()
    cell, line = (box["width"] - 36) / 4, (box["height"] - 36) / 2
    canvas.click(position={"x": 34 + (head + 0.5) * cell, "y": 2 + (1.5 - layer) * line}, delay=120)


def faultless(lab: Any) -> None:
    """Whether axe-core finds no serious fault in what is shown."""
    if not AXE.exists():
        return
    lab.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = lab.call("async () => axe.run('[data-ts-view=Live]', {resultTypes: ['violations']})")["violations"]
    assert [(v["id"], [n["html"][:160] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")] == []


def pictures(lab: Any, name: str) -> None:
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        lab.set_theme(theme)
        lab.page.wait_for_timeout(700)
        lab.screenshot(f"live-{name}-{theme.split()[-1].lower()}")
    lab.set_theme("JupyterLab Light")


def test_it_fills_in_while_someone_looks_around_and_stops(lab: Any, open_notebook: Callable[..., Any]) -> None:
    page = lab.page
    assert bar(lab, "idle").get_by_role("button").text_content() == "Run"
    assert part(lab, "Live", ".ts-empty").text_content() == "No results yet. They appear here as they come."
    pictures(lab, "empty")
    faultless(lab)

    page.get_by_role("button", name="Run", exact=True).click()
    part(lab, "SampleTable", "[data-row='5']").wait_for()  # the second result has come: the views stay from here on
    progress = page.locator(".ts-run-track")
    first = int(progress.get_attribute("aria-valuenow"))
    assert bar(lab, "running").locator(".ts-run-line").text_content().startswith("gradients: ")
    assert part(lab, "HeadGrid", ".ts-partial").text_content().endswith("of 400 samples")

    canvas = part(lab, "HeadGrid", "canvas").element_handle()
    before = page.evaluate(SHOWN)
    page.wait_for_function(f"before => ({SHOWN})() !== before", arg=before)
    page.wait_for_function("n => Number(document.querySelector('.ts-run-track').ariaValueNow) > n + 2", arg=first)
    assert canvas.evaluate("element => element.isConnected")

    click_head(lab, 1, 2)
    part(lab, "SampleTable", ".ts-sort >> text=/^loss /").click(delay=120)
    scroller = part(lab, "SampleTable", ".ts-rows")
    scroller.evaluate("element => element.scrollTo(0, 200)")
    row = part(lab, "SampleTable", "[aria-rowindex='16']")
    sample = row.locator("td").first.text_content()
    row.click(delay=150)
    page.wait_for_timeout(600)
    assert lab.python("live.focus.cursor") == {"layer": 1, "head": 2, "sample": sample}
    assert json.loads(part(lab, "HeadGrid").get_attribute("data-ts-focus")) == {"layer": 1, "head": 2, "sample": sample}
    assert part(lab, "SampleTable", "[aria-sort=descending]").text_content().startswith("loss")
    assert scroller.evaluate("element => element.scrollTop") == 200
    assert bar(lab, "running").count() == 1
    pictures(lab, "running")
    midway = lab.save()

    page.get_by_role("button", name="Stop", exact=True).click()
    stopped = bar(lab, "stopped")
    assert stopped.locator(".ts-run-lead").text_content() == "Partial results"
    used = part(lab, "HeadGrid", ".ts-partial").text_content()
    assert used.startswith("partial: ") and stopped.locator(".ts-run-line").text_content() == used.removeprefix("partial: ")
    assert part(lab, "SampleTable", ".ts-partial").text_content() == used
    assert stopped.get_by_role("button").text_content() == "Run again"
    pictures(lab, "stopped")
    faultless(lab)
    assert lab.console_errors == []

    saved = lab.save()
    lab.call("async () => { await window.panel.sessionContext.restartKernel(); }")
    page.wait_for_function("() => document.querySelector('.ts-run').hidden")
    again = open_notebook(saved)
    part(again, "HeadGrid", "canvas").wait_for()
    assert part(again, "HeadGrid", ".ts-partial").text_content() == used
    assert bar(again, "stopped").get_by_role("button").count() == 0
    click_head(again, 0, 1)
    assert json.loads(part(again, "SampleTable").get_attribute("data-ts-focus"))["head"] == 1
    assert again.console_errors == []

    again = open_notebook(midway)
    words = bar(again, "running").locator(".ts-run-lead, .ts-run-line").all_text_contents()
    assert words == ["Partial results", "the kernel went away before the run was done"]


def test_the_keyboard_runs_it_and_it_ends_quietly(lab: Any) -> None:
    lab.python("globals().update(COUNT=12)")
    button = lab.page.locator(".ts-run")
    button.focus()
    lab.page.keyboard.press("Enter")
    done = bar(lab, "done")
    assert done.locator(".ts-run-line").text_content() == "12 samples in 1 s"
    assert not done.locator(".ts-run-track").is_visible()
    assert lab.page.locator(".ts-partial:visible").count() == 0
    assert button.evaluate("element => element === document.activeElement") and button.text_content() == "Run again"
    pictures(lab, "done")


def test_without_buttons_a_cell_feeds_it_and_its_failure_shows(open_notebook: Callable[..., Any]) -> None:
    feed = """
live.report(0.25, "gradients: 1 of 4 samples")
time.sleep(1.5)
live.show({"ablation": partial(ablation(), 100)})
time.sleep(1.5)
live.show({"ablation": partial(ablation(), 100), "heads": heads()})
live.finish("failed", "OutOfMemoryError: the batch of 64 samples needs 9.1 GB, and 7.8 GB are free")
"""
    lab = open_notebook([SYNTHETIC, LIVE.replace("start=start, stop=halt.set", ""), feed])
    for cell in range(2):
        lab.run_cell(cell)
    lab.page.locator("[data-ts-view=Live]").wait_for()
    lab.start_cell(2)
    assert (
        bar(lab, "running").locator(".ts-run-line").text_content()
        == "gradients: 1 of 4 samples · ■ in the toolbar stops the cell"
    )
    part(lab, "HeadGrid", "canvas").focus()
    lab.page.keyboard.press("ArrowRight")
    assert bar(lab, "running").count() == 1
    lab.wait_cell(2)
    part(lab, "Timeline", "canvas").wait_for()
    lab.page.keyboard.press("ArrowRight")  # another result has come, and the keyboard is where it was
    assert json.loads(part(lab, "Timeline").get_attribute("data-ts-focus")) == {"layer": 0, "head": 1}
    assert bar(lab, "failed").locator(".ts-run-lead").text_content() == "Failed"
    pictures(lab, "failed")
