"""Lists of weights are read as they were written, and refused where they are of another model."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from listed import critical
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.recipes.weight_list import WeightList

weight_table = ts.recipes.weight_table
ATTN, MLP, WTE = "transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc", "transformer.wte"


@pytest.fixture(scope="module")
def scope():
    return ts.Scope(random_gpt2())


SAMPLES = torch.randint(1, 50, (8, 10), generator=torch.Generator().manual_seed(0))


def entries(listed):
    return list(zip(listed.parameters.tolist(), listed.index.tolist(), strict=True))


def table(*rows, **columns):
    layers, indices = zip(*rows)
    return pd.DataFrame({"rank": range(len(rows)), "layer": layers, "indices": indices} | columns)


def largest(scope, n=12):
    """A list with weights of several parameters, and a bottom list."""
    flat = [(float(w), name, i) for name, p in scope.model.named_parameters() for i, w in enumerate(p.detach().flatten())]
    flat.sort(key=lambda each: -abs(each[0]))
    return critical(scope, [each[1:] for each in flat[:n]], [each[1:] for each in flat[-n:]])


def test_a_result_is_read_with_its_bottom_list(scope):
    result = largest(scope)
    listed = WeightList.read(scope, result)
    assert entries(listed) == list(zip(result["parameter_name"].values, result["index"].values))
    assert entries(listed.bottom) == list(zip(result["bottom_parameter_name"].values, result["bottom_index"].values))
    assert listed.metric == "grad_x_weight" and not listed.notes


@pytest.mark.parametrize("per_layer", [False, True])
def test_what_critical_weights_gives_is_read_in_order_of_rank(scope, per_layer):
    result = ts.recipes.critical_weights(scope, SAMPLES, top=5, per_layer=per_layer, progress=False)
    listed, said = WeightList.read(scope, result), json.loads(result.attrs["tensorscope"])
    order = np.argsort(result["rank"].values, kind="stable")
    assert entries(listed) == list(zip(result["parameter_name"].values[order], result["index"].values[order]))
    assert listed.metric == "grad_x_weight" and listed.data == said["data"] and not listed.notes
    layers = result["module_layer"].values[order]
    assert layers.tolist() == ([0, 1] * 5 if per_layer else layers.tolist())
    assert sorted(listed.bottom.parameters) == sorted(result["bottom_parameter_name"].values)
    read = WeightList.read(scope, weight_table(result), weight_table(result, bottom=True))
    assert entries(read) == entries(listed) and entries(read.bottom) == entries(listed.bottom)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_table_survives_a_file_exactly(dtype, tmp_path):
    scope = ts.Scope(random_gpt2().to(dtype))
    result = largest(scope)
    for bottom, name in ((False, "top_12_weights.csv"), (True, "bottom_12_weights.csv")):
        written = weight_table(result, bottom)
        written.to_csv(tmp_path / name, index=False)
        read = pd.read_csv(tmp_path / name)
        assert list(read) == ["rank", "layer", "indices", "sensitivity", "value", "parameter", "fingerprint"]
        np.testing.assert_array_equal(read["value"].to_numpy(), written["value"].to_numpy())
        for row in read.itertuples():
            assert float(scope.model.get_parameter(row.parameter).detach()[eval(row.indices)]) == row.value
            assert row.layer == row.parameter.rpartition(".")[0]
    listed = WeightList.read(scope, str(tmp_path / "top_12_weights.csv"))
    expected = WeightList.read(scope, result)
    assert entries(listed) == entries(expected) and entries(listed.bottom) == entries(expected.bottom)
    (tmp_path / "bottom_12_weights.csv").unlink()
    assert WeightList.read(scope, tmp_path / "top_12_weights.csv").bottom is None
    assert len(WeightList.read(scope, weight_table(result), weight_table(result, bottom=True)).bottom) == 12


def test_a_fingerprint_that_looks_like_a_number_is_still_text(scope, tmp_path):
    written = weight_table(largest(scope)).assign(fingerprint="0012345678901234")
    written.to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(ValueError, match=r"of other weights .*fingerprint 0012345678901234, here"):
        WeightList.read(scope, tmp_path / "list.csv")


@pytest.mark.parametrize(
    "place", ["(3, 17)", "[3, 17]", " (3,17)", (3, 17), [3, 17], np.array([3, 17]), "233", 233, "(np.int64(3), np.int64(17))"]
)
def test_places_are_read_as_they_are_written_elsewhere(scope, place):
    frame = pd.DataFrame({"rank": [1], "layer": [ATTN + ".weight"], "indices": [None], "sensitivity": [0.5]})
    frame["indices"] = frame["indices"].astype(object)
    frame.at[0, "indices"] = place
    listed = WeightList.read(scope, frame)
    assert entries(listed) == [(ATTN + ".weight", 3 * 72 + 17)] and "does not say which model" in listed.notes[0]


def test_a_layer_may_be_a_module_or_a_parameter(scope):
    listed = WeightList.read(scope, table((ATTN, "(3, 17)"), (ATTN + ".bias", "(5,)"), (ATTN, "[5, 0]"), (MLP, "(7,)")))
    assert entries(listed) == [(ATTN + ".weight", 233), (ATTN + ".bias", 5), (ATTN + ".weight", 360), (MLP + ".bias", 7)]


def test_a_tied_weight_is_one_parameter_under_all_its_names(scope):
    assert entries(WeightList.read(scope, table(("lm_head.weight", "(3, 1)")))) == [(WTE + ".weight", 73)]
    with pytest.raises(ValueError, match=r"names entry 73 of transformer.wte.weight twice"):
        WeightList.read(scope, table(("lm_head.weight", "(3, 1)"), (WTE, "(3, 1)")))
    listed = WeightList.read(scope, table(("lm_head", "(3, 1)"), (ATTN, "(0, 0)")))
    for name in ("lm_head", "lm_head.weight", WTE, "transformer.wt*"):
        assert entries(listed.inside(scope, name)) == [(WTE + ".weight", 73)]


def test_lists_by_layer_are_read_in_order_of_rank(scope):
    frame = table((ATTN, "(0, 0)"), (ATTN, "(0, 1)"), (ATTN, "(0, 2)"), (MLP, "(0, 0)"), (MLP, "(0, 1)"))
    frame["rank"] = [0, 1, 2, 0, 1]
    assert [i for _, i in entries(WeightList.read(scope, frame))] == [0, 0, 1, 1, 2]


def test_ranks_that_are_text_are_in_the_order_of_their_numbers(scope):
    frame = table((ATTN, "(0, 2)"), (ATTN, "(0, 10)"), (ATTN, "(0, 1)"), rank=["2", "10", "1"])
    assert WeightList.read(scope, frame).index.tolist() == [1, 2, 10]


def test_modules_are_globs_of_paths_and_of_names(scope):
    listed = WeightList.read(scope, table((ATTN, "(0, 0)"), (MLP, "(0, 1)"), (ATTN + ".bias", "(5,)"), (WTE, "(1, 1)")))
    for modules, kept in (
        (ATTN, [0, 2]),
        (ATTN + ".weight", [0]),
        ("*.mlp.*", [1]),
        (["*.c_fc", "transformer.wte"], [1, 3]),
        (None, [0, 1, 2, 3]),
        ("*", [0, 1, 2, 3]),
    ):
        assert entries(listed.inside(scope, modules)) == [entries(listed)[i] for i in kept]


@pytest.mark.parametrize(
    "modules, error, words",
    [
        (
            "transformer.h.0.atn.c_attn",
            LookupError,
            "no module or parameter 'transformer.h.0.atn.c_attn': did you mean transformer.h.0.attn.c_attn",
        ),
        (
            "transformer.h.1.attn.c_attn",
            LookupError,
            "no weight of the list is in .* there are some in transformer.h.0.attn.c_attn",
        ),
        ([ATTN, "*.ln_1"], LookupError, r"no weight of the list is in '\*.ln_1'"),
        ([], ValueError, "modules is"),
        (5, ValueError, "modules is 5"),
    ],
)
def test_modules_that_choose_nothing_are_refused(scope, modules, error, words):
    with pytest.raises(error, match=words):
        WeightList.read(scope, table((ATTN, "(0, 0)"))).inside(scope, modules)


@pytest.mark.parametrize(
    "frame, error, words",
    [
        (table(("transformer.h.0.attn.c_atn.weight", "(0, 0)")), LookupError, "did you mean transformer.h.0.attn.c_attn.weight"),
        (table(("qqq", "(0, 0)")), LookupError, r"no parameter or module 'qqq': look at model.named_parameters\(\)"),
        (table((None, "(0, 0)")), LookupError, "no parameter or module None"),
        (
            table((ATTN, "(24, 0)")),
            ValueError,
            r"\(24, 0\) is no entry of transformer.h.0.attn.c_attn.weight, whose shape is \(24, 72\)",
        ),
        (table((ATTN, "(-1, 0)")), ValueError, r"\(-1, 0\) is no entry"),
        (table((ATTN + ".weight", "(1, 0, 0)")), ValueError, r"\(1, 0, 0\) is no entry"),
        (table((ATTN + ".weight", "1728")), ValueError, "1728 is no entry"),
        (table((ATTN, "(1, 0, 0)")), LookupError, "is no place in transformer.h.0.attn.c_attn, which has .*c_attn.weight"),
        (
            table(("transformer.ln_f", "(1,)")),
            LookupError,
            "may be of transformer.ln_f.weight, transformer.ln_f.bias: name the parameter",
        ),
        (table((ATTN, "3, x")), ValueError, "'3, x' is no place of a weight"),
        (table((ATTN, "(0.5, 1)")), ValueError, "is no place of a weight"),
        (table((ATTN, np.nan)), ValueError, "nan is no place of a weight"),
        (table((ATTN, "(0, 0)"), (ATTN, "[0, 0]")), ValueError, "the table names entry 0 of .* twice"),
        (
            table((ATTN, "(0, 0)")).assign(parameter=ATTN + ".weight", layer="transformer.h.0.mlp.c_fc"),
            ValueError,
            "says that transformer.h.0.attn.c_attn.weight is in the layer 'transformer.h.0.mlp.c_fc', and it is not",
        ),
        (table((ATTN, "(0, 0)"), value=[123.0]), ValueError, "and the list says 123: it is of other weights"),
        (table((ATTN, "(0, 0)"), fingerprint=["abc"]), ValueError, "of other weights than .* has .fingerprint abc, here"),
        (table((ATTN, "(0, 0)")).iloc[:0], ValueError, "the table is empty"),
        (table((ATTN, "(0, 0)")).drop(columns="indices"), ValueError, "has the columns rank, layer: it needs 'layer'"),
        (np.zeros(3), TypeError, "weights is a ndarray: give the result of critical_weights, a table"),
        (table((ATTN, "(0, 0)"), rank=["first"]), ValueError, "the table has the rank 'first' in row 0: give numbers"),
        (table((ATTN, "(0, 0)"), value=["much"]), ValueError, "the table has the value 'much' in row 0: give numbers"),
        (".", FileNotFoundError, "there is no file"),
        ("nowhere.csv", FileNotFoundError, "there is no file nowhere.csv"),
    ],
)
def test_lists_that_cannot_be_read_get_one_clear_line(scope, frame, error, words):
    with pytest.raises(error, match=words):
        WeightList.read(scope, frame)


def test_a_list_of_other_weights_is_refused(scope):
    with pytest.raises(ValueError, match="the list is of other weights than"):
        WeightList.read(ts.Scope(random_gpt2(seed=1)), largest(scope))
    moved = weight_table(largest(scope)).drop(columns="fingerprint")
    moved.loc[3, "value"] *= 1 + 1e-6
    with pytest.raises(ValueError, match="and the list says"):
        WeightList.read(scope, moved)


def test_another_result_and_a_file_that_is_no_table_are_refused(scope, tmp_path):
    other = ts.recipes.ablation(scope, torch.randint(50, (2, 6)), progress=False)
    with pytest.raises(ValueError, match="no result of critical_weights with a top list: parameter_name is missing"):
        WeightList.read(scope, other)
    with pytest.raises(ValueError, match="with a bottom list: bottom_parameter_name is missing"):
        weight_table(largest(scope).drop_vars("bottom_parameter_name"), bottom=True)
    (tmp_path / "list.csv").write_text("")
    with pytest.raises(ValueError, match="is no table of weights"):
        WeightList.read(scope, tmp_path / "list.csv")
    with pytest.raises(TypeError, match="bottom is a int"):
        WeightList.read(scope, largest(scope), bottom=3)


def test_frozen_weights_and_whole_numbers_are_refused():
    scope = ts.Scope(random_gpt2())
    scope.model.transformer.wpe.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"transformer.wpe.weight is frozen: set requires_grad"):
        WeightList.read(scope, table(("transformer.wpe", "(0, 0)")))
