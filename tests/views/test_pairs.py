"""Pairs of samples: which views tell of them, and the way from a conflict to its tokens in a file without a kernel."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import conflicts, head_conflicts, heads, module_conflicts, token_losses

from tensorscope_nb.views import Composition, Focus, Matrix, Ranking, SampleTable, TokenStrip, View, export_html, view
from tensorscope_nb.views.dashboard import dashboard
from tensorscope_nb.views.live import Live

STORY = [
    *("Ranking(cosine_corrected)", "Matrix(pair_dot)", "HeadGrid(score)", "Matrix(pair_score)"),
    *("Matrix(cosine)", "SampleTable(pair_cosine)", "TokenStrip(contribution_a)", "TokenStrip(contribution_b)"),
]  # fmt: skip


def results() -> dict[str, xr.Dataset]:
    return {"modules": module_conflicts(), "heads": head_conflicts(), "pairs": conflicts()}


@pytest.mark.parametrize(("make", "parts"), list(zip(results().values(), (STORY[:2], STORY[2:4], STORY[4:]), strict=True)))
def test_a_result_that_tells_of_pairs_has_a_matrix_of_them_beside(make: xr.Dataset, parts: list[str]) -> None:
    focus = Focus()
    made = view(make, focus=focus)
    assert [repr(part) for part in made.parts] == parts
    assert {id(part.focus) for part in made.parts} == {id(focus)} and len({id(part.cube) for part in made.parts}) == 1
    assert view(make, made.parts[0].variable).kind == made.parts[0].kind


def test_a_study_walks_from_a_module_to_the_tokens() -> None:
    made = dashboard({"pairs": conflicts(), **results(), "induction": heads()})
    assert [repr(part) for part in made.parts] == [
        "HeadGrid(prefix_matching)", *STORY[:4], *STORY[4:6], *STORY[6:], "Timeline(prefix_matching)"
    ]  # fmt: skip
    rows = [[part.kind for part in child.parts] for child in made.children]
    assert rows[1:5] == [["Ranking", "Matrix"], ["HeadGrid", "Matrix"], ["Matrix", "SampleTable"], ["TokenStrip"] * 2]
    assert all(isinstance(child, Composition) for child in made.children[1:5])


def test_live_results_of_pairs_keep_their_views() -> None:
    live = Live()
    live.show(results())
    first = live.parts
    assert [repr(part) for part in first] == STORY
    new = {name: ds.copy(deep=True) for name, ds in results().items()}
    new["pairs"]["cosine"] *= -1
    live.show(new)
    assert live.parts == first
    sent = np.frombuffer(live.parts[4].cube.data["variables"]["cosine"]["data"], dtype="<f4")
    assert np.allclose(sent, new["pairs"]["cosine"].values.ravel())


def test_a_strip_of_a_pair_knows_its_text_its_tokens_and_its_counterpart() -> None:
    options = TokenStrip(conflicts(), "contribution_b").options
    assert {k: options[k] for k in ("rows", "along", "tokens", "side", "of", "order", "variables", "alike")} == {
        "rows": "pair", "along": "position_b", "tokens": "token_text_b", "side": "b", "of": "pair_sample_b",
        "order": "most conflicting first", "variables": ["contribution_b"],
        "alike": {"variable": "contribution_a", "along": "position_a"},
    }  # fmt: skip
    plain = TokenStrip(token_losses()).options
    assert (plain["rows"], plain["along"], plain["tokens"]) == ("sample", "position", "token")
    assert not {"side", "of", "order", "alike"} & set(plain)
    shared = conflicts().rename(position_a="position").rename(position_b="place").drop_vars(["contribution_b", "token_text_b"])
    assert TokenStrip(shared).options["tokens"] == "token_text_a" and "alike" not in TokenStrip(shared).options
    words = token_losses().rename(token="words")
    assert TokenStrip(words, tokens="words").options["tokens"] == "words" and "tokens" not in TokenStrip(words).options


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda: TokenStrip(conflicts(), tokens="words"), LookupError, r"tokens= names a variable; there is no 'words', there"),
        (
            lambda: TokenStrip(conflicts(), "contribution_a", tokens="token_text_b"),
            ValueError,
            "tokens= names a variable with position_a, and pair at most besides; token_text_b has pair, position_b",
        ),
        (
            lambda: TokenStrip(conflicts(), "cosine"),
            ValueError,
            "TokenStrip needs position; cosine has sample_a, sample_b",
        ),
        (
            lambda: Matrix(module_conflicts().assign(pair_dot=lambda ds: ds["pair_dot"].assign_attrs(reduce="median"))),
            ValueError,
            "the attribute reduce of pair_dot takes mean, max, min, sum, first, strongest; it is 'median'",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(made: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_a_matrix_takes_what_there_is_to_say_of_its_rows_columns_and_cells() -> None:
    options = Matrix(conflicts()).options
    assert options["about"] == {"sample_a": ["task_a", "loss_a", "text_a"], "sample_b": ["task_b", "loss_b", "text_b"]}
    assert options["cells"] == ["token_a", "token_b"] and options["variables"] == ["cosine", "dot"]
    assert options["companions"] == {"cosine": {"p": "p_value", "q": "q_value", "significant": "significant"}}
    sent = Matrix(module_conflicts()).cube.data["variables"]["pair_dot"]
    assert sent["attrs"]["reduce"] == "sum"


def test_a_table_of_pairs_has_their_tests() -> None:
    table = SampleTable(conflicts(), ["pair_cosine"], by="pair")
    assert table.options["companions"] == {"pair_cosine": {"p": "pair_p_value", "significant": "pair_significant"}}
    assert Ranking(conflicts(), "pair_cosine").options["companions"]["pair_cosine"]["p"] == "pair_p_value"


def test_the_focus_selects_a_pair_by_its_samples() -> None:
    made = view(conflicts())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.focus.update({"sample_a": "prose-3", "sample_b": "code-5"})
    ds = conflicts()
    assert made.focus.selection(ds) == {"sample_a": "prose-3", "sample_b": "code-5", "pair": ["prose-3 × code-5"]}
    assert ds.sel(made.focus.selection(ds))["contribution_a"].shape == (1, 24)
    strip = TokenStrip(ds, "contribution_a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strip.focus["sample_b"] = "code-5"  # a strip has no such dimension, and follows by a coordinate
    with pytest.warns(UserWarning, match="no linked view has sample_a 'prose-99'"):
        strip.focus["sample_a"] = "prose-99"


def cell(matrix: Any, row: int, column: int) -> dict[str, float]:
    """Where a cell of one of these 12 × 10 matrices is on its canvas."""
    box = matrix.locator("canvas").bounding_box()
    left, side = 74, int((box["width"] - 76) / 10)
    return {"x": left + (column + 0.5) * side, "y": 2 + (row + 0.5) * side}


def inks(strip: Any) -> list[int]:
    """For each token with a value how much more red than blue it is."""
    return strip.locator(".ts-token").evaluate_all(
        "tags => tags.map(t => t.style.background.match(/\\d+/g)).filter(Boolean).map(c => c[0] - c[2])"
    )


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_a_module_to_the_tokens_without_a_kernel(page_of: Any, scheme: str) -> None:
    ds = conflicts()
    page = page_of(dashboard(results()), color_scheme=scheme)
    dots, scores, cosines = (page.locator("[data-ts-view=Matrix]").nth(i) for i in range(3))
    a, b = (page.locator("[data-ts-view=TokenStrip]").nth(i) for i in range(2))
    words = lambda part, name="sub": part.locator(f".ts-{name}").first.text_content()
    cursor = lambda: json.loads(page.locator("[data-ts-view=FocusBar]").get_attribute("data-ts-focus"))
    assert words(dots) == "sum over 12 modules" and words(cosines) == "12 × 10"
    assert words(a) == "text a of pair prose-3 × code-5 (the first of 20, most conflicting first)"
    page.locator("[data-ts-view=Ranking] tbody tr").first.click()
    assert words(dots) == "module layers.1.attn.k"
    page.locator("[data-ts-view=HeadGrid] canvas").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert cursor() == {"layer": 1, "head": 1, "block": "K", "module": "layers.1.attn.k"}
    assert words(scores) == "block K · layer 1 · head 1"
    cosines.locator("canvas").click(position=cell(cosines, 3, 8))
    assert (cursor()["sample_a"], cursor()["sample_b"]) == ("prose-3", "code-8")
    for strip, side, sample in ((a, "a", "prose-3"), (b, "b", "code-8")):
        pair = ds.sel(pair="prose-3 × code-8")
        tokens = [t for t in pair[f"token_text_{side}"].values.tolist() if t]
        shown = strip.locator(".ts-token").all_text_contents()
        assert [t.replace("·", " ").replace("↵", "\n") for t in shown] == tokens
        assert words(strip, "title").startswith(f"{sample}: ") and words(strip) == f"text {side} of pair prose-3 × code-8"
        value = pair[f"contribution_{side}"].values[: len(tokens)]
        strong = np.abs(value) > 0.2 * np.abs(value).max()
        assert (np.sign(inks(strip))[strong] == np.sign(value)[strong]).all()
    ticks = [strip.locator(".ts-ramp-tick").all_text_contents() for strip in (a, b)]
    assert ticks[0] == ticks[1]
    assert "prose-3 × code-8" in page.locator("[data-ts-view=SampleTable] tr[aria-selected=true]").text_content()
    tip = cosines.locator(".ts-tip").inner_text()
    for part in ("Sample a prose-3 · sample b code-8", "q ", " · p ", "prose-3 · prose · loss ", "code-8 · code · loss ", "“"):
        assert part in tip
    assert "significant: q ≤ 0.05" in cosines.locator(".ts-legend").inner_text()
    # a pair that nobody looked at token by token
    cosines.locator("canvas").click(position=cell(cosines, 6, 9))
    for strip in (a, b):
        assert words(strip, "nothing") == "prose-6 × code-9 is not among the 20 pairs looked at token by token"
        assert strip.locator(".ts-token").count() == 0 and strip.get_by_role("combobox", name="pair").input_value() == ""
    # from the table to the matrices, and a token that has no counterpart
    page.locator("[data-ts-view=SampleTable] tbody tr[data-row]").nth(1).click()
    assert cursor()["sample"] == ["prose-7", "code-2"] and words(a) == "text a of pair prose-7 × code-2"
    a.locator(".ts-token").nth(2).click()
    assert cursor()["position_a"] == 2 and "position" not in cursor()
    assert (a.locator(".ts-query").count(), b.locator(".ts-query").count()) == (1, 0)
    cosines.locator("canvas").click(position=cell(cosines, 3, 5))
    assert "pair" not in cursor() and words(b) == "text b of pair prose-3 × code-5"
    cosines.locator("canvas").press("ArrowRight")
    assert cursor()["sample_b"] == "code-6"
    assert page.problems == []


@pytest.mark.browser
def test_odd_pairs_are_drawn(page_of: Any, tmp_path: Path) -> None:
    ds = conflicts(pairs=1).assign_coords(text_a=("sample_a", ["<img src=x onerror=alert(1)>"] * 12))
    ds["token_text_a"] = ds["token_text_a"].astype(object)
    ds["token_text_a"][0, 0] = "<script>alert(1)</script>"
    ds["contribution_a"][:] = np.nan
    ds["cosine"][:] = 0
    ds["cosine"][2] = np.nan
    made: View = view(ds)
    page = page_of(export_html(made, tmp_path / "odd.html"))
    strips = page.locator("[data-ts-view=TokenStrip]")
    assert strips.nth(0).locator(".ts-token").first.text_content() == "<script>alert(1)</script>"
    assert "no values here" in strips.nth(0).locator(".ts-sub").first.text_content()
    matrix = page.locator("[data-ts-view=Matrix]")
    matrix.locator("canvas").hover(position=cell(matrix, 2, 2))
    assert "<img src=x" in matrix.locator(".ts-tip").inner_text() and page.locator("#view img").count() == 0
    text = page.locator("#view").inner_text()
    assert "NaN" not in text and "undefined" not in text and page.problems == []
