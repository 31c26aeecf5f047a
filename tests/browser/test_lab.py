"""The harness itself: widget traits in both directions, a busy kernel, errors, themes, saved state."""

import sys
import time
from collections.abc import Callable

import pytest
from browser.labpage import CellError, NotebookPage

WIDGET = """
import anywidget, ipywidgets, traitlets, time

class Counter(anywidget.AnyWidget):
    _esm = '''
    export default { render({ model, el }) {
      const button = document.createElement("button");
      button.className = "counter";
      const draw = () => { button.textContent = `count ${model.get("count")}`; };
      button.onclick = () => { model.set("count", model.get("count") + 1); model.save_changes(); };
      model.on("change:count", draw);
      draw();
      el.append(button);
    } };
    '''
    count = traitlets.Int(0).tag(sync=True)

counter = Counter()
counter
"""
Opener = Callable[..., NotebookPage]


def test_a_click_reaches_python_and_python_reaches_the_page(open_notebook: Opener) -> None:
    notebook = open_notebook([WIDGET, "counter.count = 41"])
    notebook.run_cell(0)
    button = notebook.page.locator("button.counter")
    assert button.inner_text() == "count 0"
    button.click()
    notebook.wait_python("counter.count", 1)
    notebook.run_cell(1)
    button.get_by_text("count 41").wait_for()
    button.click()
    notebook.wait_python("counter.count", 42)
    assert notebook.python("(['a', None, 2.5], 'it\\'s', list(range(3000))[-1])") == (["a", None, 2.5], "it's", 2999)
    assert notebook.console_errors == []


def test_the_front_end_follows_while_the_kernel_is_busy(open_notebook: Opener) -> None:
    notebook = open_notebook([WIDGET, "until = time.time() + 6\nwhile time.time() < until: pass"])
    notebook.run_cell(0)
    button = notebook.page.locator("button.counter")
    notebook.start_cell(1)
    started = time.monotonic()
    notebook.page.wait_for_function("() => window.panel.sessionContext.session.kernel.status === 'busy'")
    for count in (1, 2, 3):
        button.click()
        button.get_by_text(f"count {count}").wait_for(timeout=2000)
    assert notebook.kernel_status() == "busy"
    assert time.monotonic() - started < 6
    notebook.wait_cell(1)
    notebook.wait_python("counter.count", 3)


def test_the_kernel_is_this_python(open_notebook: Opener) -> None:
    notebook = open_notebook(["import sys, tensorscope_nb"])
    notebook.run_all()
    assert notebook.python("sys.prefix") == sys.prefix
    assert notebook.python("tensorscope_nb.__file__").endswith("tensorscope_nb/__init__.py")


def test_a_failing_cell_is_an_error_and_stops_the_run(open_notebook: Opener) -> None:
    notebook = open_notebook(["a = 1", "1 / 0", "a = 2"])
    with pytest.raises(CellError, match=r"cell 1: [\s\S]*ZeroDivisionError"):
        notebook.run_all()
    assert notebook.python("a") == 1
    assert [(error["cell"], error["name"]) for error in notebook.errors()] == [(1, "ZeroDivisionError")]
    with pytest.raises(CellError, match="NameError"):
        notebook.python("unheard_of")


def test_waits_have_limits(open_notebook: Opener) -> None:
    notebook = open_notebook(["import time\ntime.sleep(60)"])
    notebook.start_cell(0)
    with pytest.raises(Exception, match=r"cell 0: not done after 0\.5 s"):
        notebook.wait_cell(0, timeout=0.5)
    notebook.interrupt()
    with pytest.raises(CellError, match="KeyboardInterrupt"):
        notebook.wait_cell(0)


def test_themes_and_saved_widget_state(open_notebook: Opener) -> None:
    notebook = open_notebook([WIDGET])
    notebook.run_all()
    notebook.page.locator("button.counter").click()
    colour = "() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color1').trim()"
    light = notebook.call(colour)
    notebook.set_theme("JupyterLab Dark")
    assert notebook.call(colour) != light
    assert notebook.screenshot("lab-dark").read_bytes().startswith(b"\x89PNG")
    notebook.set_theme("JupyterLab Light")
    assert notebook.call(colour) == light
    notebook.page.locator("button.counter", has_text="count 1").wait_for()
    state = notebook.save().metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert [model["state"]["count"] for model in state.values() if "count" in model["state"]] == [1]
