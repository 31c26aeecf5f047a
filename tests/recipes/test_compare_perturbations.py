"""Perturbations are compared on equal data only."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

compare = ts.recipes.compare_perturbations


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


IDS = torch.randint(1, 50, (6, 10), generator=torch.Generator().manual_seed(0))
LISTED = pd.DataFrame({"layer": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"], "indices": ["(3, 17)", "(0, 1)"]})


def run(seed=0, ids=IDS, **options):
    return ts.recipes.perturbation(ts.Scope(random_gpt2(seed)), ids, LISTED, **{"controls": ("random",), "n_seeds": 2} | options)


def test_runs_stand_side_by_side_and_keep_their_numbers_and_metadata():
    runs = {
        "zeroed": run(),
        "flipped": run(method="sign_flip", ratios=(0.5, 1.0)),
        "one module": run(modules="*.c_fc", controls=()),
        "another model": run(seed=1),
    }
    found = compare(runs)
    assert found["run"].values.tolist() == list(runs) and found["loss_increase"].dims == (
        "run",
        "selection",
        "ratio",
        "replicate",
    )
    for name, alone in runs.items():
        for variable in ("loss_increase", "excess", "n_weights", "baseline_loss"):
            if variable in alone:
                here = found[variable].sel(run=name)
                np.testing.assert_array_equal(
                    here.sel({d: alone[d] for d in alone[variable].dims if d != "replicate"}), alone[variable]
                )
    assert found["selection"].values.tolist() == ["top", "random"]
    assert found["loss_increase"].sel(run="zeroed", ratio=0.5).isnull().all()
    assert found["module_layer"].values.tolist() == [int(m.split(".")[2]) for m in found["module"].values]
    said = json.loads(found.attrs["tensorscope"])
    assert said["runs"]["flipped"]["options"]["method"] == "sign_flip" and said["n_tokens"] == 54


def test_runs_with_and_without_samples_stand_side_by_side():
    found = compare({"with": run(per_sample=True), "without": run()})
    assert found["loss_increase_by_sample"].isnull().any(("sample", "selection", "ratio")).values.tolist() == [False, True]
    assert found["text"].dims == ("sample",) and len(found["text"]) == 6


def test_other_data_is_refused():
    with pytest.raises(ValueError, match=r"'b' is of other samples than 'a' .* equal data only"):
        compare({"a": run(), "b": run(ids=IDS[:5])})
    a, b = run(), run()
    said = json.loads(b.attrs["tensorscope"])
    b.attrs["tensorscope"] = json.dumps(said | {"n_tokens": 53})
    with pytest.raises(ValueError, match=r"'b' is of another number of predicted tokens than 'a' .n_tokens 53 and 54."):
        compare({"a": a, "b": b})


def test_another_baseline_of_the_same_weights_is_refused():
    a, b = run(), run(method="sign_flip")
    b["baseline_loss"] = b["baseline_loss"] * (1 + 1e-7)
    assert compare({"a": a, "b": b}).sizes["run"] == 2
    b["baseline_loss"] = b["baseline_loss"] * (1 + 1e-3)
    with pytest.raises(ValueError, match="'b' and 'a' are of the same weights and data, and their baseline losses are"):
        compare({"a": a, "b": b})


@pytest.mark.parametrize(
    "runs, words", [({}, "no mapping"), ([1], "no mapping"), ({"a": 3}, "'a' is no result of perturbation: its data")]
)
def test_what_is_no_perturbation_is_refused(runs, words):
    with pytest.raises(ValueError, match=words):
        compare(runs)


def test_a_list_is_no_perturbation():
    listed = ts.recipes.critical_weights(ts.Scope(random_gpt2()), IDS, top=3)
    with pytest.raises(ValueError, match="'a' is no result of perturbation: its baseline_loss is not known"):
        compare({"a": listed})
