"""From a conflict to its tokens in a real JupyterLab: a module, a head, a pair of samples, both of their texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from views.synthetic import conflicts
from views.test_pairs import cell, inks

pytestmark = pytest.mark.browser

SYNTHETIC = (Path(__file__).parents[1] / "views" / "synthetic.py").read_text(encoding="utf-8")
STUDY = """
import tempfile
from pathlib import Path
import tensorscope_nb as ts
from tensorscope_nb.study.store import save_results
results = {"gradient_conflict": module_conflicts(), "qkov_interference": head_conflicts(), "sample_conflicts": conflicts()}
folder = save_results(results, Path(tempfile.mkdtemp()) / "study")
study = ts.Study.open(folder)
view = study.view()
view
"""
VIEWS = ["Ranking", "HeadGrid", "Matrix", "SampleTable", "TokenStrip", "FocusBar"]


@pytest.fixture
def lab(open_notebook: Callable[..., Any]) -> Any:
    notebook = open_notebook([SYNTHETIC, STUDY])
    notebook.page.set_viewport_size({"width": 1400, "height": 2600})
    notebook.run_cell(0)
    notebook.run_cell(1, timeout=90)
    part(notebook, "TokenStrip", 1).locator(".ts-token").first.wait_for()
    return notebook


def part(lab: Any, view: str, i: int = 0) -> Any:
    return lab.page.locator(f"[data-ts-view={view}]").nth(i)


def words(part: Any, name: str = "sub") -> str:
    return part.locator(f".ts-{name}").first.text_content()


def everywhere(lab: Any, wanted: dict[str, Any]) -> None:
    """Every view of the page looks at the same place."""
    for view in VIEWS:
        for root in lab.page.locator(f"[data-ts-view={view}]").all():
            assert json.loads(root.get_attribute("data-ts-focus")) == wanted, view


def shows(lab: Any, a: str, b: str) -> None:
    """Both strips show the tokens of this pair, each in the colour of its contribution."""
    pair = conflicts().sel(pair=f"{a} × {b}")
    for i, (side, sample) in enumerate((("a", a), ("b", b))):
        strip = part(lab, "TokenStrip", i)
        tokens = [t for t in pair[f"token_text_{side}"].values.tolist() if t]
        shown = strip.locator(".ts-token").all_text_contents()
        assert [t.replace("·", " ").replace("↵", "\n") for t in shown] == tokens
        assert words(strip, "title") == f"{sample}: contribution to the dot product"
        value = pair[f"contribution_{side}"].values[: len(tokens)]
        strong = np.abs(value) > 0.2 * np.abs(value).max()
        assert (np.sign(inks(strip))[strong] == np.sign(value)[strong]).all()


def test_from_a_module_to_the_tokens(lab: Any) -> None:
    dots, scores, cosines = (part(lab, "Matrix", i) for i in range(3))
    assert words(dots) == "sum over 12 modules"
    shows(lab, "prose-3", "code-5")
    lab.screenshot("conflicts")

    part(lab, "Ranking").locator("tbody tr", has_text="layers.1.attn.k").click()
    place: dict[str, Any] = {"module": "layers.1.attn.k", "layer": 1, "block": "K"}
    everywhere(lab, place)
    assert words(dots) == "module layers.1.attn.k" and words(scores) == "block K · layer 1 · head 0 (the first of 4)"

    canvas = part(lab, "HeadGrid").locator("canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": 34 + 2.5 * (box["width"] - 36) / 4, "y": 2 + (box["height"] - 36) / 4})
    place |= {"head": 2}
    everywhere(lab, place)
    assert words(scores) == "block K · layer 1 · head 2" and words(dots) == "module layers.1.attn.k"

    cosines.locator("canvas").click(position=cell(cosines, 7, 2))
    place |= {"sample_a": "prose-7", "sample_b": "code-2", "sample": ["prose-7", "code-2"]}
    everywhere(lab, place)
    shows(lab, "prose-7", "code-2")
    lab.wait_python("view.focus.selection(study['sample_conflicts'])['pair']", ["prose-7 × code-2"])
    lab.screenshot("conflicts-pair")

    cosines.locator("canvas").click(position=cell(cosines, 6, 9))
    for i in range(2):
        strip = part(lab, "TokenStrip", i)
        assert words(strip, "nothing") == "prose-6 × code-9 is not among the 20 pairs looked at token by token"
        assert strip.locator(".ts-token").count() == 0
    lab.screenshot("conflicts-missing")

    part(lab, "SampleTable").locator("tbody tr[data-row]").nth(2).click()
    place |= {"pair": "prose-3 × code-8", "sample_a": "prose-3", "sample_b": "code-8", "sample": ["prose-3", "code-8"]}
    everywhere(lab, place)
    shows(lab, "prose-3", "code-8")
    part(lab, "TokenStrip").locator(".ts-token").nth(4).click()
    everywhere(lab, {**place, "position_a": 4})
    assert [part(lab, "TokenStrip", i).locator(".ts-query").count() for i in range(2)] == [1, 0]

    lab.set_theme("JupyterLab Dark")
    lab.page.wait_for_timeout(700)
    lab.screenshot("conflicts-dark")
    assert lab.console_errors == []
