"""Composition against dense matrices, planted circuits against random weights, copying against the whole vocabulary."""

import copy
import json

import numpy as np
import pytest
import torch
from model_zoo import CAUSAL, OTHERS, build
from scipy.stats import ortho_group
from tiny_models import attention_only, random_gpt2
from transformers import BertConfig, BertModel

import tensorscope_nb as ts
from tensorscope_nb.scope.head_weights import head_weights

ALL = [*CAUSAL, *OTHERS]
WIDE = dict(n_embd=48, n_head=4, n_layer=3)


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def pairing(model, *args, **options):
    return ts.recipes.qk_ov_pairing(model if isinstance(model, ts.Scope) else ts.Scope(model), *args, **options)


def frobenius(matrix):
    return float((matrix**2).sum() ** 0.5)


def by_definition(qk_t, ov_t, ov_s):
    """Q, K and V composition of dense d × d matrices on column vectors, as they are written in the paper."""
    products = {"Q": (qk_t.T @ ov_s, qk_t), "K": (qk_t @ ov_s, qk_t), "V": (ov_t @ ov_s, ov_t)}
    return {kind: frobenius(made) / (frobenius(of) * frobenius(ov_s)) for kind, (made, of) in products.items()}


def dense(model, anatomy, layer, head):
    """W_QK = W_Qᵀ W_K and W_OV = W_O W_V with W_Q, W_K, W_V (d_head, d) and W_O (d, d_head)."""
    w = head_weights(model, anatomy, layer)
    q, k, v, o = (getattr(w, block)[head].T for block in "QKVO")
    return q.T @ k, o @ v


def centring(d):
    return torch.eye(d).double() - 1 / d


@pytest.mark.parametrize("name", ALL)
def test_compositions_are_those_of_the_dense_matrices(name):
    model = build(name)
    found = pairing(model)["composition"]
    anatomy = ts.detect(model)
    centred = centring(24) if anatomy.family in ("gpt2", "gpt_neox", "bert", "vit") else torch.eye(24).double()
    for s in range(anatomy.n_heads):
        for t in range(anatomy.n_heads):
            ov_s = centred @ dense(model, anatomy, 0, s)[1]
            qk_t, ov_t = dense(model, anatomy, 1, t)
            expected = by_definition(qk_t, centred @ ov_t, ov_s)
            there = found.sel(source=f"0.{s}", target=f"1.{t}")
            for kind, value in expected.items():
                assert there.sel(kind=kind).item() == pytest.approx(value, rel=1e-5), (kind, s, t)


def test_gpt2_from_its_parameters_alone():
    """Slices, norms and centring by hand, nothing of this package in between."""
    model = random_gpt2(n_layer=2, n_head=3, n_embd=24)
    found = pairing(model)["composition"]
    centred = centring(24)

    def of(layer, head):
        block, here = model.transformer.h[layer], slice(8 * head, 8 * head + 8)
        fused = (block.ln_1.weight.detach().double()[:, None] * block.attn.c_attn.weight.detach().double()).T  # (out, in)
        q, k, v = (fused[24 * i : 24 * (i + 1)][here] @ centred for i in range(3))
        o = centred @ block.attn.c_proj.weight.detach().double().T[:, here]
        return q.T @ k, o @ v

    for s in range(3):
        for t in range(3):
            for kind, value in by_definition(*of(1, t), of(0, s)[1]).items():
                assert found.sel(kind=kind, source=f"0.{s}", target=f"1.{t}").item() == pytest.approx(value, rel=1e-5)


def test_a_post_norm_model_from_its_parameters_alone():
    """From layer 0 to layer 2 what a head wrote passes four norms, the gain and the centring of each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)
        model = BertModel(BertConfig(**config, initializer_range=0.3), add_pooling_layer=False).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.add_(0.5 * torch.randn(parameter.shape))
    found = pairing(model)["composition"]
    layers = model.encoder.layer

    def norm(module):
        return torch.diag(module.weight.detach().double()) @ centring(24)

    def weight(module):
        return module.weight.detach().double()

    for s in range(3):
        for t in range(3):
            mine, theirs = (slice(8 * head, 8 * head + 8) for head in (s, t))
            through = (
                norm(layers[1].attention.output.LayerNorm)
                @ norm(layers[0].output.LayerNorm)
                @ norm(layers[0].attention.output.LayerNorm)
            )
            written = centring(24) @ through @ weight(layers[0].attention.output.dense)[:, mine]
            ov_s = written @ weight(layers[0].attention.self.value)[mine]
            reads = norm(layers[1].output.LayerNorm)
            q, k, v = (weight(getattr(layers[2].attention.self, n))[theirs] @ reads for n in ("query", "key", "value"))
            after = norm(layers[2].attention.output.LayerNorm)
            ov_t = after @ weight(layers[2].attention.output.dense)[:, theirs] @ v
            for kind, value in by_definition(q.T @ k, centring(24) @ ov_t, ov_s).items():
                assert found.sel(kind=kind, source=f"0.{s}", target=f"2.{t}").item() == pytest.approx(value, rel=1e-5)


def test_only_lower_layers_are_read():
    for model in (random_gpt2(**WIDE), build("gpt_neox")):  # in whose layers attention and MLP stand side by side
        found = pairing(model)
        below = found["source_layer"] < found["target_layer"]
        assert (np.isfinite(found["composition"]) == below).all()
        assert (np.isfinite(found["null"]) == below).all()


def test_one_layer_has_no_pairs_and_says_so():
    found = pairing(random_gpt2(n_layer=1))
    assert np.isnan(found["composition"]).all() and np.isfinite(found["copying_eigen"]).all()
    assert "there is 1 layer" in found["composition"].attrs["reason"]
    assert ts.recipes.circuits(found).sizes["circuit"] == 0


def test_blocks_of_layers_give_the_same():
    for model in (random_gpt2(n_layer=4), build("bert")):
        whole = pairing(model)
        with ts.options(memory=1):
            assert pairing(model).drop_attrs().equals(whole.drop_attrs())


def test_each_layer_is_taken_apart_once_as_a_source_whatever_the_memory(monkeypatch):
    from tensorscope_nb.recipes import composition

    counted = []
    once = composition.written
    monkeypatch.setattr(composition, "written", lambda weights: counted.append(1) or once(weights))
    with ts.options(memory=1):
        pairing(random_gpt2(n_layer=5))
    assert len(counted) == 4  # and the last layer never


def test_a_long_post_norm_model_gives_the_same_in_blocks():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=3)
        model = BertModel(BertConfig(**config, initializer_range=0.3), add_pooling_layer=False).eval()
    whole = pairing(model)
    with ts.options(memory=1):
        assert pairing(model).drop_attrs().equals(whole.drop_attrs())


def test_what_does_not_change_a_head_does_not_change_its_compositions():
    model = random_gpt2()
    before = pairing(model)["composition"]
    changed = copy.deepcopy(model)
    turn = torch.tensor(ortho_group.rvs(8, random_state=0)).float()
    for block in changed.transformer.h:
        fused, out = block.attn.c_attn.weight.data, block.attn.c_proj.weight.data
        fused[:, :24] *= 3.0  # of q and k only the product counts
        fused[:, 24:48] /= 3.0
        for head in range(3):
            for at in (0, 24):
                fused[:, at + 8 * head : at + 8 * head + 8] = fused[:, at + 8 * head : at + 8 * head + 8] @ turn
            v = slice(48 + 8 * head, 48 + 8 * head + 8)
            fused[:, v] = fused[:, v] @ turn
            out[8 * head : 8 * head + 8] = turn.T @ out[8 * head : 8 * head + 8]
        out += torch.randn(24, 1, generator=torch.Generator().manual_seed(0))  # along the mean, which no LayerNorm lets through
        fused += torch.randn(1, 72, generator=torch.Generator().manual_seed(1)) / block.ln_1.weight.data[:, None]
    assert np.allclose(before, pairing(changed)["composition"], atol=1e-5, equal_nan=True)


def test_a_norm_without_a_mean_sees_the_mean():
    model = build("llama")
    before = pairing(model)["composition"]
    model.model.layers[0].self_attn.o_proj.weight.data += 1.0
    assert np.nanmax(np.abs(before - pairing(model)["composition"])) > 0.05


def test_heads_that_share_keys_and_values_are_marked():
    found = pairing(build("llama"))
    assert found["source_kv_head"].values.tolist() == [0, 0, 1, 1] * 2
    assert found["target_kv_head"].values.tolist() == [0, 0, 1, 1] * 2


def test_an_offset_turns_queries_against_keys_and_leaves_values_alone():
    model = build("llama")
    still, turned, none = (pairing(model, offset=offset)["composition"] for offset in (None, 3, 0))
    assert np.allclose(still, none, atol=1e-6, equal_nan=True)
    assert np.allclose(still.sel(kind="V"), turned.sel(kind="V"), equal_nan=True)
    for kind in ("Q", "K"):
        assert np.nanmax(np.abs(still - turned).sel(kind=kind)) > 0.01
    from tensorscope_nb.scope.rotary import rotations

    anatomy = ts.detect(model)
    w, turn = head_weights(model, anatomy, 1), rotations(model, anatomy, 3)[1]
    qk = w.Q[2] @ turn @ w.K[2].T  # x Q R (y K)ᵀ
    expected = by_definition(qk, torch.eye(24).double(), dense(model, anatomy, 0, 1)[1])
    for kind in ("Q", "K"):
        assert turned.sel(kind=kind, source="0.1", target="1.2").item() == pytest.approx(expected[kind], rel=1e-5)


def planted(kind, seed=0):
    """Random weights, but head 1.2 reads just what head 0.1 writes, in one of its three ways."""
    model = random_gpt2(seed, **WIDE)
    first, second = (model.transformer.h[i].attn for i in (0, 1))
    written = first.c_proj.weight.data[12:24]  # (d_head, d)
    mixed = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))
    at = 48 * "QKV".index(kind) + 24
    second.c_attn.weight.data[:, at : at + 12] = written.T @ mixed
    return model


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_circuit_stands_out_and_nothing_else(kind, seed):
    found = ts.recipes.circuits(pairing(planted(kind, seed)))
    assert found["circuit"].values.tolist() == [f"{kind} 0.1 → 1.2"]
    assert (found["circuit_kind"].item(), found["circuit_source"].item(), found["circuit_target"].item()) == (kind, "0.1", "1.2")
    assert found["composition"] > 2 * found["null"] and found["excess_z"] > 5


def test_random_weights_name_no_circuit_at_the_stated_rate():
    """Models with any pair above chance: 5 % at most, and of these with one that stands out of the others: fewer."""
    above, named, n = 0, 0, 60
    for seed in range(n):
        found = pairing(random_gpt2(seed, **WIDE))
        above += bool((found["composition_q_value"] <= 0.05).any())
        named += ts.recipes.circuits(found).sizes["circuit"] > 0
    assert above / n <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
    assert named <= above


def test_a_direction_that_all_heads_share_is_no_circuit():
    """All write into it, and all read it: above chance everywhere, and yet no two heads do more than all do."""
    model = random_gpt2(3, **WIDE)
    shared = torch.randn(48, generator=torch.Generator().manual_seed(0))
    for block in model.transformer.h:
        block.attn.c_proj.weight.data += 0.4 * torch.randn(48, 1, generator=torch.Generator().manual_seed(1)) * shared
        block.attn.c_attn.weight.data += 0.4 * shared[:, None] * torch.randn(1, 144, generator=torch.Generator().manual_seed(2))
    found = pairing(model)
    below = np.isfinite(found["composition"].values)
    assert (found["composition_q_value"].values[below] <= 0.05).mean() > 0.9
    assert ts.recipes.circuits(found).sizes["circuit"] <= 0.02 * below.sum()


def test_the_circuit_of_an_attention_only_model_built_by_hand():
    scope = ts.Scope(attention_only())
    found = pairing(scope)
    heads = ts.recipes.induction_heads(scope, period=10, token_range=(1, 20), bos=0)
    circuits = ts.recipes.circuits(found, heads=heads)
    assert circuits["circuit"].values.tolist() == ["K 0.0 → 1.0"] and circuits["is_induction_circuit"].all()
    assert circuits["source_previous_token"].item() == pytest.approx(1, abs=1e-4)
    assert "2 heads in a layer" in found["excess"].attrs["reason"]
    # a head without weights writes nothing and reads nothing
    assert np.isnan(found["composition"].sel(source="0.1")).all() and np.isnan(found["composition"].sel(target="1.1")).all()
    # 20 tokens are kept one by one, but for their mean; the first token's own weights are others
    assert found["composition"].sel(kind="K", source="0.0", target="1.0").item() == pytest.approx(19**-0.5, abs=0.01)
    assert found["composition"].sel(kind="V", source="0.0", target="1.0").item() < 0.12


def test_the_packaged_model_shows_the_induction_circuit():
    for seed, source in ((0, "0.0"), (1, "0.3"), (2, "0.0")):
        scope = ts.load("tiny", seed=seed)
        heads = ts.recipes.induction_heads(scope)
        assert heads["previous_token"].sel(layer=0).idxmax("head").item() == int(source[2])
        circuits = ts.recipes.circuits(pairing(scope), heads=heads)
        assert circuits["is_induction_circuit"].all() and set(circuits["circuit_source"].values) == {source}
        assert circuits.sizes["circuit"] >= 3


def test_it_grows_with_training_in_a_study_of_checkpoints():
    study = ts.Study(ts.checkpoints("tiny")).run(ts.recipes.qk_ov_pairing)
    found = study["qk_ov_pairing"]
    assert found["composition"].dims[0] == "checkpoint" and found["source"].values.tolist()[:2] == ["0.0", "0.1"]
    named = {int(c): ts.recipes.circuits(found.sel(checkpoint=c))["circuit"].values.tolist() for c in found["checkpoint"]}
    assert named[0] == named[600] == []
    assert "K 0.0 → 1.1" in named[1200] and "K 0.0 → 1.1" in named[3000]
    assert found["composition"].sel(kind="K", source="0.0", target="1.1").to_series().iloc[[0, 2, 5]].is_monotonic_increasing
    with pytest.raises(ValueError, match=r"more than one of checkpoint here: choose one, such as ds.isel\(checkpoint=0\)"):
        ts.recipes.circuits(found)


def test_in_a_study_with_samples_the_heads_have_a_table():
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.repeats(scope, n=4)).run(ts.recipes.qk_ov_pairing, ts.recipes.induction_heads)
    table = study.frame("layer", "head")
    assert {"qk_ov_correlation", "copying_eigen", "prefix_matching"} <= set(table.columns)
    assert len(table) == 8 and np.isfinite(table["qk_ov_correlation"]).all()


# copying


def with_copying(sign, tied=True, seed=0):
    """Heads of 24 dimensions whose W_OV is ±1."""
    model = random_gpt2(seed, n_head=1, tie_word_embeddings=tied)
    for block in model.transformer.h:
        block.attn.c_attn.weight.data[:, 48:] = torch.eye(24)
        block.attn.c_proj.weight.data = sign * torch.eye(24)
    for name, parameter in model.named_parameters():
        if "ln_" in name and name.endswith("weight"):
            parameter.data.fill_(1.0)
    return model


def test_the_identity_copies_and_its_opposite_does_the_opposite():
    for sign in (1, -1):
        assert np.allclose(pairing(with_copying(sign))["copying_eigen"], sign, atol=1e-6)
    # an unembedding of its own has nothing to do with the embedding
    untied = pairing(with_copying(1, tied=False))
    assert (np.abs(untied["copying_eigen"]) < 3 * untied["copying_eigen_chance"]).all()


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied", "gemma2", "olmo2", "gpt_neox"])
def test_copying_equals_that_of_the_whole_vocabulary(name):
    model = build(name)
    found, anatomy = pairing(model)["copying_eigen"], ts.detect(model)
    embed, unembed = (w.weight.detach().double() for w in (model.get_input_embeddings(), model.get_output_embeddings()))
    norm = model.get_submodule(anatomy.final_norm)
    gain = norm.weight.detach().double() + (1 if name == "gemma2" else 0)
    final = torch.diag(gain) @ (centring(24) if name in ("gpt2", "gpt_neox") else torch.eye(24).double())
    for layer in (0, 1):
        for head in range(anatomy.n_heads):
            values = torch.linalg.eigvals(unembed @ final @ dense(model, anatomy, layer, head)[1] @ embed.T)  # 50 × 50
            expected = (values.real.sum() / values.abs().sum()).item()
            assert found.sel(layer=layer, head=head).item() == pytest.approx(expected, abs=1e-5)


def test_copying_by_chance_is_that_of_heads_whose_output_is_turned():
    """Σλ over many random rotations of what a head writes, of which the norm takes the mean away."""
    model = random_gpt2(1)
    anatomy, chance = ts.detect(model), pairing(model)
    w = head_weights(model, anatomy, 1)
    embed, gain = model.transformer.wte.weight.detach().double(), model.transformer.ln_f.weight.detach().double()
    basis = torch.linalg.qr(torch.cat([torch.ones(24, 1), torch.eye(24)[:, :23]], 1).double()).Q[:, 1:]  # without the mean
    turns = basis @ torch.tensor(ortho_group.rvs(23, 3000, random_state=0)) @ basis.T
    traces = torch.einsum("ed,ndf,fe->n", w.O[0], turns, gain[:, None] * (embed.T @ embed @ w.V[0]))
    values = torch.linalg.eigvals(w.O[0] @ centring(24) @ (gain[:, None] * (embed.T @ embed @ w.V[0]))).abs().sum()
    assert chance["copying_eigen_chance"].sel(layer=1, head=0).item() == pytest.approx((traces.std() / values).item(), rel=0.06)


@pytest.mark.parametrize("name", ["bert", "bert headless", "bert classifier", "vit"])
def test_without_a_next_token_there_is_no_copying_and_it_says_why(name):
    found = pairing(build(name))
    assert np.isnan(found["copying_eigen"]).all() and np.isfinite(found["composition"]).any()
    assert "no head that predicts the next token" in found["copying_eigen"].attrs["reason"]


# what comes wrong


def test_bad_input_is_one_clear_line():
    scope = ts.Scope(random_gpt2())
    for model, says in ((build("mlp"), "no heads: Sequential is no transformer"), (build("cnn"), "no heads")):
        with pytest.raises(ts.UnsupportedModel, match=says):
            pairing(model)
    with pytest.raises(ts.UnsupportedModel, match=r"no next token: .* leave samples out"):
        pairing(build("bert"), torch.ones(2, 5).long())
    with pytest.raises(ValueError, match="there is 1 sample: a correlation is tested over sequences, give at least 2"):
        pairing(scope, torch.ones(1, 5).long())
    with pytest.raises(ts.UnsupportedModel, match="no rotary embedding"):
        pairing(scope, offset=1)
    scope.model.transformer.h[1].attn.c_attn.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"make no composition: the parameter transformer\.h\.1\.attn\.c_attn\.weight holds NaN"):
        pairing(scope)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda ds: ts.recipes.circuits(3), TypeError, "takes the Dataset of a qk_ov_pairing, and a int came"),
        (lambda ds: ts.recipes.circuits(ds[["null"]]), LookupError, "there is no composition among null: give a qk_ov_pairing"),
        (lambda ds: ts.recipes.circuits(ds, 0), ValueError, "n is 0: ask for at least 1 circuit"),
        (lambda ds: ts.recipes.circuits(ds, alpha=2), ValueError, "alpha is 2: give a rate between 0 and 1"),
        (lambda ds: ts.recipes.circuits(ds, alpha="low"), ValueError, "alpha is 'low': give a rate between 0 and 1"),
        (lambda ds: ts.recipes.circuits(ds, n=1.5), ValueError, "n is 1.5: ask for at least 1 circuit"),
        (lambda ds: ts.recipes.circuits(ds, heads=3), TypeError, "heads is a int: give the result of induction_heads"),
        (lambda ds: ts.recipes.circuits(ds.sel(kind="K")), ValueError, "kind is no dimension here any more: choose with a list"),
        (lambda ds: ts.recipes.circuits(ds, heads=ds), LookupError, "heads has no previous_token"),
        (lambda ds: ts.recipes.circuits(ds, heads="1.1"), TypeError, "heads is a str: give the result of induction_heads"),
    ],
)
def test_circuits_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call(pairing(planted("K")))


def test_circuits_of_another_model_are_refused():
    small = ts.recipes.induction_heads(ts.Scope(random_gpt2(n_layer=1)), period=10, token_range=(1, 20), bos=0)
    with pytest.raises(LookupError, match="give the induction_heads of the same model"):
        ts.recipes.circuits(pairing(planted("K")), heads=small)


def test_n_keeps_the_first_and_the_table_is_a_frame():
    found = pairing(ts.load("tiny"))
    every, first = ts.recipes.circuits(found), ts.recipes.circuits(found, 1)
    assert every.sizes["circuit"] == 3 and first["circuit"].values.tolist() == every["circuit"].values.tolist()[:1]
    assert (np.diff(every["excess_z"]) <= 0).all()
    table = every.to_dataframe()
    assert table.loc["K 0.0 → 1.1", "circuit_target"] == "1.1"


def test_the_result_says_how_it_was_made():
    found = pairing(ts.load("tiny"))
    said = json.loads(found.attrs["tensorscope"])
    assert said["recipe"] == "qk_ov_pairing" and said["options"]["offset"] is None
    assert all(v.attrs["long_name"] for v in found.data_vars.values())
    assert found["null"].sel(kind="K", source="0.0", target="1.0").item() == pytest.approx(95**-0.5)  # a LayerNorm centres


def test_the_model_is_left_as_it_was():
    scope = ts.Scope(build("llama"))
    before = {name: p.clone() for name, p in scope.model.named_parameters()}
    pairing(scope, offset=2)
    assert all(torch.equal(before[name], p) for name, p in scope.model.named_parameters())
    assert not any(m._forward_pre_hooks for m in scope.model.modules())
