"""What training samples taught: which views tell of it, and what is in them."""

from typing import Any

import numpy as np
import pytest
from views.synthetic import heads, images, samples, tracin

from tensorscope_nb.views import Focus, Matrix, SampleTable, TokenStrip, fields, view
from tensorscope_nb.views.dashboard import dashboard
from tensorscope_nb.views.live import Live

STORY = ["Matrix(influence)", "Matrix(contribution)", "TokenStrip(token_influence)", "SampleTable(influence)"]


def test_influence_is_a_matrix_when_it_was_the_tokens_and_a_ranking() -> None:
    made = view(tracin(length=12))
    assert [repr(part) for part in made.parts] == STORY and len({id(part.cube) for part in made.parts}) == 1
    assert [[part.kind for part in row.parts] for row in made.children] == [["Matrix"] * 2, ["TokenStrip"], ["SampleTable"]]
    # where there are no tokens to be shown there is a list of the test samples
    assert [repr(part) for part in view(tracin()).parts] == [*STORY[:2], "SampleTable(test_loss)", STORY[3]]
    assert [repr(part) for part in view(tracin(checkpoints=1)).parts] == [STORY[0], "SampleTable(test_loss)", STORY[3]]
    bare = tracin()[["influence"]].drop_vars(["test_text", "test_task"])
    assert repr(view(bare)) == "Matrix(influence) & SampleTable(influence)"
    assert [part.options["y"] for part in made.parts[:2]] == ["sample", "sample"]
    assert [part.options["x"] for part in made.parts[:2]] == ["test_sample", "checkpoint"]


def test_one_variable_of_it_has_its_view() -> None:
    ds = tracin(length=12)
    assert [view(ds, n).kind for n in ("influence", "contribution", "token_influence")] == ["Matrix", "Matrix", "TokenStrip"]
    assert view(ds, "self_contribution").kind == "Timeline" and view(ds, "self_influence").kind == "SampleTable"


def test_the_ranking_has_what_there_is_and_the_mean_has_the_interval() -> None:
    table = view(tracin(length=12)).parts[-1]
    assert table.options["columns"] == ["text", "task", "influence", "contribution", "self_influence"]
    assert table.settings == {"sort": {"column": "influence", "descending": True}}
    # self_influence comes first in the Dataset, and has no interval
    assert table.options["companions"] == {"mean_influence": {"low": "ci_low", "high": "ci_high"}}
    assert table.options["along"] == {"contribution": "checkpoint"}
    assert view(tracin(checkpoints=1)).parts[-1].options["columns"] == ["text", "task", "influence", "self_influence"]


def test_images_stand_in_the_rows_and_are_no_measure() -> None:
    made = view(images())
    tests, train = made.parts[2:]
    assert (tests.options["pictures"], train.options["pictures"]) == ("test_pixels", "pixels")
    assert tests.options["columns"] == ["test_text", "test_loss"]  # all are of one task
    assert [[part.kind for part in row.parts] for row in made.children] == [["Matrix"] * 2, ["SampleTable"] * 2]
    assert made.parts[0].cube.data["variables"]["pixels"]["shape"] == [40, 8, 8]
    only = images()[["pixels", "self_influence"]]
    assert repr(view(only)) == "SampleTable(self_influence)" and view(only).options["pictures"] == "pixels"
    assert view(only, "pixels").kind == "Matrix" and "pictures" not in SampleTable(tracin()).options
    joined = dashboard({"a": only, "b": images()[["train_loss"]]}).parts[-1]
    assert joined.options["pictures"] == "pixels"


def test_images_that_are_too_heavy_stay_behind_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "PATTERN_BUDGET", 4 * 40 * 64 - 1)
    table = view(images()).parts[-1]
    assert table.options["pictures"] == "pixels" and "pixels" not in table.cube.data["variables"]
    assert "test_pixels" in table.cube.data["variables"]


def test_the_tokens_are_those_of_the_test_samples() -> None:
    strip = view(tracin(length=12)).parts[2]
    told = {key: strip.options[key] for key in ("rows", "along", "tokens", "reduce", "variables")}
    assert told == {
        "rows": "test_sample", "along": "test_position", "tokens": "test_token", "reduce": "strongest",
        "variables": ["token_influence"],
    }  # fmt: skip


def test_the_tooltip_of_a_pair_has_the_texts_of_both() -> None:
    assert view(tracin()).parts[0].options["about"] == {
        "sample": ["task", "self_influence", "mean_influence", "text"], "test_sample": ["test_task", "test_text"],
    }  # fmt: skip


def test_what_is_too_heavy_for_what_it_adds_stays_behind_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = tracin(length=12)
    monkeypatch.setattr(fields, "PATTERN_BUDGET", 4 * ds["token_contribution"].size - 1)
    by_checkpoint = view(ds).parts[1]
    sent = by_checkpoint.cube.data["variables"]
    assert "token_influence" in sent and "token_contribution" not in sent
    assert by_checkpoint.options["instead"] == {"contribution": ["token_contribution"]}
    monkeypatch.undo()
    assert "token_contribution" in view(tracin(length=12)).parts[1].cube.data["variables"]


def test_training_samples_and_test_samples_with_the_same_ids_are_two_things() -> None:
    ds = tracin(8, 8)
    ds = ds.assign_coords(test_sample=ds["sample"].values)
    focus = view(ds).focus
    focus["sample"] = "train-3"
    assert focus.selection(ds) == {"sample": "train-3"}
    focus["test_sample"] = "train-5"
    assert focus.selection(ds) == {"sample": "train-3", "test_sample": "train-5"}
    alone = ds["influence"].isel(sample=0, drop=True)
    assert Focus(sample="train-3").selection(alone) == {"test_sample": "train-3"}  # where there is no other


def test_a_study_and_a_live_result_have_it_too() -> None:
    made = dashboard({"induction": heads(), "tracin": tracin(length=12), "health": samples(40)})
    kinds = [[part.kind for part in row.parts] for row in made.children]
    assert kinds == [["HeadGrid"] * 2, ["Matrix"] * 2, ["TokenStrip"], ["SampleTable"], *[["Timeline"]] * 2, ["SampleTable"]]
    live = Live()
    live.show({"tracin": tracin()})
    first = live.parts
    live.show({"tracin": tracin(seed=9)})
    assert live.parts == first
    sent = np.frombuffer(live.parts[0].cube.data["variables"]["influence"]["data"], dtype="<f4")
    assert np.allclose(sent, tracin(seed=9)["influence"].values.ravel())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Matrix(tracin(), instead={"influence": ["token"]}), LookupError, "there is no variable 'token'; there are"),
        (lambda: SampleTable(tracin(), along={"loss": "x"}), ValueError, "along= names columns and a dimension of each; 'loss'"),
        (lambda: TokenStrip(tracin()), ValueError, "TokenStrip needs a variable with position"),
    ],
)
def test_errors_say_what_came(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
