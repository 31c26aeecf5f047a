"""What each kind of view takes, refuses, and sends to the page."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import (
    ablation,
    circuits,
    density,
    eigenvalues,
    heads,
    landscape,
    layers,
    patterns,
    pruning,
    samples,
    similarity,
    token_losses,
    weights,
)

from tensorscope_nb.views import (
    Composition,
    Focus,
    FocusBar,
    HeadGrid,
    Landscape,
    LayerBars,
    Matrix,
    Ranking,
    SampleTable,
    Scatter,
    Spectrum,
    Timeline,
    TokenStrip,
    View,
    view,
)  # fmt: skip
from tensorscope_nb.views.cube import MOST


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: view(layers()), "HeadGrid"),
        (lambda: view(layers(), "cosine"), "LayerBars"),
        (lambda: view(similarity()), "Matrix"),
        (lambda: view(circuits()), "Matrix"),
        (lambda: view(xr.Dataset({"loss": (("x", "y"), np.ones((3, 3)))})), "Matrix"),
        (lambda: view(landscape()), "Landscape"),
        (lambda: view(landscape().transpose("x", "y"), "increase"), "Landscape"),
        (lambda: view(landscape().expand_dims(checkpoint=[0, 600], model=["a", "b"])), "Landscape"),
        (lambda: view(landscape().isel(y=0, drop=True)), "Landscape"),
        (lambda: view(landscape(), x="y", y="x"), "Landscape"),
        (lambda: view(landscape().assign_coords(x=list("abcdefghijklmnopqrstuvwxy"))), "Matrix"),
        (lambda: view(pruning()), "Timeline"),
        (lambda: view(pruning(), "kept"), "Timeline"),
        (lambda: view(density().expand_dims(checkpoint=[0, 600], layer=[0, 1]), x="curvature"), "Timeline"),
        (lambda: view(density().drop_vars("curvature")), "Ranking"),
        (lambda: view(density().expand_dims(sample_a=["a", "b"])), "Matrix"),
        (lambda: view(xr.Dataset({"cosine": (("sample_a", "sample_b"), np.ones((3, 4)))})), "Matrix"),
        (lambda: view(xr.Dataset({"importance": (("layer", "neuron"), np.ones((3, 4)))})), "Matrix"),
        (lambda: view(xr.Dataset({"recovered": (("layer", "position"), np.ones((3, 4)))})), "Matrix"),
        (lambda: view(eigenvalues()), "Spectrum"),
        (lambda: view(token_losses()), "TokenStrip"),
        (lambda: view(samples(), "loss"), "SampleTable"),
        (lambda: view(samples()[["loss", "influence"]]), "SampleTable"),
        (lambda: view(weights()), "Ranking"),
        (lambda: view(xr.Dataset({"grad_norm": ("module", np.ones(3))})), "Ranking"),
        (lambda: view(samples(), x="loss", y="influence"), "Scatter"),
        (lambda: view(heads(), compare=(600, 3000)), "HeadGrid"),
    ],
)
def test_the_dimensions_choose_the_view(made: Callable[[], View], kind: str) -> None:
    assert made().kind == kind


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda: LayerBars(eigenvalues()), ValueError, r"LayerBars needs a variable with layer; eigenvalue \[component\]"),
        (lambda: Matrix(layers(), "cosine"), ValueError, "Matrix needs rows and layer; cosine has layer"),
        (lambda: Matrix(similarity(), x="layer_a", y="layer_a"), ValueError, "two different dimensions"),
        (lambda: Spectrum(layers()), ValueError, "Spectrum needs a variable with component"),
        (lambda: Landscape(heads()), ValueError, "Landscape needs a variable with x; prefix_matching"),
        (lambda: Landscape(landscape(), x="y", y="y"), ValueError, "two different directions; x='y' and y='y' came"),
        (lambda: Landscape(landscape().isel(x=slice(None, None, -1))), ValueError, r"along x that increase: ds.sortby\('x'\)"),
        (lambda: Timeline(pruning(), x="step"), ValueError, "Timeline needs a variable over step; predicted_increase"),
        (
            lambda: Timeline(pruning(), together=["kept", "first_order"]),
            ValueError,
            "one unit; kept is in share of weights, first",
        ),
        (lambda: Timeline(pruning(), together=["kep"]), LookupError, "no variable 'kep'"),
        (lambda: Timeline(pruning(), together="kept"), ValueError, "takes a list of variables; 'kept' came"),
        (
            lambda: Timeline(heads(), together=["copying", "is_induction"]),
            ValueError,
            "numbers over checkpoint; is_induction has",
        ),
        (lambda: TokenStrip(heads()), ValueError, "TokenStrip needs a variable with position"),
        (lambda: Ranking(heads(), n=0), ValueError, "n= takes how many rows to show, at least 1; 0 came"),
        (lambda: Ranking(patterns(), "token"), ValueError, "Ranking shows numbers; token has values of type"),
        (lambda: Scatter(eigenvalues()), ValueError, "Scatter needs two variables on the same dimensions"),
        (lambda: Scatter(xr.merge([layers(), eigenvalues()]), "cosine", "eigenvalue"), ValueError, "one with all dimensions"),
        (lambda: Scatter(layers(), "cosin"), LookupError, "no variable 'cosin'"),
        (lambda: SampleTable(heads()), ValueError, "SampleTable needs a variable with sample"),
        (lambda: SampleTable(samples(), ["los"]), LookupError, "no variable 'los'"),
        (
            lambda: SampleTable(token_losses().assign(a=1.0), ["a"]),
            ValueError,
            "a column of a SampleTable has sample; a has no dim",
        ),
        (lambda: HeadGrid(heads(), compare=(600, 601)), ValueError, r"checkpoint has no 601; it has 0, 200, 600"),
        (lambda: HeadGrid(heads(), compare=600), ValueError, "compare= takes two values along checkpoint; 600 came"),
        (lambda: HeadGrid(heads(), compare={"model": ("a", "b")}), ValueError, "model is no dimension; there are checkpoint"),
        (lambda: HeadGrid(ablation(), compare=(1, 2)), ValueError, "compare= takes two values of a checkpoint, model"),
        (lambda: view(heads(), x="checkpoint", compare=(0, 600)), ValueError, "compare= does not fit a Timeline"),
        (lambda: view(heads(), budget=3), ValueError, "budget= bounds attention patterns; this is a HeadGrid"),
        (lambda: HeadGrid(heads()) | heads(), TypeError, r"a Dataset came: write ts.view\(…\) around it"),
        (lambda: HeadGrid(heads()) & heads()["copying"], TypeError, "a DataArray came"),
    ],
)
def test_errors_say_what_came_and_what_to_do(made: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_what_qualifies_a_value_travels_with_it() -> None:
    assert Spectrum(eigenvalues()).options["companions"] == {"eigenvalue": {"converged": "converged", "residual": "residual"}}
    bars = LayerBars(layers())
    assert bars.options["companions"]["cosine"] == {
        "low": "ci_low", "high": "ci_high", "q": "q_value", "significant": "significant",
    }  # fmt: skip
    assert bars.options["variables"] == ["cosine", "importance"]
    assert Ranking(weights()).options["asides"] == ["parameter_name", "index"]
    assert HeadGrid(layers().assign(significant=layers()["importance"] > 1)).options["marks"] == []


def test_a_landscape_takes_its_directions_its_intervals_and_the_names_of_its_axes() -> None:
    made = Landscape(landscape())
    assert made.options["variables"] == ["loss", "increase"] and (made.options["x"], made.options["y"]) == ("x", "y")
    assert made.options["companions"] == {"increase": {"low": "increase_ci_low", "high": "increase_ci_high"}}
    assert made.settings == {"log": True}  # its rim is a hundred times as high as all the rest
    assert Landscape(landscape(), log=False).settings == Landscape(np.sqrt(np.log(landscape()[["loss"]]))).settings == {}
    x = made.cube.data["coords"]["x"]
    assert x["attrs"] == {"long_name": "along direction 1", "units": "filter norms"} and x["values"][12] == 0
    turned = view(landscape(), x="y", y="x")
    assert (turned.options["x"], turned.options["y"]) == ("y", "x")
    line = Landscape(landscape().isel(y=12, drop=True), "increase")
    assert "y" not in line.options and line.options["variables"] == ["loss", "increase"]


def test_a_point_of_a_landscape_is_selected_by_its_coordinates() -> None:
    ds = landscape()
    both = Landscape(ds) | Matrix(ds, "increase")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both.focus.update({"x": float(ds.x[3]), "y": 0.0})
    assert both.focus.selection(ds) == {"x": float(ds.x[3]), "y": 0.0}
    assert ds.sel(both.focus.selection(ds))["loss"].item() == ds["loss"][12, 3].item()


def test_curves_of_one_unit_share_a_picture() -> None:
    made = view(pruning())
    assert made.options["x"] == "sparsity" and made.variable == "predicted_increase"
    # what was measured comes first, and what is in another unit, or qualifies a variable, has no place there
    assert made.options["together"] == ["measured_increase", "predicted_increase", "first_order"]
    assert made.options["variables"][:3] == ["predicted_increase", "first_order", "measured_increase"]
    assert made.options["companions"]["measured_increase"] == {
        "low": "measured_increase_ci_low", "high": "measured_increase_ci_high",
    }  # fmt: skip
    assert Timeline(pruning(), together=["first_order", "measured_increase"]).options["together"][0] == "first_order"
    unnamed = pruning().map(lambda v: v.drop_attrs(), keep_attrs=False)
    for alone in (view(pruning(), "kept"), Timeline(pruning(), together=[]), view(density()), view(unnamed), Timeline(heads())):
        assert "together" not in alone.options
    assert Timeline(density(), log=True).settings == {"log": True}
    assert Timeline(heads(), together=["prefix_matching", "previous_token"]).options["x"] == "checkpoint"


def test_a_variable_says_of_itself_what_the_page_tells() -> None:
    ds = heads()
    ds["prefix_matching"].attrs |= {
        "bounds": [0, 1],
        "interval": "95 % Student interval over 8 sequences",
        "null": "uniform attention",
    }
    ds["is_induction"].attrs |= {"rule": "the interval lies above the null", "marks": "prefix_matching"}
    sent = HeadGrid(ds).cube.data["variables"]
    assert sent["prefix_matching"]["attrs"]["bounds"] == [0.0, 1.0]
    assert sent["prefix_matching"]["attrs"]["interval"].startswith("95 %")
    assert sent["is_induction"]["attrs"]["marks"] == "prefix_matching"


def test_the_table_takes_texts_and_what_every_sample_has() -> None:
    table = SampleTable(samples())
    assert table.options["columns"] == ["text", "task", "loss", "influence", "loss_increase"]
    assert table.cube.data["variables"]["text"]["dtype"] == "text"


def test_the_table_has_no_means_of_token_ids() -> None:
    ids = samples().assign(top_token=(("sample", "position"), np.ones((samples().sizes["sample"], 3), int)))
    ids["entropy"] = (("sample", "position"), np.ones(ids["top_token"].shape))
    columns = SampleTable(ids).options["columns"]
    assert "entropy" in columns and "top_token" not in columns
    assert SampleTable(ids, ["top_token"]).options["columns"] == ["top_token"]  # unless it is asked for


class StudyLike:
    def __init__(self, **results: xr.Dataset) -> None:
        self.results = results

    def run(self) -> None: ...

    def __iter__(self) -> Any:
        return iter(self.results)

    def __getitem__(self, name: str) -> xr.Dataset:
        return self.results[name]


def test_a_study_opens_as_one_linked_dashboard() -> None:
    study = StudyLike(
        induction=heads(), ablation=ablation(), spectrum=eigenvalues(), health=samples(), one=xr.Dataset({"total": 1.0})
    )
    made = view(study)
    assert isinstance(made, Composition)
    assert [part.kind for part in made.parts] == ["HeadGrid", "HeadGrid", "HeadGrid", "Spectrum", "Timeline", "SampleTable"]
    assert len({part.focus_model.model_id for part in made.parts}) == 1
    assert made.parts[-1].options["columns"][:2] == ["text", "task"]
    assert view(StudyLike(only=eigenvalues())).kind == "Spectrum"
    over_time = StudyLike(surface=landscape().expand_dims(checkpoint=[0, 600]), curve=pruning().expand_dims(checkpoint=[0, 600]))
    assert [part.kind for part in view(over_time).parts] == ["Landscape", "Timeline"]
    with pytest.raises(ValueError, match="holds no results yet"):
        view(StudyLike())
    with pytest.raises(ValueError, match=r"takes no variable, x; view one of its results"):
        view(study, "loss", x="layer")
    with pytest.raises(ValueError, match="single numbers; read"):
        view(StudyLike(one=xr.Dataset({"total": 1.0})))


def test_compositions_show_the_selection_unless_told_not_to() -> None:
    a, b = HeadGrid(heads()), Timeline(heads())
    assert (a | b).focus_bar and not Composition("beside", [a, b], focus_bar=False).focus_bar
    assert not (FocusBar(focus=a.focus) & a).focus_bar


def test_places_are_picked_one_by_one() -> None:
    ds = heads()
    focus = HeadGrid(ds).focus
    focus.places = [{"layer": 0, "head": 0}, {"layer": 1, "head": np.int64(2)}]
    assert focus.cursor == {"layer": [0, 1], "head": [0, 2]} and focus.selection(ds) == focus.cursor
    focus["checkpoint"] = 600
    assert len(focus.places) == 2
    focus["head"] = 1
    assert focus.places == []
    focus.places = [{"layer": 0, "head": 0}, {"layer": 0, "head": 1}]
    assert focus.places == [] and focus.cursor == {"layer": 0, "head": [0, 1], "checkpoint": 600}
    with pytest.raises(ValueError, match="places share their dimensions"):
        focus.places = [{"layer": 0}, {"head": 0}]


def test_a_selection_that_no_view_has_is_warned_of() -> None:
    both = HeadGrid(heads()) | Matrix(circuits())
    with pytest.warns(UserWarning, match=r"no linked view has 'hed'; they have checkpoint, head, kind"):
        both.focus["hed"] = 1
    with pytest.warns(UserWarning, match=r"no linked view has head 99; there are 0, 1, 2, 3"):
        both.focus["head"] = 99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both.focus.update({"layer": 1, "head": [0, 3], "checkpoint": 650, "source": "0.1", "sample": None})
        Focus()["anything"] = 1


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 0.0, -3.5], ids=str)
@pytest.mark.parametrize("kind", [HeadGrid, LayerBars, Matrix, Ranking], ids=lambda k: k.__name__)
def test_odd_values_are_shown(kind: Any, fill: float) -> None:
    for shape in ((2, 4), (1, 1)):
        view = kind(xr.Dataset({"v": (("layer", "head"), np.full(shape, fill))}))
        sent = np.frombuffer(view.cube.data["variables"]["v"]["data"], dtype="<f4")
        assert view.variable == "v" and len(sent) == shape[0] * shape[1] and np.isclose(sent, fill, equal_nan=True).all()


def test_a_cube_beyond_its_size_is_refused_with_advice() -> None:
    side = int((MOST / 4) ** 0.5) + 1
    with pytest.raises(
        ValueError, match=r"weighs 64\.0 MB in the page, over the budget of 64\.0 MB: show a part of it, ds\.isel\("
    ):
        Matrix(xr.Dataset({"k": (("sample_a", "sample_b"), np.zeros((side, side), dtype="f4"))}))
