import json

import numpy as np
import pytest
import torch
from tiny_models import attention_only, random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (6, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[4:, 8:] = 0


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def losses_with(model, module, replace):
    """Mean loss per sample with ``replace`` on the input of ``module``: a hook written by hand."""
    handle = module.register_forward_pre_hook(lambda m, args: (replace(args[0].clone()),))
    try:
        with torch.no_grad():
            logits = model(IDS, attention_mask=MASK).logits
    finally:
        handle.remove()
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none")
    keep = MASK[:, 1:] * MASK[:, :-1]
    return (nll * keep).sum(1) / keep.sum(1)


def inputs_of(model, module):
    kept = []
    handle = module.register_forward_pre_hook(lambda m, args: kept.append(args[0].detach().clone()))
    with torch.no_grad():
        model(IDS, attention_mask=MASK)
    handle.remove()
    return kept[0]


def by_hand(model, stand_in_of):
    """(sample, layer, head) increase of the loss, from hooks on the output projections."""
    samples = ts.Scope(model).losses(ts.Samples.tokens(IDS, MASK))
    rows = np.zeros((6, 2, 3))
    for layer in range(2):
        projection = model.transformer.h[layer].attn.c_proj
        stand_in = stand_in_of(inputs_of(model, projection))
        for head in range(3):
            part = slice(head * 8, head * 8 + 8)

            def replace(x, part=part, stand_in=stand_in):
                x[..., part] = stand_in[..., part]
                return x

            rows[:, layer, head] = (losses_with(model, projection, replace) - samples).numpy()
    return rows


def test_zero_ablation_is_removing_the_heads_weights(scope):
    samples = ts.Samples.tokens(IDS, MASK)
    found = ts.recipes.ablation(scope, samples, method="zero")
    for layer in range(2):
        for head in range(3):
            model = random_gpt2()
            piece = scope.anatomy.slice(layer, "O", head)
            piece.of(dict(model.named_parameters())[piece.parameter].data).zero_()
            surgery = ts.Scope(model).losses(samples) - scope.losses(samples)
            assert np.allclose(found["loss_increase"].sel(layer=layer, head=head), surgery.mean(), atol=1e-5)
    assert np.abs(found["loss_increase"]).max() > 0.05


def test_mean_ablation_equals_hooks_by_hand(scope):
    found = ts.recipes.ablation(scope, ts.Samples.tokens(IDS, MASK), per_sample=True, chunk=4)
    expected = by_hand(scope.model, lambda x: x[MASK.bool()].mean(0).expand_as(x))
    assert np.allclose(found["loss_increase_by_sample"], expected, atol=1e-5)
    assert np.allclose(found["loss_increase"], expected.mean(0), atol=1e-5)
    assert np.allclose(found["ci_high"] - found["ci_low"], 2 * 2.5705818 * expected.std(0, ddof=1) / np.sqrt(6), atol=1e-4)


def test_resampling_takes_the_same_position_of_another_sample(scope):
    from tensorscope_nb.recipes.ablation import _donors

    donors = _donors(6, seed=3)
    assert sorted(donors) == list(range(6)) and all(i != j for i, j in enumerate(donors))
    found = ts.recipes.ablation(scope, ts.Samples.tokens(IDS, MASK), method="resample", seed=3, per_sample=True, chunk=4)

    def stand_in(x):
        mean = x[MASK.bool()].mean(0)
        given = x[donors].clone()
        given[~MASK[donors].bool()] = mean
        return given

    assert np.allclose(found["loss_increase_by_sample"], by_hand(scope.model, stand_in), atol=1e-5)


def test_units_other_than_heads(scope):
    ids = IDS[:3]
    own = scope.losses(ids)
    mlp = ts.recipes.ablation(scope, ids, units="mlp", method="zero")["loss_increase"]
    assert mlp.dims == ("layer",)
    expected = (scope.losses(ids, edits={"layers.1.mlp.out": lambda x: x * 0}) - own).mean()
    assert np.allclose(mlp.sel(layer=1), expected, atol=1e-6)
    layer = ts.recipes.ablation(scope, ids, units="layer", method="zero")["loss_increase"]
    both = {"layers.0.mlp.out": lambda x: x * 0, "layers.0.attn.out": lambda x: x * 0}
    assert np.allclose(layer.sel(layer=0), (scope.losses(ids, edits=both) - own).mean(), atol=1e-6)
    neuron = ts.recipes.ablation(scope, ids, units="neuron", method="zero")["loss_increase"]
    model = random_gpt2()
    model.transformer.h[0].mlp.c_proj.weight.data[17] = 0
    assert neuron.sizes == {"layer": 2, "neuron": 96}
    assert np.allclose(neuron.sel(layer=0, neuron=17), (ts.Scope(model).losses(ids) - own).mean(), atol=1e-5)


def test_the_constructed_circuit_needs_both_of_its_heads_and_no_other():
    scope = ts.Scope(attention_only())
    samples = ts.datasets.repeats(scope, n=6, period=10, token_range=(1, 20), bos=0)
    effect = ts.recipes.ablation(scope, samples)
    assert (effect["ci_low"].sel(head=0) > 2).all()
    assert np.allclose(effect["loss_increase"].sel(head=1), 0, atol=1e-6)


def test_the_previous_token_head_of_the_packaged_model_carries_the_repeat():
    scope = ts.load("tiny")
    effect = ts.recipes.ablation(scope, ts.datasets.repeats(scope, n=8))
    scores = ts.recipes.induction_heads(scope)
    head = scores["previous_token"].sel(layer=0).argmax("head").item()
    assert effect["ci_low"].sel(layer=0, head=head) > 3 and effect["loss"] < 0.3
    assert (effect["loss_increase"].sel(layer=1) < 3).all()  # redundant: no induction head alone costs as much


def test_the_cut_and_the_order_of_samples_change_nothing(scope):
    samples = ts.Samples.tokens(IDS, MASK)
    whole = ts.recipes.ablation(scope, samples)
    cut = ts.recipes.ablation(scope, samples, chunk=1)
    turned = ts.recipes.ablation(scope, samples[[5, 3, 1, 0, 2, 4]])
    for other in (cut, turned):
        assert np.allclose(whole["loss_increase"], other["loss_increase"], atol=1e-5)
        assert np.allclose(whole["ci_low"], other["ci_low"], atol=1e-5)


def test_one_sample_has_no_interval(scope):
    found = ts.recipes.ablation(scope, IDS[:1])
    assert np.isfinite(found["loss_increase"]).all() and np.isnan(found["ci_low"]).all()
    assert json.loads(found.attrs["tensorscope"])["n_used"] == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"units": "expert"}, "units is 'expert': choose among head, mlp, layer, neuron"),
        ({"method": "median"}, "method is 'median': choose 'mean', 'resample' or 'zero'"),
        ({"method": "resample"}, "there is 1 sample: resampling takes values from another"),
    ],
)
def test_bad_options_are_one_clear_line(scope, options, says):
    with pytest.raises(ValueError, match=says):
        ts.recipes.ablation(scope, IDS[:1], **options)


@pytest.mark.parametrize("method", ["mean", "resample", "zero"])
def test_the_side_of_the_padding_changes_nothing(scope, method):
    lengths, width = [12, 5, 9, 7], 14
    right = ts.Samples.tokens(*padded(lengths, width, lambda row, extra: row + [0] * extra))
    left = ts.Samples.tokens(*padded(lengths, width, lambda row, extra: [0] * extra + row))
    found = [ts.recipes.ablation(scope, s, method=method)["loss_increase"] for s in (right, left)]
    assert np.allclose(*found, atol=2e-5) and np.abs(found[0]).max() > 0.01


def padded(lengths, width, pad):
    rows = torch.randint(1, 50, (len(lengths), width), generator=torch.Generator().manual_seed(5)).tolist()
    ids = torch.tensor([pad(row[:n], width - n) for row, n in zip(rows, lengths)])
    return ids, torch.tensor([pad([1] * n, width - n) for n in lengths])


def test_a_chunk_larger_than_the_default(scope):
    ids = torch.randint(50, (70, 6), generator=torch.Generator().manual_seed(2))
    large = ts.recipes.ablation(scope, ids, method="resample", chunk=70)["loss_increase"]
    assert np.allclose(large, ts.recipes.ablation(scope, ids, method="resample", chunk=9)["loss_increase"], atol=1e-5)
