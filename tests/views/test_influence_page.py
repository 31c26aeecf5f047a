"""The way from a test sample to those that taught it, in a file without a kernel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import images, tracin

from tensorscope_nb.views import Focus, fields, view

pytestmark = pytest.mark.browser


def cursor(page: Any) -> dict[str, Any]:
    return json.loads(page.locator("[data-ts-view=FocusBar]").get_attribute("data-ts-focus"))


def select(page: Any, dim: str, value: str) -> None:
    page.locator("[data-ts-view=FocusBar]").get_by_role("combobox", name=dim, exact=True).select_option(label=value)


def sub(part: Any) -> str:
    return part.locator(".ts-sub").first.text_content()


def ranking(table: Any) -> list[str]:
    return table.locator("tbody tr[data-row] td:first-child").all_text_contents()


def order(values: xr.DataArray) -> list[str]:
    return values["sample"].values[np.argsort(-values.values, kind="stable")].tolist()


def numbers(table: Any, column: int = 4) -> list[str]:
    return table.locator(f"tbody tr[data-row] td:nth-child({column})").all_text_contents()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_a_test_sample_to_those_that_taught_it_and_to_a_token(page_of: Any, scheme: str) -> None:
    ds = tracin(length=12)
    page = page_of(view(ds), color_scheme=scheme)
    pairs, times = (page.locator("[data-ts-view=Matrix]").nth(i) for i in range(2))
    strip, table = page.locator("[data-ts-view=TokenStrip]"), page.locator("[data-ts-view=SampleTable]")
    n = len(ranking(table))
    # nothing is selected: the mean with its interval, and both say so
    assert sub(table) == (
        "40 samples · no test sample selected: all 8 test samples · ± half the 95 % interval over test samples, in italics "
        "where it holds 0"
    )
    assert ranking(table) == order(ds["mean_influence"])[:n] and " ± " in numbers(table)[0]
    assert (
        sub(times) == "mean over 8 test samples" and sub(strip) == "test sample test-0 (the first of 8) · strongest of 40 samples"
    )
    # a click into a column: the pair, and the ranking for its test sample
    canvas = pairs.locator("canvas")
    cell = (canvas.bounding_box()["width"] - 76) / 8
    canvas.click(position={"x": 76 + 2.5 * cell, "y": 2 + 8.5 * 14})
    assert cursor(page) == {"sample": "train-8", "test_sample": "test-2"}
    here = ds.sel(test_sample="test-2")
    assert ranking(table) == order(here["influence"])[:n] and "±" not in numbers(table)[0]
    assert float(numbers(table)[0].replace("−", "-")) == pytest.approx(here["influence"].max().item(), rel=5e-3)
    assert sub(table) == "40 samples · 1 selected · test sample test-2" and sub(times) == "test sample test-2"
    assert sub(strip) == "test sample test-2 · sample train-8"
    # a training sample elsewhere leaves the test sample alone
    table.locator("tbody tr[data-row]").nth(4).click()
    fifth = order(here["influence"])[4]
    assert cursor(page) == {"sample": fifth, "test_sample": "test-2"} and sub(strip) == f"test sample test-2 · sample {fifth}"
    # its tokens, and what taught one of them
    shown = [t.replace("·", " ") for t in strip.locator(".ts-token").all_text_contents()]
    assert shown == here["test_token"].values.tolist()
    strip.locator(".ts-token").nth(5).click()
    assert cursor(page) == {"sample": fifth, "test_sample": "test-2", "test_position": 5}
    at = here.sel(test_position=5)
    assert ranking(table) == order(at["token_influence"])[:n] and sub(times) == "test sample test-2 · test position 5"
    assert sub(pairs) == "40 × 8"  # of the other test samples another token stands there
    # at one checkpoint
    select(page, "checkpoint", "1200")
    assert ranking(table) == order(at["token_contribution"].sel(checkpoint=1200))[:n]
    assert "at checkpoint 1200" in sub(table) and sub(pairs) == "at checkpoint 1200" and "at checkpoint 1200" in sub(strip)
    strip.locator(".ts-coloured").press("Escape")
    assert ranking(table) == order(here["contribution"].sel(checkpoint=1200))[:n]
    words = table.locator("tbody tr[data-row] .ts-cells").first.get_attribute("title").split("\n")
    first = here["contribution"].sel(sample=ranking(table)[0]).values
    assert words[0] == "influence at the checkpoint" and len(words) == 7
    assert [float(w.split(": ")[1].replace("−", "-").replace("e-", "e-")) for w in words[1:]] == pytest.approx(first, rel=0.02)
    canvas.press("Escape")
    assert cursor(page) == {"checkpoint": 1200}
    assert page.problems == []


def test_the_sides_are_not_mixed_up_where_samples_are_their_own_test(page_of: Any) -> None:
    ds = tracin(12, 12)
    ds = ds.assign_coords(test_sample=ds["sample"].values)
    page = page_of(view(ds))
    tests, table = page.locator("[data-ts-view=SampleTable]").all()
    row = lambda part, i: part.locator("tbody tr[data-row]").nth(i)
    # a training sample alone: nobody has asked for a test sample
    row(table, 3).click()
    taught = order(ds["mean_influence"])[3]
    assert cursor(page) == {"sample": taught} and "no test sample selected" in sub(table)
    assert tests.locator("tr[aria-selected=true]").count() == 0
    # and a test sample alone takes no training sample along, though there is one of this name
    row(tests, 4).click()
    assert cursor(page) == {"sample": taught, "test_sample": "train-4"}
    ranked = order(ds["influence"].sel(test_sample="train-4"))
    assert ranking(table) == ranked
    row(table, 0).click()
    assert cursor(page) == {"sample": ranked[0], "test_sample": "train-4"} and ranking(table) == ranked
    row(table, 5).hover()
    assert sub(table) == "12 samples · 1 selected · test sample train-4"
    assert tests.locator("tr.ts-over").count() == 0 and table.locator("tr.ts-over").count() == 1
    assert page.problems == []


def test_the_keyboard_walks_over_pairs_and_ranks_for_each(page_of: Any) -> None:
    ds = tracin()
    page = page_of(view(ds))
    canvas = page.locator("[data-ts-view=Matrix] canvas").first
    table = page.locator("[data-ts-view=SampleTable]").last
    canvas.focus()
    for key in ("Enter", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert cursor(page) == {"sample": "train-1", "test_sample": "test-2"}
    ranked = order(ds["influence"].sel(test_sample="test-2"))
    where = "() => [...document.querySelectorAll('.ts-rows')].at(-1).scrollTop"
    at = page.evaluate(where)
    page.wait_for_timeout(200)
    assert page.evaluate(where) == at > 0  # it has gone to the row, and does not scroll on by itself
    shown = ranking(table)  # those around the one that is selected
    assert "train-1" in shown and shown == ranked[ranked.index(shown[0]) :][: len(shown)]
    said = page.locator("[data-ts-view=Matrix] .ts-live").first.text_content()
    assert (
        said.startswith("Selected Sample train-1 · test sample test-2, influence ")
        and "test-2 · verse · “O Romeo, Romeo!”" in said
    )
    table.locator("table").focus()
    page.keyboard.press("End")
    assert cursor(page) == {"sample": ranked[-1], "test_sample": "test-2"}
    assert "by checkpoint influence at the checkpoint, checkpoint 0: " in table.locator(".ts-live").text_content()
    assert page.problems == []


def test_another_ranking_is_read_from_its_top(page_of: Any) -> None:
    page = page_of(view(tracin(), focus=Focus(test_sample="test-2")))
    scroller = page.locator("[data-ts-view=SampleTable] .ts-rows").last
    top = lambda: scroller.evaluate("e => e.scrollTop")
    scroller.evaluate("e => { e.scrollTop = 400; }")
    page.locator("[data-ts-view=SampleTable]").last.locator("tbody tr[data-row]").nth(18).click()
    assert top() > 300
    select(page, "test sample", "test-5")
    assert top() == 0


def test_what_does_not_follow_a_token_says_so(page_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = tracin(length=12)
    monkeypatch.setattr(fields, "PATTERN_BUDGET", 4 * ds["token_influence"].size)
    page = page_of(view(ds, focus=Focus(test_sample="test-1", test_position=2)))
    times, table = page.locator("[data-ts-view=Matrix]").nth(1), page.locator("[data-ts-view=SampleTable]").last
    assert sub(times) == "test sample test-1 · does not follow the test position"
    assert ranking(table) == order(ds["token_influence"].sel(test_sample="test-1", test_position=2))[: len(ranking(table))]
    assert page.problems == []


def test_a_sample_that_is_not_here_is_told(page_of: Any) -> None:
    page = page_of(view(tracin(length=12), focus=Focus(test_sample="test-99")))
    table, strip = page.locator("[data-ts-view=SampleTable]"), page.locator("[data-ts-view=TokenStrip]")
    assert "test sample test-99 is not among these" in sub(table)
    assert strip.locator(".ts-nothing").text_content() == "test-99 is not among the 8 test samples looked at token by token"


@pytest.mark.parametrize("fill", [np.nan, 0.0, -3.0], ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 4, 2), (5, 1, 3)], ids=str)
def test_small_and_odd_results_are_drawn(page_of: Any, fill: float, size: tuple[int, int, int]) -> None:
    ds = tracin(*size, length=2)
    ds = ds.assign({n: v.where(False, fill) for n, v in ds.data_vars.items() if v.dtype.kind == "f"})
    page = page_of(view(ds))
    page.locator("[data-ts-view=TokenStrip] .ts-token").first.click()
    page.locator("tbody tr[data-row]").first.click()
    text = page.locator("#view").inner_text()
    assert "NaN" not in text and "undefined" not in text and "Infinity" not in text
    assert page.locator(".ts-error").count() == 0 and page.problems == []


# What colour the pixel in the middle of a picture has, and how the picture is scaled.
MIDDLE = """image => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [image.naturalWidth, image.naturalHeight, getComputedStyle(image).imageRendering, context.getImageData(4, 3, 1, 1).data[0], context.getImageData(0, 3, 1, 1).data[0]];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_of_a_test_sample_is_clicked_and_those_of_its_teachers_stand_beside(page_of: Any, scheme: str) -> None:
    ds = images()
    page = page_of(view(ds), color_scheme=scheme)
    tests, train = page.locator("[data-ts-view=SampleTable]").all()
    tests.locator("tbody tr[data-row]").nth(1).click()
    assert cursor(page) == {"test_sample": "test-1"}
    ranked = order(ds["influence"].sel(test_sample="test-1"))
    assert ranking(train) == ranked[: len(ranking(train))]
    for row in (0, 2):
        image = train.locator("tbody tr[data-row] img").nth(row)
        pixels = ds["pixels"].sel(sample=ranked[row]).values
        assert image.get_attribute("alt") == f"image of sample {ranked[row]}"
        assert image.evaluate(MIDDLE) == [8, 8, "pixelated", round(255 * pixels[3, 4]), round(255 * pixels[3, 0])]
    boxes = train.locator("tbody tr[data-row]").evaluate_all("rows => rows.map(r => r.getBoundingClientRect().height)")
    assert set(boxes) == {39}
    # a row far down is where it should be
    train.locator("table").focus()
    page.keyboard.press("End")
    last = train.locator("tbody tr[aria-selected=true]")
    inside = train.locator(".ts-rows").bounding_box()
    at = last.bounding_box()
    assert inside["y"] < at["y"] and at["y"] + at["height"] <= inside["y"] + inside["height"] + 1
    assert cursor(page) == {"test_sample": "test-1", "sample": ranked[-1]}
    with page.expect_download() as download:
        train.get_by_role("button", name="save as picture (PNG)").click()
    assert Path(download.value.path()).stat().st_size > 5000
    assert page.problems == []


# How many separate strong marks a column of a canvas has, from the top of the picture to its bottom.
MARKS = """([canvas, x]) => {
  const ratio = canvas.width / canvas.clientWidth;
  const { data } = canvas.getContext("2d").getImageData(Math.round(x * ratio), 0, 1, canvas.height);
  let marks = 0, inside = false;
  for (let i = 0; i < data.length; i += 4) {
    const strong = data[i + 3] > 0 && data[i] - data[i + 2] > 100;
    if (strong && !inside) marks++;
    inside = strong;
  }
  return marks;
}"""


def test_of_two_thousand_samples_in_a_few_hundred_pixels_nothing_is_lost(page_of: Any) -> None:
    ds = tracin(2000, 64, 2)
    ds["influence"][:] = 0
    strong = np.arange(31, 2000, 97)
    ds["influence"][strong, 10] = 1.0
    page = page_of(view(ds, focus=Focus(test_sample="test-10")))
    matrix, table = page.locator("[data-ts-view=Matrix]").first, page.locator("[data-ts-view=SampleTable]").last
    assert sub(matrix) == "2000 × 64 · where several lie in one line, the strongest is seen"
    canvas = matrix.locator("canvas")
    left = 24 + 10 * 6.2  # the longest name has ten letters
    side = int((canvas.bounding_box()["width"] - left - 2) / 64)
    assert page.evaluate(MARKS, [canvas.element_handle(), left + 10.5 * side]) == len(strong)
    assert sub(table) == "2,000 samples · test sample test-10"
    assert ranking(table)[:3] == [f"train-{i}" for i in strong[:3]]
    table.locator("table").focus()
    page.keyboard.press("End")
    assert table.locator("tr[aria-selected=true]").get_attribute("aria-rowindex") == "2001"
    assert page.problems == []
