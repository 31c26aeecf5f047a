"""Curves with names: one line for each control over a number, with the spread of its runs, and what is behind them."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import circuits, pruning, tickets

from tensorscope_nb.views import Focus, Timeline, view
from tensorscope_nb.views.fields import family_of


def test_tickets_are_curves_by_control_and_a_map_of_what_is_kept() -> None:
    made = view(tickets())
    assert [repr(part) for part in made.parts] == [
        "Timeline(loss)", "Timeline(accuracy)", "Timeline(accuracy_advantage)", "Matrix(density)",
    ]  # fmt: skip
    assert {(part.options["x"], part.options["apart"]) for part in made.parts[:3]} == {("sparsity", "control")}
    assert made.parts[0].options["variables"] == ["loss", "accuracy", "loss_advantage", "accuracy_advantage"]
    assert made.parts[2].options["companions"]["accuracy_advantage"] == {
        "low": "accuracy_advantage_ci_low", "high": "accuracy_advantage_ci_high",
    }  # fmt: skip
    assert (made.parts[3].options["y"], made.parts[3].options["x"]) == ("module", "sparsity")
    # of one run there is no interval, and so no picture of it
    assert [part.variable for part in view(tickets(1)).parts] == ["loss", "accuracy", "density"]
    assert view(tickets(), "accuracy").kind == "Timeline" and view(tickets(), "density").kind == "Matrix"


def test_curves_with_names_are_few_and_along_a_number() -> None:
    coords: dict[str, Any] = {"control": ["a", "b"], "sparsity": [0.1, 0.5, 0.9]}
    ds = xr.Dataset({"v": (("control", "sparsity"), np.ones((2, 3)))}, coords)
    assert family_of(ds, "v") == ("sparsity", "control") and view(ds).kind == "Timeline"
    many = ds.isel(control=[0] * 7).assign_coords(control=list("abcdefg"))
    layers = ds.rename(control="module")
    falling, whole = ds.isel(sparsity=[2, 1, 0]), ds.assign_coords(sparsity=[1, 2, 3])
    for other in (
        many,
        layers,
        falling,
        whole,
        ds.drop_vars("control"),
        circuits().rename(composition="v"),
        pruning().rename(kept="v"),
    ):
        assert family_of(other, "v") is None
    assert view(many).kind == "Matrix" and "apart" not in Timeline(pruning()).options


def perturbed(ratios: int) -> xr.Dataset:
    """The loss of three selections, the count that all have alike, and what the first has over the two others."""
    by, beside = np.arange(3.0)[:, None] * np.ones(ratios), np.ones((2, ratios)) * [[1.0], [2.0]]
    units = {"increase": "nats", "count": "weights", "size": "weight", "excess": "nats"}
    dims = ("selection", "ratio")
    values = {"increase": (dims, by), "count": (dims, 0 * by), "size": (dims, by), "excess": (("control", "ratio"), beside)}
    ds = xr.Dataset(values, {"selection": list("abc"), "control": list("bc"), "ratio": np.linspace(0.5, 1, ratios)})
    for name, unit in units.items():
        ds[name].attrs["units"] = unit
    return ds


def test_curves_with_other_names_stand_beside_and_those_that_are_one_do_not() -> None:
    assert [repr(part) for part in view(perturbed(3)).parts] == ["Timeline(increase)", "Timeline(size)", "Timeline(excess)"]


def test_of_one_ratio_there_is_no_curve_but_a_ranking() -> None:
    made = view(perturbed(1))
    assert repr(made) == "Ranking(increase)" and family_of(perturbed(1), "increase") is None
    assert view(perturbed(1), x="ratio", y="selection").kind == "Matrix"


def at(page: Any) -> dict[str, Any]:
    return json.loads(page.locator("[data-ts-view=FocusBar]").get_attribute("data-ts-focus"))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_control_has_a_line_and_a_sparsity_is_followed(page_of: Any, scheme: str) -> None:
    ds = tickets()
    page = page_of(view(ds), color_scheme=scheme)
    loss, accuracy, gained = (page.locator("[data-ts-view=Timeline]").nth(i) for i in range(3))
    density = page.locator("[data-ts-view=Matrix]")
    keys = lambda part: part.locator(".ts-key").all_text_contents()
    sub = lambda part: part.locator(".ts-sub").first.text_content()
    assert keys(loss) == ["ticket", "reinit", "random", "dense", "smallest to largest of 5 replicates"]
    colours = loss.locator(".ts-key i").evaluate_all("marks => marks.slice(0, 4).map(m => getComputedStyle(m).color)")
    assert len(set(colours)) == 4
    # the difference of the ticket from itself has no line; which side is better is said
    assert keys(gained) == ["reinit", "random", "dense", "95 % interval over 5 replicates"]
    assert sub(gained) == "the ticket is better above 0" and sub(loss) == "mean over 5 replicates"
    canvas = loss.locator("canvas")
    width = canvas.bounding_box()["width"]
    left, right = 64, width - 26
    x = left + (0.9 - 0.5) / (0.99 - 0.5) * (right - left)
    canvas.hover(position={"x": x, "y": 60})
    told = loss.locator(".ts-tip div").all_text_contents()
    value = ds["loss"].sel(sparsity=0.9, control="ticket")
    assert told[0] == "Sparsity 0.9" and told[1] == f"ticket: {value.mean().item():.3f} (nats)" and len(told) == 9
    low, high = told[2].removeprefix("smallest to largest of 5 replicates: ").split(" to ")
    assert [float(low), float(high)] == pytest.approx([value.min().item(), value.max().item()], rel=2e-3)
    canvas.click(position={"x": x, "y": 60})
    assert at(page) == {"sparsity": 0.9} and sub(accuracy) == "sparsity 0.9 · mean over 5 replicates"
    density.locator("canvas").focus()
    for key in ("Enter", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert at(page) == {"sparsity": 0.95, "module": "layers.2", "layer": 1} and "sparsity 0.95" in sub(gained)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert at(page)["sparsity"] == 0.99 and at(page)["module"] == "layers.2"
    page.keyboard.press("Escape")
    assert "sparsity" not in at(page)
    assert page.problems == []


@pytest.mark.browser
def test_one_run_has_no_band_and_odd_curves_are_drawn(page_of: Any) -> None:
    page = page_of(view(tickets(), focus=Focus(replicate=2)))
    first = page.locator("[data-ts-view=Timeline]").first
    assert first.locator(".ts-key").all_text_contents() == ["ticket", "reinit", "random", "dense"]
    assert first.locator(".ts-sub").first.text_content() == "replicate 2"
    assert page.problems == []
    for fill in (np.nan, 0.0, np.inf):
        ds = tickets(2)
        page = page_of(view(ds.assign({n: v.where(False, fill) for n, v in ds.data_vars.items() if v.dtype.kind == "f"})))
        text = page.locator("#view").inner_text()
        assert "NaN" not in text and "undefined" not in text and page.locator(".ts-error").count() == 0
        assert page.problems == []
        page.context.close()
