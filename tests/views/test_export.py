import json
import re
from pathlib import Path
from typing import Any

import pytest
from views.synthetic import heads, patterns

from tensorscope_nb.views import AttentionPattern, HeadGrid, Timeline, export_html


def state_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="state">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    assert found
    return json.loads(found.group(1))


def test_the_file_holds_each_cube_and_the_focus_once(tmp_path: Path) -> None:
    ds = heads()
    both = HeadGrid(ds) & Timeline(ds)
    both.focus["layer"] = 1
    models = state_of(export_html(both, tmp_path / "a.html"))["models"].values()
    assert sum("data" in m for m in models) == 1
    assert [m["cursor"] for m in models if "cursor" in m] == [{"layer": 1}]


def test_a_token_cannot_leave_its_place(tmp_path: Path) -> None:
    ds = patterns(samples=1)
    ds["token"] = ds["token"].astype(object)
    ds["token"][0, 0] = "</script><script>document.title='broken'</script>"
    text = export_html(AttentionPattern(ds), tmp_path / "a.html", title="<i>").read_text(encoding="utf-8")
    assert "document.title='broken'</script>" not in text and "<title>&lt;i&gt;</title>" in text


def test_only_views_are_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="export_html writes a view"):
        export_html(heads(), tmp_path / "a.html")  # type: ignore[arg-type]


@pytest.mark.browser
def test_the_file_is_linked_without_kernel_and_network(tmp_path: Path, page_of: Any) -> None:
    ds = heads()
    page = page_of(export_html((HeadGrid(ds) | AttentionPattern(patterns())) & Timeline(ds), tmp_path / "a.html"))
    grid = page.locator("[data-ts-view=HeadGrid]")
    title = page.locator("[data-ts-view=AttentionPattern] .ts-title")
    assert title.text_content() == "Layer 0 · head 0 · sample shakespeare-0"
    grid.locator("canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert title.text_content() == "Layer 1 · head 2 · sample shakespeare-0"
    assert json.loads(page.locator("[data-ts-view=Timeline]").get_attribute("data-ts-focus")) == {"layer": 1, "head": 2}
    page.locator("[data-ts-view=Timeline] canvas").focus()
    page.keyboard.press("Home")
    assert grid.locator(".ts-sub").text_content() == "at checkpoint 0"
    page.get_by_label("next sample").click()
    assert title.text_content() == "Layer 1 · head 2 · sample shakespeare-1"
    assert page.problems == []


@pytest.mark.browser
def test_tokens_are_text_in_the_page(tmp_path: Path, page_of: Any) -> None:
    ds = patterns(samples=1)
    ds["token"] = ds["token"].astype(object)
    ds["token"][0, 0] = "<img src=x onerror=alert(1)>"
    page = page_of(export_html(AttentionPattern(ds), tmp_path / "a.html"))
    assert page.locator(".ts-strip .ts-token").first.text_content() == "<img·src=x·onerror=alert(1)>"
    assert page.locator("#view img").count() == 0 and page.problems == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme(tmp_path: Path, page_of: Any, scheme: str) -> None:
    page = page_of(export_html(HeadGrid(heads()), tmp_path / "a.html"), color_scheme=scheme)
    page.locator("[data-ts-view=HeadGrid] canvas").wait_for()
    ink = page.evaluate("getComputedStyle(document.querySelector('[data-ts-view]')).color")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 384) == (scheme == "dark")
