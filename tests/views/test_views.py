import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from views.synthetic import ablation, heads, patterns

from tensorscope_nb.views import AttentionPattern, Composition, Focus, HeadGrid, Timeline, View, view


def test_views_import_without_torch_and_widgets() -> None:
    code = "import sys, tensorscope_nb.views.accessor; print(sorted({'torch', 'anywidget', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    code = "import sys; from tensorscope_nb.views import HeadGrid; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: view(patterns()), "AttentionPattern"),
        (lambda: view(patterns(), "pattern"), "AttentionPattern"),
        (lambda: view(heads()), "HeadGrid"),
        (lambda: view(heads(), "copying"), "HeadGrid"),
        (lambda: view(heads(), x="checkpoint"), "Timeline"),
        (lambda: view(heads()["copying"].rename("score"), x="checkpoint"), "Timeline"),
        (lambda: view(heads().isel(head=0, drop=True)), "Timeline"),
        (lambda: view(ablation(), x="head", y="layer"), "HeadGrid"),
        (lambda: view(xr.DataArray(np.zeros((2, 3)), dims=("layer", "head"))), "HeadGrid"),
        (lambda: view(xr.DataArray(np.zeros((9, 3)), dims=("step", "layer"))), "Timeline"),
        (lambda: view(heads()["ci_low"]), "HeadGrid"),
    ],
)
def test_the_dimensions_choose_the_view(made: object, kind: str) -> None:
    assert made().kind == kind  # type: ignore[operator]


def test_the_accessor_views_datasets_and_arrays() -> None:
    import tensorscope_nb.views.accessor  # noqa: F401

    assert heads().ts.view("copying").variable == "copying"
    assert heads()["copying"].ts.view(x="checkpoint").kind == "Timeline"


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda: view(heads(), "coping"), LookupError, "no variable 'coping'; there are prefix_matching, "),
        (
            lambda: view(heads(), x="neuron"),
            ValueError,
            "x='neuron' is no dimension of this Dataset; there are checkpoint, head, layer",
        ),
        (
            lambda: view(xr.Dataset({"total": 1.0})),
            ValueError,
            r"total is a single number: read result\[\"total\"\], or view it along checkpoints or models of a Study",
        ),
        (
            lambda: view(heads(), "copying", x="layer", y="checkpoint"),
            ValueError,
            r"no view fits copying .*x='layer', y='checkpoint'",
        ),
        (lambda: HeadGrid(patterns(), "token"), ValueError, "HeadGrid needs layer and head; token has sample, position"),
        (lambda: HeadGrid(xr.Dataset()), ValueError, "HeadGrid needs a variable with layer and head; no variables came"),
        (lambda: Timeline(ablation()), ValueError, r"Timeline needs a variable over checkpoint; loss_increase \[layer, head\]"),
        (lambda: Timeline(ablation(), "loss_increase"), ValueError, "Timeline needs checkpoint; loss_increase has layer, head"),
        (lambda: AttentionPattern(heads()), ValueError, "AttentionPattern needs a variable with query and key; prefix_matching"),
        (
            lambda: HeadGrid(heads(), reduce="median"),
            ValueError,
            "reduce= takes mean, max, min, sum, first, strongest; 'median' came",
        ),
        (lambda: HeadGrid(heads(), focus={"layer": 1}), TypeError, "focus= takes a Focus"),
    ],
)
def test_errors_say_what_came_and_what_fits(made: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        made()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_plain_interval_belongs_to_the_first_variable() -> None:
    options = HeadGrid(heads()).options
    assert options["variables"] == ["prefix_matching", "previous_token", "copying"]
    assert options["companions"] == {"prefix_matching": {"low": "ci_low", "high": "ci_high", "null": "null"}}
    assert options["marks"] == ["is_induction"]
    named = ablation().assign(loss_increase_by_sample_ci_low=ablation()["loss_increase_by_sample"])
    companions = HeadGrid(named, "loss_increase_by_sample").options["companions"]
    assert companions["loss_increase_by_sample"] == {"low": "loss_increase_by_sample_ci_low"}
    assert companions["loss_increase"] == {"low": "ci_low", "high": "ci_high"}


def focuses(*views: View) -> set[int]:
    return {id(v.focus) for v in views} | {id(v.focus.model) for v in views}


def test_composing_makes_one_focus_and_the_left_one_stays() -> None:
    grid, pattern, line = HeadGrid(heads()), AttentionPattern(patterns()), Timeline(heads())
    grid.focus["layer"], pattern.focus["layer"], pattern.focus["sample"] = 1, 0, "shakespeare-2"
    former, heard = pattern.focus, []
    former.observe(heard.append)
    both = (grid | pattern) & line
    assert len(focuses(both, grid, pattern, line)) == 2
    assert both.focus.cursor == {"layer": 1, "sample": "shakespeare-2"}
    former["head"] = 3
    assert both.focus["head"] == 3 and heard[-1]["head"] == 3
    assert {v.focus_model.model_id for v in (both, grid, pattern, line, *both.children)} == {both.focus.model.model_id}
    assert both.parts == [grid, pattern, line]


def test_a_view_that_stands_elsewhere_brings_its_company_along() -> None:
    a, b, c = HeadGrid(heads()), HeadGrid(heads()), HeadGrid(heads())
    with_c = b | c
    joined = a | b
    assert len(focuses(a, b, c, with_c, joined)) == 2


def test_composing_with_one_focus_changes_nothing() -> None:
    focus = Focus(layer=1)
    a, b = HeadGrid(heads(), focus=focus), Timeline(heads(), focus=focus)
    assert (a & b).focus is focus is a.focus


def test_chains_are_flat_and_mixtures_nest() -> None:
    a, b, c = (HeadGrid(heads()) for _ in range(3))
    assert repr(a | b | c) == "HeadGrid(prefix_matching) | HeadGrid(prefix_matching) | HeadGrid(prefix_matching)"
    assert [isinstance(v, Composition) for v in ((a | b) & c).children] == [True, False]
    assert repr((a | b) & c).startswith("(HeadGrid(prefix_matching) | ")
    with pytest.raises(TypeError):
        a | 3  # type: ignore[operator]


def test_the_bundle_travels_once() -> None:
    views = [HeadGrid(heads()) for _ in range(3)]
    assert len({v.runtime.model_id for v in views}) == 1
    assert all(len(v.get_state()["_esm"]) < 400 for v in views)
