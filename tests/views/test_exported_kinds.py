"""Every kind of view in a file without kernel and network: drawn, linked, accessible, and not broken by odd data."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import (
    ablation,
    attribution,
    circuit_rows,
    circuits,
    composition,
    conflicts,
    density,
    eigenvalues,
    heads,
    images,
    landscape,
    layers,
    lens,
    module_conflicts,
    patterns,
    pruning,
    samples,
    similarity,
    tickets,
    token_losses,
    tokens,
    tracin,
    two_models,
    weights,
)

from tensorscope_nb.views import (
    AttentionPattern,
    Focus,
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
    export_html,
)  # fmt: skip
from tensorscope_nb.views import view as ts_view
from tensorscope_nb.views.dashboard import dashboard
from tensorscope_nb.views.runtime import BUNDLE

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[2] / "widgets" / "node_modules" / "axe-core" / "axe.min.js"
# What the page paints: the share of pixels of a canvas that are not empty.
PAINTED = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
  return n / (data.length / 4);
}"""


# The share of pixels in which two pictures differ, at the size of the second.
DIFFERENT = """async ([a, b]) => {
  const images = await Promise.all([a, b].map(async (data) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    return image;
  }));
  const { width, height } = images[1];
  const [one, two] = images.map((image) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  });
  let n = 0;
  for (let i = 0; i < one.length; i += 4) n += [0, 1, 2].some((c) => Math.abs(one[i + c] - two[i + c]) > 90);
  return n / (width * height);
}"""


def everything() -> View:
    history = heads()
    return (
        (HeadGrid(history) | AttentionPattern(patterns()))
        & Timeline(history)
        & (LayerBars(layers()) | Matrix(circuits()) | Spectrum(eigenvalues()))
        & (Ranking(ablation()) | Ranking(weights()) | Scatter(layers(), "cosine", "importance"))
        & SampleTable(samples())
        & TokenStrip(token_losses())
        & HeadGrid(history, compare=(600, 3000))
        & Matrix(similarity())
        & (Timeline(pruning()) | Timeline(density(), log=True))
        & (Landscape(landscape(), log=True) | Landscape(landscape().isel(y=12, drop=True), "increase"))
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page_of: Any, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run npm ci in widgets/")
    of_heads = ts_view(composition()) & ts_view(circuit_rows(n=24)) & ts_view(attribution(layers=3))
    of_tokens = ts_view(tokens()) & ts_view(lens()) & ts_view(two_models())
    taught = ts_view(tracin(length=8)) & ts_view(images()) & ts_view(tickets())
    view = everything() & taught & dashboard({"modules": module_conflicts(), "pairs": conflicts()}) & of_heads & of_tokens
    view.focus.update({"layer": 1, "head": 2, "sample_a": "prose-3", "sample_b": "code-5", "position_a": 2})
    page = page_of(view, color_scheme=scheme)
    page.locator("[data-ts-view=TokenStrip] .ts-token").first.wait_for()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [
        (v["id"], v["impact"], [n["html"][:160] for n in v["nodes"][:4]]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert serious == [] and page.problems == []


def test_all_kinds_follow_one_focus_without_a_kernel(page_of: Any) -> None:
    page = page_of(everything())
    bar = page.locator("[data-ts-view=FocusBar]")
    bar.get_by_role("combobox", name="layer").select_option("1")
    bar.get_by_role("combobox", name="head").select_option("2")
    for root in page.locator("[data-ts-focus]").all():
        assert json.loads(root.get_attribute("data-ts-focus")) == {"layer": 1, "head": 2}
    assert page.locator("[data-ts-view=AttentionPattern] .ts-title").text_content() == "Layer 1 · head 2 · sample shakespeare-0"
    for canvas in page.locator("canvas").all():
        assert canvas.evaluate(PAINTED) > 0.02
    page.keyboard.press("Control+z")
    bar.get_by_role("button", name="undo").click()
    assert page.problems == []


def test_bars_show_what_they_are_compared_with(page_of: Any) -> None:
    ds = layers()
    ds = ds[["cosine"]].assign(null=("layer", np.full(ds.sizes["layer"], 0.4)))
    ds["cosine"].attrs["null"] = "random directions"
    page = page_of(ts_view(ds, "cosine") | ts_view(ds[["cosine"]], "cosine"))
    with_null, without = page.locator("[data-ts-view=LayerBars]").all()
    assert with_null.get_by_text("null: random directions").is_visible()
    assert not without.get_by_text("null").count()
    assert with_null.locator("canvas").screenshot() != without.locator("canvas").screenshot()
    assert page.problems == []


def test_a_header_compares_switches_and_saves_a_picture(page_of: Any) -> None:
    page = page_of(HeadGrid(heads(), compare=(600, 3000)) & AttentionPattern(patterns()) & Spectrum(eigenvalues()))
    grid = page.locator("[data-ts-view=HeadGrid]")
    words = lambda: grid.locator(".ts-compared .ts-title").all_text_contents()
    assert words() == ["checkpoint 600", "checkpoint 3000", "Difference: checkpoint 3000 minus 600"]
    grid.get_by_role("combobox", name="what is shown").select_option("difference")
    grid.get_by_role("combobox", name="first checkpoint").select_option("0")
    assert words() == ["Difference: checkpoint 3000 minus 0"]
    grid.get_by_role("combobox", name="variable").select_option("copying")
    assert grid.locator(".ts-title").first.text_content() == "Copying score"
    pattern = page.locator("[data-ts-view=AttentionPattern]")
    pattern.get_by_text("without first").click()
    assert "without the first token" in pattern.locator(".ts-sub").first.text_content()
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_saved_picture_is_what_the_page_shows(page_of: Any, scheme: str) -> None:
    rows = HeadGrid(heads(), compare=(600, 3000)) & AttentionPattern(patterns()) & Ranking(ablation())
    page = page_of(rows & TokenStrip(token_losses()) & SampleTable(samples()), color_scheme=scheme)
    for kind in ("HeadGrid", "AttentionPattern", "Ranking", "TokenStrip", "SampleTable"):
        root = page.locator(f"[data-ts-view={kind}]")
        with page.expect_download() as download:
            root.get_by_role("button", name="save as picture (PNG)").click()
        saved = Path(download.value.path()).read_bytes()
        assert saved.startswith(b"\x89PNG") and download.value.suggested_filename.endswith(".png")
        page.mouse.move(0, 0)
        shown = root.screenshot(
            style=".ts-tools { visibility: hidden } :focus { outline: none !important }", animations="disabled"
        )
        both = [base64.b64encode(png).decode() for png in (saved, shown)]
        assert page.evaluate(DIFFERENT, both) < 0.02, kind
    assert page.problems == []


def test_a_point_of_a_landscape_is_picked_by_pointer_and_by_keyboard(page_of: Any) -> None:
    page = page_of(Landscape(landscape(), log=False) | Matrix(landscape(), "increase"))
    view = page.locator("[data-ts-view=Landscape]")
    canvas, words = view.locator("canvas"), view.locator(".ts-sub").first
    at = lambda: json.loads(view.get_attribute("data-ts-focus"))
    assert "39 not computed" in words.text_content() and "slices through the centre" in words.text_content()
    canvas.focus()
    page.keyboard.press("ArrowUp")
    assert at() == {"x": 0, "y": 0}  # the keyboard begins at the model
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert at() == {"x": float(landscape().x[11]), "y": float(landscape().y[13])}
    assert "slices through (−0.08333, 0.08333)" in words.text_content()
    assert json.loads(page.locator("[data-ts-view=Matrix]").get_attribute("data-ts-focus")) == at()
    matrix = page.locator("[data-ts-view=Matrix]")
    matrix.locator("canvas").focus()
    page.keyboard.press("Enter")
    assert (
        matrix.locator(".ts-live").text_content().startswith("Selected Along direction 2: 0.08333 · along direction 1: −0.08333")
    )
    canvas.focus()
    page.keyboard.press("Escape")
    assert at() == {}
    box = canvas.bounding_box()
    canvas.hover(position={"x": 70, "y": 10})
    assert view.locator(".ts-tip div").all_text_contents()[0] == "Along direction 1: −1 · along direction 2: 1"
    canvas.click(position={"x": 70, "y": 10})
    assert at() == {"x": -1, "y": 1}
    canvas.click(position={"x": 200, "y": box["height"] - 80})  # on the slice the other direction stays
    assert at()["y"] == 1 and -1 < at()["x"] < 1
    view.get_by_role("combobox", name="variable").select_option("increase")
    assert view.get_by_text("interval holds 0").is_visible()
    view.get_by_role("button", name="log").click()
    assert view.get_by_text("above the smallest (nats per token), logarithmic").is_visible()
    assert page.problems == []


def test_a_curve_over_a_number_knows_no_training_and_shows_what_was_predicted_and_measured(page_of: Any) -> None:
    page = page_of(Timeline(pruning()))
    view = page.locator("[data-ts-view=Timeline]")
    canvas, log = view.locator("canvas"), view.get_by_role("button", name="log")
    names = [
        "increase measured",
        "increase predicted from the curvature",
        "increase predicted from the gradient",
        "95 % interval",
    ]
    assert view.locator(".ts-key").all_text_contents() == names
    assert view.locator(".ts-title").text_content() == "Increase by sparsity"
    assert view.get_by_role("button", name="play").count() == 0
    width = canvas.bounding_box()["width"]
    canvas.hover(position={"x": width - 40, "y": 60})
    assert view.locator(".ts-tip div").all_text_contents() == [
        "Sparsity 0.99",
        "increase measured: 2.93 (nats per token)",
        "95 % interval: 2.32 to 3.54",
        "increase predicted from the curvature: 2.15 (nats per token)",
        "increase predicted from the gradient: 0.0990 (nats per token)",
    ]
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert json.loads(view.get_attribute("data-ts-focus")) == {"sparsity": 0}
    page.keyboard.press("End")
    assert json.loads(view.get_attribute("data-ts-focus")) == {"sparsity": 0.99}
    page.keyboard.press("Escape")
    assert json.loads(view.get_attribute("data-ts-focus")) == {}
    log.click()
    assert "what is not above 0 has no place" in view.locator(".ts-sub").first.text_content()
    view.get_by_role("button", name="together").click()
    view.get_by_role("combobox", name="variable").select_option("kept")
    assert view.locator(".ts-title").text_content() == "Weights kept by sparsity"
    words = page.locator("#view").inner_html().lower()
    assert "checkpoint" not in words and "training" not in words
    assert page.problems == []


def test_a_spectrum_says_what_is_not_converged_and_follows_its_layer(page_of: Any) -> None:
    by_layer = xr.concat([eigenvalues(), eigenvalues().assign(converged=("component", np.ones(20, dtype=bool)))], "layer")
    page = page_of(Spectrum(by_layer.assign_coords(layer=[0, 1])))
    view = page.locator("[data-ts-view=Spectrum]")
    keys = lambda: view.locator(".ts-key").all_text_contents()
    words, said = view.locator(".ts-sub").first, view.locator(".ts-live")
    assert words.text_content() == "layer 0 (the first of 2) · 20 components · 3 not converged"
    assert keys() == [
        "± residual: some eigenvalue is within", "not converged: the true value may lie outside the whisker",
    ]  # fmt: skip
    view.locator("canvas").focus()
    page.keyboard.press("End")
    assert "± 0.0100 (residual), not converged" in said.text_content()
    page.keyboard.press("Home")
    assert "± 1.00e−6 (residual), converged" in said.text_content()
    page = page_of(Spectrum(by_layer.assign_coords(layer=[0, 1]), focus=Focus(layer=1)))
    view = page.locator("[data-ts-view=Spectrum]")
    assert view.locator(".ts-sub").first.text_content() == "layer 1 · 20 components"
    assert view.locator(".ts-key").all_text_contents() == ["± residual: some eigenvalue is within"]
    assert page.problems == []


TOKENS = ["<script>alert(1)</script>", "שלום", "\x00\x1b", "long" * 2_500, "\u202eabc", "&amp;", "", "\n"]


def test_odd_tokens_are_text(page_of: Any) -> None:
    n = len(TOKENS)
    pattern = np.tril(np.ones((1, 1, 1, n, n))) / np.arange(1, n + 1)[:, None]
    ds = xr.Dataset(
        {
            "pattern": (("sample", "layer", "head", "query", "key"), pattern),
            "token": (("sample", "position"), np.array([TOKENS], dtype=object)),
            "loss": (("sample", "position"), np.arange(n, dtype=float)[None]),
        },
        {"sample": ["<b>one</b>"], "text": ("sample", ["<img src=x onerror=alert(1)>" + "a" * 10_000])},
    )
    page = page_of(AttentionPattern(ds) & TokenStrip(ds) & SampleTable(ds[["loss"]]))
    shown = page.locator("[data-ts-view=TokenStrip] .ts-token")
    assert shown.count() == n and shown.nth(0).text_content() == TOKENS[0]
    assert shown.nth(2).text_content() == "␀␛" and len(shown.nth(3).text_content()) < 200
    assert page.locator("script:not(body > script), #view img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    assert page.problems == []


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 0.0, 5.0, -5.0], ids=str)
def test_constant_missing_and_infinite_values_are_drawn(page_of: Any, fill: float) -> None:
    one = lambda *dims: xr.Dataset({"v": (dims, np.full([1] * len(dims), fill)), "w": (dims, np.full([1] * len(dims), 1.0))})
    three = lambda *dims: xr.Dataset({"v": (dims, np.full([3] * len(dims), fill)), "w": (dims, np.full([3] * len(dims), 1.0))})
    for make in (one, three):
        page = page_of(
            (HeadGrid(make("layer", "head")) | Matrix(make("layer_a", "layer_b")) | LayerBars(make("layer")))
            & (Ranking(make("module")) | Scatter(make("sample"), "w", "v") | Spectrum(make("component"), log=True))
            & (Landscape(make("y", "x")) | Landscape(make("y", "x"), log=True) | Landscape(make("x"), log=True))
            & (
                TokenStrip(make("sample", "position"))
                | SampleTable(make("sample"))
                | Timeline(make("checkpoint", "layer"), log=True)
            )
        )
        assert page.locator(".ts-error").count() == 0
        assert page.problems == []
        text = page.locator("#view").inner_text()
        assert "NaN" not in text and "Infinity" not in text and "undefined" not in text
        page.context.close()


def test_the_file_weighs_little_besides_its_data(tmp_path: Path) -> None:
    assert BUNDLE.stat().st_size <= 150_000
    path = export_html(HeadGrid(ablation()) | Timeline(heads()), tmp_path / "a.html")
    assert path.stat().st_size <= 250_000
