"""Tokens of a vocabulary, and what a model would say at each place of a text."""

import json
import time
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import lens, similarity, token_losses, tokens, two_models

from tensorscope_nb.views import Focus, HeadGrid, LayerBars, Matrix, Scatter, TokenStrip, view


def test_the_view_of_tokens_is_a_table_with_a_scatter_beside_it() -> None:
    table, scatter = view(tokens()).parts
    assert (table.kind, table.options["by"]) == ("SampleTable", "token_id")
    assert table.options["columns"][:3] == ["token", "violates_manifold", "p_manifold"] and table.settings == {}
    assert (scatter.kind, scatter.variable, scatter.options["x"]) == ("Scatter", "p_manifold", "dim_small")
    assert scatter.options["asides"] == ["token"] and "asides" in Scatter(similarity().assign(b=similarity()["cka"])).options
    assert view(tokens()[["density"]]).kind == "SampleTable"
    assert view(tokens(), "density").kind == "Ranking"


def test_thousands_of_fifty_thousand_tokens_are_selected_at_once() -> None:
    ds, wanted = tokens(50_000), list(range(0, 50_000, 3))
    made = view(ds)
    began = time.perf_counter()
    made.focus["token_id"] = wanted
    assert made.focus.selection(ds) == {"token_id": wanted}
    assert time.perf_counter() - began < 2


def test_a_strip_that_knows_its_tokens_says_so() -> None:
    ds = token_losses()
    ids = np.arange(ds["token"].size).reshape(ds["token"].shape)
    known = ds.assign(token_id=(("sample", "position"), ids))
    assert TokenStrip(known).options["ids"] == "token_id" and "ids" not in TokenStrip(ds).options
    assert TokenStrip(known).options["variables"] == ["loss", "surprise"]  # a number that names a token is no measure


def test_what_stands_in_the_cells_of_a_lens_is_the_token() -> None:
    made = view(lens())
    assert isinstance(made, Matrix) and made.variable == "probability"
    assert (made.options["y"], made.options["x"]) == ("layer", "position")
    assert (made.options["words"], made.options["tokens"]) == ("top_token", "token")
    ids = lens().assign(top_token=(lens()["top_token"].dims, np.zeros(lens()["top_token"].shape, dtype=int)))
    assert view(ids).options["words"] == "top_token" and view(ids).options["variables"] == ["probability", "entropy"]
    assert not {"words", "tokens"} & set(view(similarity()).options)
    assert "words" not in Matrix(lens().assign(flat=(("layer", "position"), np.ones((3, 12)))), "flat").options


def test_what_each_part_writes_at_each_token_is_a_matrix_along_the_text() -> None:
    ds = lens()[["token"]].assign(attribution=(("sample", "position", "source"), np.ones((2, 12, 3))))
    made = view(ds.assign_coords(source=["embed", "0.1", "mlp 0"]))
    assert isinstance(made, Matrix) and (made.options["y"], made.options["x"]) == ("source", "position")
    assert made.options["tokens"] == "token" and "words" not in made.options


def test_the_layers_of_two_models_are_a_matrix_with_their_names() -> None:
    made = view(two_models())
    assert isinstance(made, Matrix) and (made.options["y"], made.options["x"]) == ("layer_a", "layer_b")
    assert made.options["upward"] and made.options["variables"] == ["cka", "cka_without_first"]
    assert made.options["companions"]["cka"] == {"low": "ci_low", "high": "ci_high"}
    assert made.cube.data["coords"]["layer_a"]["attrs"] == {"long_name": "layer of induction-2l"}
    by_model = two_models().rename(checkpoint="model").assign_coords(model=["a", "b", "c"])
    assert view(by_model).kind == "Matrix"


def at(page: Any) -> dict[str, Any]:
    return json.loads(page.locator("[data-ts-focus]").first.get_attribute("data-ts-focus"))


@pytest.mark.browser
def test_tokens_are_found_brushed_and_looked_at(page_of: Any) -> None:
    strip = token_losses().assign(token_id=(("sample", "position"), np.tile([4, 5, 4, 9], (3, 4))))
    page = page_of(view(tokens()) & TokenStrip(strip))
    table, scatter = page.locator("[data-ts-view=SampleTable]"), page.locator("[data-ts-view=Scatter]")
    rows, search = table.locator("tbody tr[data-row]"), table.get_by_role("searchbox", name="search tokens")
    texts = lambda: rows.locator("td:nth-child(2)").all_text_contents()
    assert texts()[:8] == ["↵", "·", "⇥", "<b>", "·the", "the", "שלום", "<script>alert(1)</script>"]
    search.fill("the")
    assert texts() == ["·the", "the"] and "2 match ‘the’" in table.locator(".ts-sub").first.text_content()
    search.fill(" THE")
    assert texts() == ["·the"]
    search.press("Enter")
    assert at(page) == {"token_id": 4}
    same = page.locator("[data-ts-view=TokenStrip] .ts-same")
    assert same.count() == 8
    search.fill("nothing of the kind")
    assert rows.count() == 0 and table.get_by_text("No token has ‘nothing·of·the·kind’ in it").is_visible()
    table.locator("table").focus()
    page.keyboard.press("ArrowDown")  # there is no row to go to
    search.fill("")
    assert at(page) == {"token_id": 4}

    box = scatter.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 120, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 140, steps=4)
    page.mouse.up()
    brushed = at(page)["token_id"]
    assert 5 < len(brushed) < 200  # a brush may begin and end on a point
    assert f"{len(brushed)} selected" in table.locator(".ts-sub").first.text_content()
    table.get_by_role("button", name="only selected").click()
    assert sorted(int(row.locator("td").first.text_content()) for row in rows.all()) == sorted(brushed)[: rows.count()]
    rows.first.click()
    assert at(page) == {"token_id": min(brushed)} and rows.count() == 1
    page.locator("[data-ts-view=FocusBar]").get_by_role("button", name="clear", exact=True).click()
    assert rows.count() >= 16 and not table.get_by_role("button", name="only selected").is_visible()

    page.locator("[data-ts-view=TokenStrip] .ts-token").nth(3).click()
    assert at(page) == {"sample": "shakespeare-0", "position": 3, "token_id": 9}
    assert table.locator("tr[aria-selected=true] td").first.text_content() == "9"
    page.locator("[data-ts-view=FocusBar]").get_by_role("combobox", name="position").select_option("5")
    assert at(page) == {"sample": "shakespeare-0", "position": 5}  # there another token stands
    assert page.problems == []


@pytest.mark.browser
def test_a_point_of_a_scatter_is_still_clicked(page_of: Any) -> None:
    dense = xr.Dataset({"a": ("token_id", np.linspace(0, 1, 9)), "b": ("token_id", np.linspace(0, 1, 9))}, {"token_id": range(9)})
    page = page_of(Scatter(dense, "a", "b"))
    canvas = page.locator("[data-ts-view=Scatter] canvas")
    box = canvas.bounding_box()
    share = 0.5 / 1.05  # there is some air above the largest
    [left, right, top, bottom] = [68, box["width"] - 20, 14, box["height"] - 44]
    canvas.click(position={"x": left + share * (right - left), "y": bottom - share * (bottom - top)})
    assert at(page) == {"token_id": 4}


@pytest.mark.browser
def test_a_lens_is_of_one_text(page_of: Any) -> None:
    ds = lens()
    ds["probability"].values[1, 9:] = np.nan
    page = page_of(view(ds) | LayerBars(ds, "entropy"))
    matrix = page.locator("[data-ts-view=Matrix]")
    assert matrix.locator(".ts-sub").first.text_content() == "sample s-0"
    canvas = matrix.locator("canvas")
    wide = canvas.bounding_box()["width"]
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert at(page) == {"sample": "s-0", "layer": 1, "position": 1}
    words = [str(v).replace(" ", "·").replace("\n", "↵") for v in (ds["token"][0, 1].item(), ds["top_token"][0, 1, 1].item())]
    said = matrix.locator(".ts-live").text_content()
    assert said.startswith(f"Selected Layer 1 · position 1 ‘{words[0]}’, most probable token ‘{words[1]}’, probability 0.")
    matrix.get_by_role("combobox", name="sample").select_option("s-1")
    assert at(page)["sample"] == "s-1" and matrix.locator(".ts-sub").first.text_content() == "sample s-1"
    assert canvas.bounding_box()["width"] < wide  # its padding is not shown, nor called a missing value
    assert not matrix.get_by_text("no value").is_visible()
    assert page.problems == []


@pytest.mark.browser
def test_a_layer_chosen_elsewhere_is_a_row_and_a_column_of_two_models(page_of: Any) -> None:
    heads = xr.Dataset({"score": (("layer", "head"), np.eye(6, 4))}, {"layer": range(6), "head": range(4)})
    page = page_of(Matrix(two_models(), focus=Focus(layer=2)) | HeadGrid(heads))
    matrix = page.locator("[data-ts-view=Matrix]")
    canvas = matrix.locator("canvas")
    canvas.click(position={"x": 34 + 1.5 * 44, "y": 2 + 2.5 * 44})
    assert at(page) == {"layer_a": 3, "layer_b": 1, "layer": [3, 1]}
    assert matrix.locator(".ts-live").text_content().startswith("Selected Layer of induction-2l: 3 · layer of shakespeare: 1, ")
    page.locator("[data-ts-view=FocusBar]").get_by_role("combobox", name="layer", exact=True).select_option("5")
    assert at(page) == {"layer": 5}
    assert page.problems == []
