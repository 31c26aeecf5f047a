"""Heads that read what other heads write: as a matrix, as a table, and as the parts of one attention score."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import attribution, circuit_rows, composition, heads, patterns

from tensorscope_nb.views import AttentionPattern, HeadGrid, Matrix, Ranking, SampleTable, view
from tensorscope_nb.views.dashboard import dashboard


def test_the_view_of_compositions_has_the_heads_beside_it() -> None:
    made = view(composition())
    assert [part.kind for part in made.parts] == ["Matrix", "HeadGrid"]
    matrix, grid = made.parts
    assert (matrix.options["y"], matrix.options["x"], matrix.variable) == ("source", "target", "composition")
    assert matrix.options["companions"]["composition"] == {"null": "null"}
    assert grid.options["variables"] == ["copying_eigen", "qk_ov_correlation"] and grid.focus is matrix.focus
    assert view(composition(), "copying_eigen").kind == "HeadGrid" and view(composition(), "composition").kind == "Matrix"
    assert [part.kind for part in dashboard({"a": composition(), "b": circuit_rows()}).parts] == [
        "HeadGrid", "Matrix", "SampleTable",
    ]  # fmt: skip


def test_the_view_of_circuits_is_a_table_with_the_strongest_first() -> None:
    table = view(circuit_rows())
    assert isinstance(table, SampleTable) and table.options["by"] == "circuit"
    assert table.options["columns"] == ["composition", "excess", "z"]
    assert table.settings == {"sort": {"column": "composition", "descending": True}}
    assert set(table.cube.data["coords"]) == {"circuit", "circuit_kind", "circuit_source", "circuit_target"}
    with pytest.raises(LookupError, match="sort= names a column; there is no 'zz', there are composition, excess, z"):
        SampleTable(circuit_rows(), by="circuit", sort="zz")


def test_where_no_circuit_stands_out_the_table_has_no_rows_and_stands_beside_the_others() -> None:
    none = circuit_rows().isel(circuit=slice(0))
    both = view(composition()) & view(none)
    table = both.parts[-1]
    assert isinstance(table, SampleTable) and table.cube.data["dims"] == {"circuit": 0}


def test_the_view_of_an_attribution_is_the_pattern_and_the_parts_of_a_cell() -> None:
    ds = attribution()
    pattern, bars = view(ds).parts
    assert (pattern.kind, pattern.variable, pattern.options["cells"]) == ("AttentionPattern", "pattern", True)
    assert (bars.kind, bars.variable, bars.options["over"]) == ("Ranking", "by_key", ["source"])
    assert bars.options["variables"] == ["by_key", "by_query"] and "token" in bars.cube.data["variables"]
    assert "cells" not in AttentionPattern(patterns()).options
    assert AttentionPattern(ds.drop_vars("pattern")).variable == "score"
    assert bars.cube.data["variables"]["by_key"]["dtype"] == "f32"
    assert pattern.cube.data["variables"]["pattern"]["dtype"] == "f16"
    many = ds.isel(source=np.tile(np.arange(ds.sizes["source"]), 64)).assign_coords(source=[str(i) for i in range(704)])
    with pytest.raises(ValueError, match=r"by_key .* over the budget of 8\.0 MB: show a part of it, ds\.isel\(sample=slice\("):
        view(many)


def test_python_selects_a_pair_of_heads() -> None:
    made = view(composition())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.focus.update({"kind": "K", "source": "0.1", "target": "1.2"})
    assert made.focus.selection(composition()) == {
        "kind": "K", "source": "0.1", "target": "1.2", "layer": 1, "head": 2,
    }  # fmt: skip
    assert made.focus.selection(circuit_rows()) == {"circuit": ["K 0.1 → 1.2"]}


def at(page: Any) -> dict[str, Any]:
    found = {root.get_attribute("data-ts-focus") for root in page.locator("[data-ts-focus]").all()}
    assert len(found) == 1
    return json.loads(found.pop())


def cell(canvas: Any, row: int, column: int, n: int) -> dict[str, float]:
    """The middle of a cell of a square matrix of heads, as it stands in the page."""
    box = canvas.bounding_box()
    left = 55
    size = (box["width"] - left - 2) // n
    return {"x": left + (column + 0.5) * size, "y": 2 + (row + 0.5) * size}


@pytest.mark.browser
def test_a_pair_of_heads_is_followed_by_every_view(page_of: Any) -> None:
    page = page_of(view(composition()) & (view(circuit_rows()) | AttentionPattern(patterns(layers=3))) & HeadGrid(heads(3)))
    matrix, table = page.locator("[data-ts-view=Matrix]"), page.locator("[data-ts-view=SampleTable]")
    assert matrix.locator(".ts-sub").first.text_content() == "kind Q (the first of 3)"
    assert matrix.get_by_text("no value: a head reads only what earlier layers write").is_visible()
    matrix.get_by_role("combobox", name="kind").select_option("K")
    assert at(page) == {"kind": "K"}
    assert table.locator("tr[aria-selected=true]").count() == sum(k.startswith("K") for k in circuit_rows()["circuit"].values)
    canvas = matrix.locator("canvas")
    canvas.click(position=cell(canvas, 1, 6, 12))
    assert at(page) == {"kind": "K", "source": "0.1", "target": "1.2", "layer": 1, "head": 2}
    assert table.locator("tr[aria-selected=true]").all_text_contents()[0].startswith("K 0.1 → 1.2")
    assert page.locator("[data-ts-view=AttentionPattern] .ts-title").text_content().startswith("Layer 1 · head 2 ·")
    grids = page.locator("[data-ts-view=HeadGrid]")
    assert [grid.get_by_text("source 0.1").count() for grid in grids.all()] == [1, 1]
    canvas.click(position=cell(canvas, 0, 11, 12), modifiers=["Shift"])
    assert at(page) == {"kind": "K", "source": ["0.1", "0.0"], "target": ["1.2", "2.3"], "layer": [1, 2], "head": [2, 3]}
    plates = page.locator("[data-ts-view=AttentionPattern] .ts-plate .ts-caption")
    assert plates.all_text_contents() == ["layer 1 · head 2", "layer 2 · head 3"]

    row = table.locator("tbody tr[data-row]").nth(1)
    name = row.locator("td").first.text_content()
    row.click()
    kind, source, target = name.replace("→", "").split()
    layer, head = (int(part) for part in target.split("."))
    assert at(page) == {"circuit": name, "kind": kind, "source": source, "target": target, "layer": layer, "head": head}
    assert matrix.get_by_role("combobox", name="kind").input_value() == kind
    page.locator("[data-ts-view=FocusBar]").get_by_role("combobox", name="head").select_option(str((head + 1) % 4))
    assert at(page) == {"kind": kind, "layer": layer, "head": (head + 1) % 4}  # another head: no longer this pair
    page.mouse.move(0, 0)
    assert grids.get_by_text("source ").count() == 0
    page.locator("[data-ts-view=FocusBar]").get_by_role("button", name="undo").click()
    assert at(page)["circuit"] == name
    assert page.problems == []


@pytest.mark.browser
def test_the_parts_of_a_score_follow_the_cell_that_is_clicked(page_of: Any) -> None:
    ds = attribution()
    page = page_of(view(ds) | HeadGrid(heads()))
    pattern, bars = page.locator("[data-ts-view=AttentionPattern]"), page.locator("[data-ts-view=Ranking]")
    hint = bars.get_by_text("Click a cell of the attention pattern")
    assert hint.is_visible() and bars.locator("tbody tr").count() == 0
    assert bars.locator(".ts-sub").first.text_content() == "not chosen: sample, query, key"
    bar = page.locator("[data-ts-view=FocusBar]")
    bar.get_by_role("combobox", name="layer").select_option("1")
    bar.get_by_role("combobox", name="head").select_option("2")
    bar.get_by_role("combobox", name="position").select_option("11")
    assert hint.is_visible()  # of which key is not said
    canvas = pattern.locator("canvas").first
    size = (canvas.bounding_box()["width"] - 1) / 16
    canvas.click(position={"x": 4.5 * size, "y": 11.5 * size})
    whole = {"sample": "shakespeare-0", "layer": 1, "head": 2, "position": 11, "query": 11, "key": 4}
    assert at(page) == whole and not hint.is_visible()
    value = ds["by_key"].sel(sample="shakespeare-0", layer=1, head=2).isel(query=11, key=4)
    order = value.dropna("source").sortby(abs(value.dropna("source")), ascending=False)["source"].values.tolist()
    assert [row.locator("td").nth(1).text_content() for row in bars.locator("tbody tr").all()] == order and order[0] == "0.1"
    assert float(bars.locator("tbody tr .ts-number").first.text_content()) == pytest.approx(float(value.max()), rel=2e-3)
    assert "query 11 ‘<b>’ · key 4 ‘↵’ · all 6 that have a value" in bars.locator(".ts-sub").first.text_content()
    bars.locator("tbody tr").first.click()
    assert at(page) == {**whole, "source": "0.1"}
    assert page.locator("[data-ts-view=HeadGrid]").get_by_text("source 0.1").is_visible()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert at(page) == {**whole, "key": 5, "source": "0.1"}
    page.keyboard.press("Escape")
    assert not {"query", "key", "position"} & set(at(page)) and hint.is_visible()
    bar.get_by_role("combobox", name="position").select_option("3")
    assert hint.is_visible()
    assert page.problems == []


@pytest.mark.browser
def test_what_has_no_choice_of_a_cell_shows_no_mean_of_all(page_of: Any) -> None:
    ds = attribution().isel(sample=[0])
    page = page_of(Ranking(ds, "by_query") | Matrix(composition(12, 12)))
    bars = page.locator("[data-ts-view=Ranking]")
    assert bars.locator(".ts-sub").first.text_content() == "not chosen: query, key"
    assert bars.locator("tbody tr").count() == 0 and page.problems == []


def test_only_a_matrix_of_a_thing_against_itself_takes_heads_beside_it() -> None:
    both = xr.Dataset({"v": (("layer", "neuron"), np.ones((2, 3))), "w": (("layer", "head"), np.ones((2, 3)))})
    assert view(both).kind == "HeadGrid"
