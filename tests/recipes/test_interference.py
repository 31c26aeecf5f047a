"""Interference by head against dense loops, in every arrangement of the weights."""

import json
import warnings

import numpy as np
import pytest
import torch
from two_tasks import KNOWN, dense, known_gradients, texts

import tensorscope_nb as ts
from tensorscope_nb.numerics.crossed import mean_test
from tensorscope_nb.recipes.groups import ByHead
from tensorscope_nb.recipes.head_pairs import parts_of

pytestmark = pytest.mark.filterwarnings("ignore:Only")


def slices(scope, gradients, block, layer, head):
    """(n, weights) of one head, by the anatomy's own slices of the weight."""
    piece = scope.anatomy.slice(layer, block, head)
    shape = scope.model.get_parameter(piece.parameter).shape
    return np.stack([piece.of(torch.tensor(g).reshape(shape)).flatten().numpy() for g in gradients[piece.parameter]])


def seed_formula(c, g, epsilon=1e-10, ridge=1e-8):
    """The five lines: Cᵢ / (max(Î, ε) + λ) · |gⱼ|, summed."""
    fisher = np.maximum(np.mean(c, 0), epsilon) + ridge
    scores = np.zeros((len(c), len(g)))
    for i in range(len(c)):
        for j in range(len(g)):
            scores[i, j] = (c[i] / fisher * np.abs(g[j])).sum()
    return scores


@pytest.mark.parametrize("name", KNOWN)
def test_magnitude_is_the_dense_loop_in_every_family(name):
    scope, one, other = texts(name)
    a, b = dense(scope, one), dense(scope, other)
    found = ts.recipes.qkov_interference(scope, one, other, mode="magnitude")
    for block in ByHead.blocks:
        for layer in range(2):
            for head in range(scope.anatomy.n_heads):
                expected = seed_formula(slices(scope, a, block, layer, head) ** 2, slices(scope, b, block, layer, head))
                here = found.sel(block=block, layer=layer, head=head)
                assert np.allclose(here["pair_score"], expected, rtol=1e-9), (block, layer, head)
                assert np.isclose(here["score"], expected.mean())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize("mode", ["signed", "symmetric"])
@pytest.mark.parametrize("ridge", [1e-3, "relative"])
def test_signed_and_symmetric_are_whitened_by_both_tasks(name, mode, ridge):
    scope, one, other = texts(name)
    a, b = dense(scope, one), dense(scope, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ts.recipes.qkov_interference(scope, one, other, mode=mode, ridge=ridge)
    for block in ByHead.blocks:
        g, h = slices(scope, a, block, 1, 2), slices(scope, b, block, 1, 2)
        fisher = np.concatenate([g, h]).__pow__(2).mean(0)
        below = fisher + (0.1 * torch.tensor(fisher).median().item() if ridge == "relative" else ridge)
        g, h = (np.abs(x) for x in (g, h)) if mode == "symmetric" else (-g, h)
        assert np.allclose(found["pair_score"].sel(block=block, layer=1, head=2), (g / below) @ h.T, rtol=1e-8), block


def test_p_is_of_pairs_whitened_by_the_halves_that_they_are_not_in():
    scope, one, other = texts("llama", 7, 6)
    a, b = dense(scope, one), dense(scope, other)
    found = ts.recipes.qkov_interference(scope, one, other, chunk=4)
    for block, layer, head in (("Q", 0, 1), ("V", 1, 2), ("O", 1, 3)):
        g, h = slices(scope, a, block, layer, head), slices(scope, b, block, layer, head)
        table = np.zeros((7, 6))
        for i in range(7):
            for j in range(6):
                fisher = np.concatenate([g[1 - i % 2 :: 2], h[1 - j % 2 :: 2]]).__pow__(2).mean(0)
                table[i, j] = -(g[i] * h[j] / (fisher + 1e-8)).sum()
        assert np.isclose(found["p_value"].sel(block=block, layer=layer, head=head), mean_test(table).above, rtol=1e-6)
    assert not (found["significant"] & (found["score"] <= 0)).any()


@pytest.mark.parametrize("name", KNOWN)
def test_the_heads_add_up_to_the_weights_they_are_cut_from(name):
    """Over the heads that have weights of their own; K and V that heads share are counted once, also in ``total``."""
    scope, one, other = texts(name)
    a, b = dense(scope, one), dense(scope, other)
    found = ts.recipes.qkov_interference(scope, one, other)
    once = np.array([[head % share == 0 for head in range(scope.anatomy.n_heads)] for share in found["n_sharing"].values])
    weights = sorted({name for name in parts_of(ByHead(scope), bias=False)})
    whole = np.zeros((5, 4))
    for parameter in weights:
        fisher = np.concatenate([a[parameter], b[parameter]]).__pow__(2).mean(0) + 1e-8
        whole -= (a[parameter] / fisher) @ b[parameter].T
    assert np.allclose(found["total"], whole, rtol=1e-8)
    assert np.allclose((found["pair_score"].values * once[:, None, :, None, None]).sum((0, 1, 2)), whole, rtol=1e-8)


def test_heads_that_share_keys_show_the_same_and_are_tested_once():
    scope, one, other = texts("llama", 6, 6)
    found = ts.recipes.qkov_interference(scope, one, other)
    assert found["n_sharing"].values.tolist() == [1, 2, 2, 1]
    keys = found["score"].sel(block="K").values
    assert np.array_equal(keys[:, 0], keys[:, 1]) and not np.array_equal(keys[:, 1], keys[:, 2])
    from scipy.stats import false_discovery_control

    p = np.concatenate(
        [found["p_value"].sel(block=b).values[:, :: int(found["n_sharing"].sel(block=b))].ravel() for b in ByHead.blocks]
    )
    q = np.concatenate(
        [found["q_value"].sel(block=b).values[:, :: int(found["n_sharing"].sel(block=b))].ravel() for b in ByHead.blocks]
    )
    assert np.allclose(q, false_discovery_control(p))
    top = ts.recipes.top_conflicts(found, n=10_000)
    assert len(top) == 2 * (4 + 2 + 2 + 4) * 36 and set(top[top["block"] == "K"]["head"]) == {0, 2}


def test_biases_are_added_on_request():
    scope, one, other = texts("gpt2")
    g, h = dense(scope, one), dense(scope, other)
    plain, more = (ts.recipes.qkov_interference(scope, one, other, bias=bias) for bias in (False, True))
    piece = scope.anatomy.slice(1, "V", 2)
    name = piece.parameter.replace("weight", "bias")
    x, y = (d[name][:, piece.start : piece.stop] for d in (g, h))
    added = -(x / (np.concatenate([x, y]).__pow__(2).mean(0) + 1e-8)) @ y.T
    at = dict(block="V", layer=1, head=2)
    assert np.allclose(more["pair_score"].sel(at) - plain["pair_score"].sel(at), added, rtol=1e-6)
    assert np.allclose(more["pair_score"].sel(block="O"), plain["pair_score"].sel(block="O"))


def test_a_head_that_learns_nothing_has_no_score():
    scope, one, other = texts("gpt2")
    piece = scope.anatomy.slice(0, "O", 1)
    with torch.no_grad():
        piece.of(scope.model.get_parameter(piece.parameter)).zero_()
    found = ts.recipes.qkov_interference(scope, one, other)
    silent = found["pair_score"].sel(layer=0, head=1)
    assert all(np.allclose(silent.sel(block=b), 0) for b in "QKV") and (silent.sel(block="O") != 0).any()
    bare = ts.recipes.qkov_interference(scope, one, other, ridge=0)["pair_score"]  # 0 / 0 is no interference
    assert np.isfinite(bare).all() and (bare.sel(layer=0, head=1, block="V") == 0).all()


@pytest.mark.parametrize("mode", ["signed", "magnitude", "symmetric"])
def test_neither_the_cut_nor_the_order_nor_the_memory_matters(mode):
    scope, one, other = texts("gpt2", 6, 5)
    whole = ts.recipes.qkov_interference(scope, one, other, mode=mode)["pair_score"]
    assert np.allclose(ts.recipes.qkov_interference(scope, one, other, mode=mode, chunk=3)["pair_score"], whole, rtol=1e-9)
    order_a, order_b = [3, 0, 5, 1, 4, 2], [4, 2, 0, 1, 3]
    found = ts.recipes.qkov_interference(scope, one[order_a], other[order_b], mode=mode, chunk=4)["pair_score"]
    assert np.allclose(found, whole.isel(sample_a=order_a, sample_b=order_b), rtol=1e-9)
    with ts.options(memory=5 * 8 * sum(scope.model.get_parameter(n).nelement() for n in parts_of(ByHead(scope), False))):
        pieces = ts.recipes.qkov_interference(scope, one, other, mode=mode, chunk=2)["pair_score"]
    assert np.allclose(pieces, whole, rtol=1e-9)


def test_the_mean_magnitude_does_not_depend_on_the_first_task():
    """Why it is not the default: mean over i of gᵢ² / Î is one, whatever task a is."""
    scope, one, other = texts("gpt2", 8, 4)
    another = ts.Samples.tokens(torch.randint(1, 50, (8, 10), generator=torch.Generator().manual_seed(7)), task="another")
    scores = [
        ts.recipes.qkov_interference(scope, a, other, mode="magnitude", epsilon=0, ridge=0)["score"] for a in (one, another)
    ]
    assert np.allclose(*scores, rtol=1e-6)
    signed = [ts.recipes.qkov_interference(scope, a, other)["score"] for a in (one, another)]
    assert not np.allclose(*signed, rtol=0.1)


def test_a_pair_is_its_place_in_the_table():
    scope, one, other = texts("llama")
    whole = ts.recipes.qkov_interference(scope, one, other)["pair_score"]
    pair = ts.recipes.qkov_pair(scope, one, 3, other, "other-2", 1, 2)
    assert pair == pytest.approx({b: float(whole.sel(block=b, layer=1, head=2)[3, 2]) for b in ByHead.blocks}, rel=1e-9)
    place = {"layer": whole["layer"].values[1], "head": np.int64(2)}
    assert ts.recipes.qkov_pair(scope, one, 3, other, "other-2", **place) == pair
    with pytest.raises(LookupError, match="there is no number 9 in sample_a: there are 0 to 4"):
        ts.recipes.qkov_pair(scope, one, 9, other, 0, 1, 2)
    with pytest.raises(LookupError, match="there is no 'x' in sample_b"):
        ts.recipes.qkov_pair(scope, one, 0, other, "x", 1, 2)


def test_top_conflicts_are_the_largest_scores_in_order():
    scope, one, other = texts("gpt2")
    found = ts.recipes.qkov_interference(scope, one, other)
    top = ts.recipes.top_conflicts(found, n=7)
    assert np.allclose(top["score"], np.sort(found["pair_score"].values.ravel())[::-1][:7])
    row = top.iloc[0]
    at = {name: row[name] for name in ("block", "layer", "head", "sample_a", "sample_b")}
    assert np.isclose(found["pair_score"].sel(at), row["score"])
    assert row["index_b"] == 5 + int(row["sample_b"].split("-")[1]) and row["index_a"] == int(row["sample_a"].split("-")[1])


def test_warnings_and_bad_input():
    scope, one, other = texts()
    with pytest.warns(UserWarning, match="Only 5 samples for task 'one': below 10"):
        ts.recipes.qkov_interference(scope, one, other)
    with pytest.warns(UserWarning, match=r"the ridge 1e\+20 is above the median squared gradient in 24 of 24 slices"):
        ts.recipes.qkov_interference(scope, one, other, ridge=1e20)
    with pytest.raises(ValueError, match="mode is 'both': choose"):
        ts.recipes.qkov_interference(scope, one, other, mode="both")
    with pytest.raises(ValueError, match="ridge is -1"):
        ts.recipes.qkov_interference(scope, one, other, ridge=-1)
    with pytest.raises(LookupError, match="leaves no weights of any head"):
        ts.recipes.qkov_interference(scope, one, other, modules="*.mlp.*")
    with pytest.raises(ts.UnsupportedModel, match="no heads"):
        ts.recipes.qkov_interference(*known_gradients(np.ones((4, 4)), np.ones((4, 4))))
    several = ts.Study({"x": scope, "y": scope}, one + other).run(ts.recipes.qkov_interference)["qkov_interference"]
    with pytest.raises(ValueError, match="there is more than one of model here: choose one"):
        ts.recipes.top_conflicts(several)
    with pytest.raises(LookupError, match="give a qkov_interference"):
        ts.recipes.top_conflicts(ts.recipes.gradient_conflict(scope, one, other))


def test_below_four_samples_of_a_task_there_are_scores_and_no_p():
    scope, one, other = texts("gpt2", 3, 5)
    found = ts.recipes.qkov_interference(scope, one, other)
    assert found["p_value"].isnull().all() and found["score"].notnull().all() and not found["significant"].any()
    assert ts.recipes.qkov_interference(scope, other, one[:2])["p_value"].isnull().all()
    assert ts.recipes.qkov_interference(scope, other[:4], ts.Samples.tokens(other.input_ids, task="x"))["p_value"].notnull().all()


def test_significance_is_by_q_over_slices(monkeypatch):
    scope, one, other = texts("llama", 8, 8)
    found = ts.recipes.qkov_interference(scope, one, other)
    p, q = (found[name].where(found["score"] > 0).min().item() for name in ("p_value", "q_value"))
    assert p < q < 1
    for alpha, any_is in (((p + q) / 2, False), (q * 1.001, True)):
        monkeypatch.setattr("tensorscope_nb.recipes.interference.ALPHA", alpha)
        assert ts.recipes.qkov_interference(scope, one, other)["significant"].any() == any_is


def test_epsilon_is_of_the_magnitude_mode_alone():
    scope, one, other = texts("gpt2", 5, 4)
    for mode in ("signed", "symmetric", "magnitude"):
        low, high = (ts.recipes.qkov_interference(scope, one, other, mode=mode, epsilon=e)["score"] for e in (0, 1e3))
        assert np.array_equal(low, high) == (mode != "magnitude")


def test_slices_are_swamped_whose_median_is_below_the_ridge():
    scope, one, other = texts("llama", 6, 5)
    a, b = dense(scope, one), dense(scope, other)
    medians = []
    for name, parts in parts_of(ByHead(scope), bias=False).items():
        fisher = np.concatenate([a[name], b[name]]).__pow__(2).mean(0).reshape(scope.model.get_parameter(name).shape)
        for part in parts:
            here = slice(part.start, part.stop)
            medians.append(torch.tensor(fisher[here] if part.axis == 0 else fisher[:, here]).median().item())
    ridge = np.median(medians) * 1.01
    found = ts.recipes.qkov_interference(scope, one, other, ridge=ridge)
    assert json.loads(found.attrs["tensorscope"])["swamped"] == sum(ridge > m for m in medians) > 5
