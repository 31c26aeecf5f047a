import copy
import json

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.numerics import t_interval
from tensorscope_nb.numerics.frames import Frame
from tensorscope_nb.recipes.activation_overlap import sparsity

IDS = torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[4:, 8:] = 0
MASK[3, :2] = 0


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def notes(found):
    return json.loads(found.attrs["tensorscope"])["notes"]


def dense(rows):
    """score and dimensionality over all pairs."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    off = ~torch.eye(len(rows), dtype=torch.bool)
    return float(rows.shape[1] * ((unit @ unit.T) ** 2)[off].mean()), (
        rows.norm(dim=1) ** 2 / ((unit @ rows.T) ** 2).sum(1)
    ).numpy()


DOWN = {
    "gpt2": lambda model, i: model.transformer.h[i].mlp.c_proj.weight,  # Conv1D: (in, out)
    "llama": lambda model, i: model.model.layers[i].mlp.down_proj.weight.T,
    "gpt_neox": lambda model, i: model.gpt_neox.layers[i].mlp.dense_4h_to_h.weight.T,
    "bert": lambda model, i: model.bert.encoder.layer[i].output.dense.weight.T,
    "vit": lambda model, i: model.vit.layers[i].mlp.fc2.weight.T,
}


@pytest.mark.parametrize("family", DOWN)
def test_directions_are_the_columns_of_each_familys_down_projection(family):
    model = build(family)
    found = ts.recipes.superposition(ts.Scope(model))
    for i in range(2):
        score, dimensionality = dense(DOWN[family](model, i).detach().double())
        assert float(found["score"][i]) == pytest.approx(score, rel=1e-9)
        assert np.allclose(found["dimensionality"][i], dimensionality, rtol=1e-9)


def test_a_conv1d_and_a_linear_of_the_same_weights_are_equal():
    model = random_gpt2(n_inner=24)  # square: a transposition that is forgotten has the same shape
    scope = ts.Scope(model)
    linear = torch.nn.Sequential(torch.nn.Linear(24, 24), torch.nn.Linear(24, 24))
    for i in range(2):
        linear[i].weight.data = model.transformer.h[i].mlp.c_proj.weight.data.T.clone()
    one, other = ts.recipes.superposition(scope), ts.recipes.superposition(ts.Scope(linear))
    for name in ("score", "dimensionality", "features_per_dimension", "score_z"):
        assert np.allclose(one[name], other[name], rtol=1e-9), name
    linear[0].weight.data = linear[0].weight.data.T.clone()
    assert not np.isclose(ts.recipes.superposition(ts.Scope(linear))["dimensionality"][0], one["dimensionality"][0]).any()


def test_features_per_dimension_are_free_of_scale():
    model = random_gpt2()
    before = ts.recipes.superposition(ts.Scope(model))
    weight = model.transformer.h[0].mlp.c_proj.weight.data
    norms = weight.norm(dim=1).double()
    assert float(before["features_per_dimension"][0]) == pytest.approx(
        float(((norms / np.median(norms)) ** 2).sum() / 24), rel=1e-6
    )
    weight *= 5
    model.lm_head.weight.data *= 3
    after = ts.recipes.superposition(ts.Scope(model))
    for name in before.data_vars:
        assert np.allclose(before[name], after[name], rtol=1e-5), name


def test_random_weights_are_within_the_null_and_clustered_ones_far_above():
    model = random_gpt2(n_embd=48, n_head=3, n_inner=400)
    found = ts.recipes.superposition(ts.Scope(model))
    assert ((found["score"] > found["null_ci_low"] - 0.01) & (found["score"] < found["null_ci_high"] + 0.01)).all()
    assert (abs(found["score_z"]) < 4).all() and (found["null"] == 1).all()
    weight = model.transformer.h[1].mlp.c_proj.weight.data
    weight += 0.2
    again = ts.recipes.superposition(ts.Scope(model))
    assert float(again["score_z"][0]) == float(found["score_z"][0]) and float(again["score_z"][1]) > 20


def test_the_head_is_what_unembeds_and_not_what_embeds():
    for family in ("llama", "llama tied", "gpt2", "bert"):
        model = build(family)
        rows = model.get_output_embeddings().weight.detach().double()
        found = ts.recipes.superposition(ts.Scope(model))
        score, _ = dense(rows)
        norms = rows.norm(dim=1) / rows.norm(dim=1).median()
        assert float(found["mean_square_overlap"]) == pytest.approx(score / 24, rel=1e-9)
        assert float(found["phi_half"]) == float((norms > 0.5).double().mean())
        assert float(found["welch_bound"]) == pytest.approx((50 - 24) / (24 * 49))
        assert float(found["mean_square_overlap_null_ci_low"]) < 1 / 24 < float(found["mean_square_overlap_null_ci_high"])
    model = build("llama")
    own = float(ts.recipes.superposition(ts.Scope(model))["mean_square_overlap"])
    model.get_input_embeddings().weight.data += 1
    assert float(ts.recipes.superposition(ts.Scope(model))["mean_square_overlap"]) == own


def head(rows):
    """A model whose head has these rows."""
    model = random_gpt2(vocab_size=len(rows), n_embd=rows.shape[1], n_head=1, tie_word_embeddings=False)
    model.lm_head.weight.data = rows.float()
    return ts.recipes.superposition(ts.Scope(model))


def test_the_regime_follows_the_rule_that_is_stated():
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert head(rows).attrs["regime"] == "strong" and float(head(rows)["phi_half"]) > 0.9
    assert head(rows[:8]).attrs["regime"] == "none"
    assert head(rows[:11]).attrs["regime"] == "weak"
    few = rows.clone() / rows.norm(dim=1, keepdim=True)
    few[:70] *= 0.3
    assert head(few).attrs["regime"] == "between" and float(head(few)["phi_half"]) == pytest.approx(0.65)


def test_rows_of_zeros_in_the_head_are_said():
    rows = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    rows[3] = 0
    found = head(rows)
    assert "1 of the 60 rows of the head are zero" in notes(found)[0]
    assert float(found["mean_square_overlap"]) == pytest.approx(Frame.of(torch.cat([rows[:3], rows[4:]])).mean_square_overlap)
    assert float(found["phi_half"]) <= 59 / 60


def test_a_dead_column_is_left_out_and_counted():
    model = random_gpt2()
    clean = ts.recipes.superposition(ts.Scope(model), ts.Samples.tokens(IDS, MASK))
    model.transformer.h[1].mlp.c_proj.weight.data[[5, 9]] = 0
    found = ts.recipes.superposition(ts.Scope(model), ts.Samples.tokens(IDS, MASK))
    assert found["n_zero"].values.tolist() == [0, 2] and clean["n_zero"].values.tolist() == [0, 0]
    for name in ("dimensionality", "neuron_interference", "neuron_interference_ci_low"):
        assert np.isnan(found[name][1, [5, 9]]).all() and int(found[name].isnull().sum()) == 2, name
    assert found["interference"].notnull().all() and float(found["interference_ratio_null"][1]) == pytest.approx((96 - 3) / 24)
    assert float(found["interference"][1]) == pytest.approx(float(np.nanmean(found["neuron_interference"][1])))


def test_without_a_head_the_layers_are_there_and_the_head_is_said_to_be_missing():
    found = ts.recipes.superposition(ts.Scope(build("bert headless")))
    assert found["score"].notnull().all() and found.attrs["regime"] == "unknown"
    for name in ("phi_half", "phi_one", "mean_square_overlap", "welch_bound"):
        assert np.isnan(found[name])
    assert notes(found) == ["there is no language-model head: its scalars are NaN"]


def test_per_sample_needs_samples():
    with pytest.raises(ValueError, match="per_sample=True and there are no samples"):
        ts.recipes.superposition(ts.Scope(random_gpt2()), per_sample=True)


@pytest.mark.parametrize("family", ["cnn", "falcon"])
def test_without_mlp_blocks_the_missing_part_is_named(family):
    with pytest.raises(ts.UnsupportedModel, match="no MLP blocks that are known"):
        ts.recipes.superposition(ts.Scope(build(family)))


def test_a_plain_mlp_has_one_direction_per_input_and_no_site_for_samples():
    model = build("mlp")
    found = ts.recipes.superposition(ts.Scope(model))
    score, dimensionality = dense(model[0].weight.detach().T.double())
    assert float(found["score"][0]) == pytest.approx(score) and np.allclose(found["dimensionality"][0], dimensionality)
    assert found["dimensionality"][1, 8:].isnull().all() and found["dimensionality"][1, :8].notnull().all()
    with pytest.raises(ts.UnsupportedModel, match=r"no site layers.\*.mlp.post"):
        ts.recipes.superposition(ts.Scope(model), ts.Samples.tensors(torch.zeros(3, 10)))


def toy_models(n, share, steps=1500, m=2, n_models=4):
    """x̂ = ReLU(WᵀWx + b) of Elhage et al., trained on features that are there for a ``share`` of the samples."""
    generator = torch.Generator().manual_seed(0)
    weights = (0.5 * torch.randn(n_models, m, n, generator=generator)).requires_grad_()
    bias = torch.zeros(n_models, 1, n, requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        x = torch.rand(1, 512, n, generator=generator) * (torch.rand(1, 512, n, generator=generator) < share)
        loss = ((torch.relu(x @ weights.mT @ weights + bias) - x) ** 2).sum()
        optimiser.zero_grad()
        (loss / 512).backward()
        optimiser.step()
    return weights.detach()


@pytest.mark.parametrize(("n", "expected"), [(5, 0.4), (4, 0.5)])
def test_a_trained_toy_model_has_a_pentagon_of_five_features_and_two_antipodal_pairs_of_four(n, expected):
    for weight in toy_models(n, 0.05):
        layer = torch.nn.Linear(n, 2, bias=False)
        layer.weight.data = weight
        found = ts.recipes.superposition(ts.Scope(torch.nn.Sequential(layer, torch.nn.ReLU())))
        assert np.allclose(found["dimensionality"], expected, atol=0.01)
        assert float(found["features_per_dimension"][0]) == pytest.approx(n / 2, rel=0.02)


def activations(model, samples):
    """(layer: sequences of (tokens, neurons)), by hooks on the down-projections."""
    kept = {}
    hooks = [
        block.mlp.c_proj.register_forward_pre_hook(lambda m, args, i=i: kept.__setitem__(i, args[0].detach().double()))
        for i, block in enumerate(model.transformer.h)
    ]
    position = (samples.attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        model(samples.input_ids, attention_mask=samples.attention_mask, position_ids=position)
    for hook in hooks:
        hook.remove()
    return {i: [a[s, samples.attention_mask[s].bool()] for s in range(len(samples))] for i, a in kept.items()}


def linearised(a, n):
    """The ends of the Student interval of Σ a / Σ n."""
    ratio = a.sum() / n.sum()
    return [float(ratio + x) for x in t_interval((a - ratio * n) / n.mean())[1:]]


def test_interference_and_sparsity_are_those_of_a_dense_reference():
    model = random_gpt2()
    samples = ts.Samples.tokens(IDS, MASK)
    found = ts.recipes.superposition(ts.Scope(model), samples, per_sample=True)
    for i, by_sequence in activations(model, samples).items():
        weight = model.transformer.h[i].mlp.c_proj.weight.detach().double()
        unit = weight / weight.norm(dim=1, keepdim=True)
        cos = (unit @ unit.T).fill_diagonal_(0)
        reads = [(a @ cos) ** 2 for a in by_sequence]
        every, power = torch.cat(reads), torch.cat(by_sequence) ** 2
        rest, rest_power = torch.cat([r[1:] for r in reads]), torch.cat([a[1:] for a in by_sequence]) ** 2
        row = found.isel(layer=i)
        expected = {
            "interference": every.mean(), "interference_ratio": every.mean() / power.mean(),
            "interference_without_first": rest.mean(), "interference_ratio_without_first": rest.mean() / rest_power.mean(),
            "top_token_share": every.mean(1).max() / every.mean(1).sum(), "sparsity": sparsity(torch.cat(by_sequence)).mean(),
            "interference_ratio_null": (len(cos) - 1) / 24,
        }  # fmt: skip
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-4), name
        assert np.allclose(row["neuron_interference"], every.mean(0), rtol=1e-4)
        assert np.allclose(row["neuron_power"], power.mean(0), rtol=1e-4)
        assert np.allclose(row["interference_by_sample"], [float(r.mean()) for r in reads], rtol=1e-4)
        # intervals: of the ratio Σ over tokens / number of tokens, sequence by sequence
        n = np.array([len(r) for r in reads], dtype=float)
        low, high = linearised(np.array([float(r.mean(1).sum()) for r in reads]), n)
        assert [float(row["interference_ci_low"]), float(row["interference_ci_high"])] == pytest.approx([low, high], rel=1e-3)
        for neuron in (0, 17):
            low, high = linearised(np.array([float(r[:, neuron].sum()) for r in reads]), n)
            ends = [float(row[f"neuron_interference_ci_{end}"][neuron]) for end in ("low", "high")]
            assert ends == pytest.approx([low, high], rel=1e-3)


def test_random_directions_interfere_as_the_null_says_and_orthogonal_ones_do_not():
    model = random_gpt2(n_inner=20)
    samples = ts.Samples.tokens(IDS, MASK)
    ratios = []
    for seed in range(60):
        for block in model.transformer.h:
            block.mlp.c_proj.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
        ratios.append(float(ts.recipes.superposition(ts.Scope(model), samples)["interference_ratio"][0]))
    null = 19 / 24
    assert abs(np.mean(ratios) - null) < 4 * np.std(ratios) / np.sqrt(60) and np.std(ratios) < 0.3
    for block in model.transformer.h:
        block.mlp.c_proj.weight.data = torch.linalg.qr(block.mlp.c_proj.weight.data.T).Q.T.contiguous() * 3
    found = ts.recipes.superposition(ts.Scope(model), samples)
    assert (found["interference_ratio"] < 1e-10).all() and (found["score"] < 1e-10).all()


def test_how_the_samples_are_cut_changes_nothing():
    scope, samples = ts.Scope(random_gpt2()), ts.Samples.tokens(IDS, MASK)
    whole, cut = (ts.recipes.superposition(scope, samples, chunk=chunk) for chunk in (6, 1))
    for name in whole.data_vars:
        assert np.allclose(whole[name], cut[name], rtol=1e-4, equal_nan=True), name


def test_a_massive_first_token_shows_in_its_share_and_not_in_what_leaves_it_out():
    model = random_gpt2()
    samples = ts.Samples.tokens(IDS)
    before = ts.recipes.superposition(ts.Scope(model), samples)
    model.transformer.wpe.weight.data[0] *= 200
    model.transformer.h[0].ln_2 = torch.nn.Identity()
    after = ts.recipes.superposition(ts.Scope(model), samples)
    assert float(after["interference"][0]) > 100 * float(after["interference_without_first"][0])
    assert float(after["top_token_share"][0]) > 0.9 / 6 > 2 * float(before["top_token_share"][0])  # one of six first tokens


def test_a_single_sequence_has_no_interval():
    found = ts.recipes.superposition(ts.Scope(random_gpt2()), ts.Samples.tokens(IDS[:1]))
    assert found["interference"].notnull().all() and found["interference_ci_low"].isnull().all()
    assert found["neuron_interference_ci_high"].isnull().all() and found["sparsity_ci_low"].isnull().all()
    one_token = ts.recipes.superposition(ts.Scope(random_gpt2()), ts.Samples.tokens(IDS[:, :1]))
    assert one_token["interference_without_first"].isnull().all() and one_token["interference"].notnull().all()


def test_sparsity_is_one_for_one_active_neuron_and_zero_for_all_alike():
    one, alike = torch.zeros(1, 50), torch.ones(1, 50)
    one[0, 3] = -2
    assert float(sparsity(one)) == pytest.approx(1) and float(sparsity(alike)) == pytest.approx(0)
    gaussian = torch.randn(100, 4000, generator=torch.Generator().manual_seed(0))
    assert float(sparsity(gaussian).mean()) == pytest.approx(1 - 2 / np.pi, abs=0.003)
    assert np.isnan(float(sparsity(torch.zeros(1, 50))))


def test_half_precision_is_read_as_it_is():
    model = random_gpt2()
    half = copy.deepcopy(model).bfloat16()
    one = ts.recipes.superposition(ts.Scope(model), ts.Samples.tokens(IDS))
    other = ts.recipes.superposition(ts.Scope(half), ts.Samples.tokens(IDS))
    assert np.allclose(one["score"], other["score"], rtol=0.01) and np.allclose(
        one["interference"], other["interference"], rtol=0.1
    )


def test_the_view_is_of_the_layers_scores():
    found = ts.recipes.superposition(ts.load("tiny"))
    assert repr(ts.view(found)) == "LayerBars(score)"


def test_weights_that_are_not_finite_are_named():
    """A row that no prompt reads: the model itself runs."""
    model = build("llama")
    scope = ts.Scope(model)
    for name, parameter in (("down_proj", model.model.layers[1].mlp.down_proj.weight), ("lm_head", model.lm_head.weight)):
        kept = parameter.detach().clone()
        parameter.data[3, 0] = np.nan
        with pytest.raises(ValueError, match=rf"{name}.* holds NaN"):
            ts.recipes.superposition(scope)
        parameter.data.copy_(kept)
    model.model.embed_tokens.weight.data[40] = np.inf
    with pytest.raises(ValueError, match=r"embed_tokens.* holds NaN or infinity"):
        ts.recipes.qk_ov_pairing(scope)


def test_what_is_less_the_mean_is_that_of_all_pairs_and_blind_to_a_shift():
    model = random_gpt2()
    head, down = model.transformer.wte.weight, model.transformer.h[0].mlp.c_proj.weight
    before = ts.recipes.superposition(ts.Scope(model))
    with torch.no_grad():
        for rows in (head, down):
            rows += 3 * rows.std()
    found = ts.recipes.superposition(ts.Scope(model))
    for name, rows, factor in (("score_centred", down, down.shape[1]), ("mean_square_overlap_centred", head, 1)):
        rows = rows.detach().double().numpy()
        rows = rows - rows.mean(0)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        n = len(rows)
        assert np.isclose(found[name].values.flat[0], factor * (((unit @ unit.T) ** 2).sum() - n) / (n * (n - 1)), rtol=1e-6)
        assert np.isclose(found[name].values.flat[0], before[name].values.flat[0], rtol=1e-4)
    assert found["mean_square_overlap"] > 3 * before["mean_square_overlap"] and found["score"][0] > 3 * before["score"][0]
