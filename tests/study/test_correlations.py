import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.numerics.correlation import along_depth, majority_p, within_kinds, within_layers
from tensorscope_nb.study.correlations import correlations

NUMBERS = ["rho", "rho_detrended", "n", "n_eff", "p"]


def result(dims, needs=(), coords=None, **variables):
    said = {} if needs is None else {"needs": list(needs)}
    data = {name: (dims, np.asarray(values)) for name, values in variables.items()}
    numbered = {d: np.arange(n) for d, n in zip(dims, np.shape(next(iter(variables.values()))))} if coords is None else coords
    return xr.Dataset(data, numbered, {"tensorscope": json.dumps(said)})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def same(row, found, n):
    expected = [found.rho, found.partial, n, found.n_eff, found.p]
    return np.allclose(row[NUMBERS].astype(float), np.array(expected, dtype=float), equal_nan=True)


def test_over_layers_it_is_the_correlation_of_the_frame_and_what_depth_leaves_of_it():
    x, y = noise(2, 12) + np.arange(12)
    study = ts.Study(ts.Scope(random_gpt2()))
    study._keep({"fisher": result(["layer"], concentration=x), "geometry": result(["layer"], score=y)})
    found = study.correlations("layer")
    there = study.frame("layer")[["concentration", "score"]].corr(method="spearman").iloc[0, 1]
    assert len(found) == 1 and found.loc[0, ["a", "b"]].tolist() == ["concentration", "score"]
    assert np.isclose(found.loc[0, "rho"], there) and same(found.loc[0], along_depth(x, y), 12)
    assert found.loc[0, "q"] == found.loc[0, "p"] and not found.loc[0, "coupled"] and found.loc[0, "note"] == ""
    values = study.correlations("layer", method="pearson").loc[0]
    assert np.isclose(values["rho"], np.corrcoef(x, y)[0, 1])
    assert np.isclose(values["rho_detrended"], along_depth(x, y, ranks=False).partial)
    assert np.isnan(values["p"]) and "of values there is no p value" in values["note"]


def test_trim_leaves_out_layers_at_both_ends():
    x, y = noise(2, 14)
    x[[0, 1, -1]] = y[[0, 1, -1]] = 100
    results = {"one": result(["layer"], x=x), "other": result(["layer"], y=y)}
    assert same(correlations(results, ["layer"], trim=2).loc[0], along_depth(x[2:-2], y[2:-2]), 10)
    heads = {"one": result(["layer", "head"], x=noise(5, 4)), "other": result(["layer", "head"], y=noise(5, 4, seed=1))}
    inner = within_layers(noise(5, 4)[1:-1], noise(5, 4, seed=1)[1:-1])
    assert same(correlations(heads, ["layer", "head"], trim=1).loc[0], inner, 12)


def test_what_is_missing_is_left_out_of_its_pair_alone():
    x, y, z = noise(3, 12)
    x[3], y[7] = np.nan, np.inf
    results = {"one": result(["layer"], x=x), "two": result(["layer"], y=y), "three": result(["layer"], z=z)}
    found = correlations(results, ["layer"]).set_index(["a", "b"])
    depth, both = np.arange(12), np.isin(np.arange(12), [3, 7], invert=True)
    assert same(found.loc[("x", "y")], along_depth(x[both], y[both], depth[both]), 10)
    one = depth != 3
    assert same(found.loc[("x", "z")], along_depth(x[one], z[one], depth[one]), 11)


def test_heads_stand_in_their_layer_by_their_coordinates_whatever_their_order():
    x, y = noise(2, 6, 4)
    order = {"layer": [3, 0, 5, 1, 2, 4], "head": [2, 0, 3, 1]}
    coords = {"layer": np.arange(6), "head": np.arange(4)}
    shuffled = result(["layer", "head"], coords=coords, x=x).sel(**order)
    results = {"one": shuffled, "other": result(["layer", "head"], coords=coords, y=y)}
    for dims in (["layer", "head"], ["head", "layer"]):
        assert same(correlations(results, dims).loc[0], within_layers(x, y), 24)


KINDS = {"mlp.up": "mlp_in", "mlp.down": "mlp_out", "q": "Q", "norm_1": "norm", "norm_2": "norm"}


def modules(values, outside=(), sizes=None, **said):
    """A result on modules: of each kind one in each layer, and what stands in no layer."""
    values = np.asarray(values)
    names = [f"model.layers.{i}.{kind}" for kind in KINDS for i in range(values.shape[1])]
    names += [f"outside_{i}" for i in range(len(outside))]
    layers = [*np.tile(np.arange(values.shape[1]), len(KINDS)), *[-1] * len(outside)]
    blocks = [*np.repeat(list(KINDS.values()), values.shape[1]), *["embed"] * len(outside)]
    coords = {"module": names, "module_layer": ("module", layers), "module_block": ("module", blocks)}
    variables = {next(iter(said)): [*values.ravel(), *outside]}
    if sizes is not None:
        variables["n_parameters"] = [*sizes.ravel(), *[10**9] * len(outside)]
    return result(["module"], coords=coords, **variables)


def test_modules_enter_by_kind_and_layer_and_only_those_in_layers():
    x, y = noise(2, 5, 10)
    results = {"one": modules(x, (1e6, -1e6), x=0), "other": modules(y, (1e6, -1e6), y=0)}
    assert same(correlations(results, ["module"]).loc[0], within_kinds(x, y), 50)


def test_the_size_of_modules_is_partialled_out_where_it_varies_within_a_kind():
    sizes = np.exp(noise(5, 10, seed=5))
    x, y = noise(2, 5, 10) + 3 * np.log(sizes)
    results = {"one": modules(x, sizes=sizes, x=0), "other": modules(y, y=0)}
    found = correlations(results, ["module"]).loc[0]
    assert same(found, within_kinds(x, y, np.log(sizes)), 50) and found["rho"] > 0.7 > 0.5 > found["rho_detrended"]
    equal = {"one": modules(x, sizes=np.repeat(sizes[:, :1], 10, 1), x=0), "other": modules(y, y=0)}
    assert same(correlations(equal, ["module"]).loc[0], within_kinds(x, y), 50)


def test_the_first_number_of_a_path_is_the_layer_and_modules_of_one_kind_in_a_layer_are_averaged():
    x, y = noise(2, 4, 9)
    names = [f"layers.{i}.experts.{e}.up" for e in range(4) for i in range(9)]
    coords = {"module": names, "module_layer": ("module", np.tile(np.arange(9), 4))}
    results = {n: result(["module"], coords=coords, **{n: v.ravel()}) for n, v in (("x", x), ("y", y))}
    assert same(correlations(results, ["module"]).loc[0], within_kinds(x, y), 36)
    twice = names + [name.replace("layers.", "layers.1") for name in names]  # layers.13.experts.0.up beside layers.3.experts.0.up
    coords = {"module": twice, "module_layer": ("module", np.tile(np.arange(9), 8))}
    alone = np.isin(np.arange(36), [4, 20]).reshape(4, 9)  # one of the two is not there
    pairs = {n: np.where(alone, (v, np.full_like(v, np.nan)), (v - 5, v + 5)).ravel() for n, v in (("x", x), ("y", y))}
    results = {n: result(["module"], coords=coords, **{n: values}) for n, values in pairs.items()}
    assert same(correlations(results, ["module"]).loc[0], within_kinds(x, y), 36)


def test_coupled_pairs_keep_their_p_and_stay_out_of_q():
    a, b, c, d = noise(4, 12)
    results = {
        "one": result(["layer"], ["gradients"], a=a, b=a + 0.1 * b),
        "two": result(["layer"], ["z", "gradients", "losses"], c=c + 0.3 * a),
        "three": result(["layer"], ["weights"], d=d),
    }
    found = correlations(results, ["layer"]).set_index(["a", "b"])
    assert found["p"].notna().all()
    assert found.index[found["coupled"]].tolist() == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.loc[("a", "b"), "note"] == "of one result, one: not in q"
    assert found.loc[("a", "c"), "note"] == "share gradients: not in q"
    free = found[~found["coupled"].astype(bool)]
    assert np.allclose(free["q"], stats.false_discovery_control(free["p"])) and found.loc[found["coupled"], "q"].isna().all()


def test_results_that_do_not_say_what_they_read_are_of_unknown_coupling():
    x, y = noise(2, 12)
    found = correlations({"old": result(["layer"], None, x=x), "new": result(["layer"], ["z"], y=y)}, ["layer"]).loc[0]
    assert found["coupled"] is pd.NA and np.isfinite(found["p"]) and np.isnan(found["q"])
    assert found["note"] == "not in q: a result does not say what its recipe reads, run it again"


def test_a_number_that_is_missing_has_its_reason():
    x, y = noise(2, 4)
    four = correlations({"one": result(["layer"], x=x), "other": result(["layer"], y=y)}, ["layer"]).loc[0]
    assert np.isclose(four["rho"], stats.spearmanr(x, y).statistic) and np.isnan(four["p"])
    assert four["note"] == "4 layers: a correlation over fewer than 8 has no p value"
    cases = {
        "flat is constant": np.array([0.1, np.nextafter(0.1, 1)] * 6),
        "nothing is left of one of them once what is partialled out is gone": np.arange(12.0),
        "1 place where both are defined": np.array([1.0, *[np.nan] * 11]),
        "too few independent places for a p value": np.cos(np.arange(12) / 1.9),
    }
    for says, flat in cases.items():
        other = np.cos(np.arange(12) / 1.9 + 0.2) if "few" in says else noise(12)
        found = correlations({"one": result(["layer"], flat=flat), "other": result(["layer"], y=other)}, ["layer"]).loc[0]
        assert says in found["note"] and np.isnan(found["p"]) and np.isnan(found["q"])
    few = {"one": modules(noise(5, 7), x=0), "other": modules(noise(5, 7, seed=1), y=0)}
    assert correlations(few, ["module"]).loc[0, "note"] == "7 layers: a correlation over fewer than 8 has no p value"


def test_what_measures_nothing_is_left_out_unless_it_is_named():
    x, y, z = noise(3, 9)
    one = result(["layer"], x=x, ci_low=x - 1, x_ci_high=x + 1, x_null=z, q_value=z**2, is_large=x > 0, n_neurons=np.arange(9))
    results = {"one": one, "other": result(["layer"], x=y)}
    assert correlations(results, ["layer"])[["a", "b"]].values.tolist() == [["x", "other.x"]]
    named = correlations(results, ["layer"], variables=["is_large", "other.x", "n_neurons"])
    assert {*named["a"], *named["b"]} == {"is_large", "other.x", "n_neurons"}
    assert same(named.loc[named["b"] == "other.x"].iloc[0], along_depth((x > 0).astype(float), y), 9)
    both = correlations(results, ["layer"], variables=["x", "q_value"])
    assert {*both["a"], *both["b"]} == {"x", "other.x", "q_value"}


TWO = {"one": result(["layer"], x=noise(9)), "other": result(["layer"], y=noise(9))}


@pytest.mark.parametrize(
    ("results", "dims", "options", "error", "says"),
    [
        (TWO, ["neuron"], {}, ValueError, "correlations over 'neuron': choose 'layer', or 'layer', 'head' .*, or 'module'"),
        (TWO, [], {}, ValueError, "correlations over no dimensions: choose 'layer'"),
        (TWO, ["module"], {}, LookupError, "no variable lives on module: the results have the dimensions layer"),
        ({}, ["layer"], {}, LookupError, "the results have the dimensions none"),
        (TWO, ["layer"], {"method": "kendall"}, ValueError, "method is 'kendall': choose 'spearman' or 'pearson'"),
        (TWO, ["layer"], {"trim": -1}, ValueError, "trim is -1: give the number of layers"),
        (TWO, ["layer"], {"trim": 5}, ValueError, "trim=5 leaves none of 9 layers"),
        (TWO, ["layer"], {"trim": 4}, ValueError, "there is 1 layer: a correlation over layers takes at least 2"),
        (TWO, ["layer"], {"variables": ["z"]}, LookupError, "variables names 'z', which is not there: there are x, y"),
        (TWO, ["layer"], {"variables": "x"}, ValueError, "takes two variables, and here are 1 \\(x\\): there are x, y"),
        ({"one": TWO["one"]}, ["layer"], {}, ValueError, "takes two variables, and here are 1 \\(x\\)"),
    ],
)  # fmt: skip
def test_bad_use_is_one_clear_line(results, dims, options, error, says):
    with pytest.raises(error, match=says):
        correlations(results, dims, **options)


RECIPES = (
    ts.recipes.grouped_fisher.using(granularity="head", name="by_head"),
    ts.recipes.induction_heads.using(n_sequences=2),
)
ALONG = ("importance (mean over block)", "previous_token")


def alone(scope, samples):
    found = ts.Study(scope, samples).run(*RECIPES).correlations("layer", "head", variables=ALONG)
    return found.iloc[0]


@pytest.fixture(scope="module")
def shakespeare():
    return ts.datasets.shakespeare(ts.load("tiny"), n=8)


def test_of_checkpoints_the_last_one_is_reported_and_how_many_have_its_sign(shakespeare, tmp_path):
    history = ts.checkpoints("tiny")
    study = ts.Study(history, shakespeare).run(*RECIPES)
    found = study.correlations("layer", "head", variables=ALONG).iloc[0]
    each = [alone(history[i], shakespeare) for i in range(len(history))]
    assert np.allclose(found[NUMBERS].astype(float), each[-1][NUMBERS].astype(float))
    signs = [np.sign(one["rho_detrended"]) for one in each]
    assert found["n_members"] == len(history) and found["n_same_sign"] == signs.count(signs[-1])
    assert 0 < found["n_same_sign"] < len(history)  # or the count would not have been tested
    assert not found["coupled"] and found["q"] == found["p"]
    assert found["note"] == "the last checkpoint; checkpoints of one run are not independent replicates: seeds are"
    opened = ts.Study.open(study.save(tmp_path / "study"))
    assert opened.correlations("layer", "head").equals(study.correlations("layer", "head"))


def test_of_models_the_median_is_reported_and_the_p_of_more_than_half(shakespeare):
    scopes = {seed: ts.load("tiny", seed=seed) for seed in (0, 1)} | {"early": ts.load("tiny", checkpoint=200)}
    found = ts.Study(scopes, shakespeare).run(*RECIPES).correlations("layer", "head", variables=ALONG).iloc[0]
    each = [alone(scope, shakespeare) for scope in scopes.values()]
    for name in ("rho", "rho_detrended", "n_eff"):
        assert np.isclose(found[name], np.median([one[name] for one in each]))
    assert np.isclose(found["p"], majority_p([one["p"] for one in each])) and found["n"] == 8
    assert found["n_same_sign"] == sum(np.sign(one["rho_detrended"]) == np.sign(found["rho_detrended"]) for one in each)
    assert found["n_members"] == 3 and found["note"] == "medians over 3 models, p of more than half of them"


def test_members_count_by_rho_where_there_is_no_other_and_only_those_that_all_results_have():
    up, down, flat = np.arange(4.0), -np.arange(4.0), np.zeros(4)
    one = result(["checkpoint", "layer"], coords={"checkpoint": [0, 10, 20, 30], "layer": np.arange(4)}, x=[flat, up, up, up])
    other = result(["checkpoint", "layer"], coords={"checkpoint": [0, 10, 20], "layer": np.arange(4)}, y=[up, down, up])
    found = correlations({"one": one, "other": other}, ["layer"]).loc[0]
    assert found["rho"] == 1 and np.isnan(found["rho_detrended"])
    assert (found["n_members"], found["n_same_sign"]) == (3, 1) and "undefined in 1 of 3 checkpoints" in found["note"]


def test_what_rounding_leaves_of_no_correlation_has_no_sign():
    """Deviations that are exactly orthogonal, of thirds: their correlation comes out as −1e-17."""
    a, b = np.array([[0, 4, 3], [5, 1, 2]]), np.array([[1, 3, 5], [0, 2, 4]])
    found = correlations({"one": result(["layer", "head"], x=a), "other": result(["layer", "head"], y=b)}, ["layer", "head"])
    assert found.loc[0, "rho_detrended"] != 0 and found.loc[0, "n_same_sign"] == 0
