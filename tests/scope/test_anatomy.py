import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts


def test_counts_and_paths():
    anatomy = ts.Scope(random_gpt2()).anatomy
    assert (str(anatomy), anatomy.n_layers, anatomy.n_heads, anatomy.d_head, anatomy.d_model, anatomy.d_mlp) == (
        "gpt2",
        2,
        3,
        8,
        24,
        96,
    )
    assert anatomy.module(1, "O") == "transformer.h.1.attn.c_proj"
    assert anatomy.module(0, "K") == "transformer.h.0.attn.c_attn"


@pytest.mark.parametrize("block", ["Q", "K", "V", "O"])
def test_slice_is_the_weight_of_one_head(block):
    """Zeroing the slice of a head changes that head's q, k, v or its share of attn.out, and nothing of the others."""
    model = random_gpt2()
    scope = ts.Scope(model)
    ids = torch.arange(12)[None] + 3
    site = f"layers.0.attn.{'z' if block == 'O' else block.lower()}"
    before = scope.record(ids, [site, "layers.0.attn.out"])
    piece = scope.anatomy.slice(0, block, 1)
    weight = dict(model.named_parameters())[piece.parameter].data
    assert piece.of(weight).numel() == weight.numel() // (3 if block == "O" else 9)
    removed = piece.of(weight).clone()
    piece.of(weight).zero_()
    if block == "O":
        after = scope.record(ids, "layers.0.attn.out")["layers.0.attn.out"]
        assert torch.allclose(before["layers.0.attn.out"] - after, before[site][:, :, 1] @ removed, atol=1e-5)
    else:
        after = scope.record(ids, site)[site]
        bias = model.transformer.h[0].attn.c_attn.bias.view(3, 3, 8)["QKV".index(block), 1]
        assert torch.allclose(after[:, :, 1], bias.expand_as(after[:, :, 1]), atol=1e-6)
        assert torch.equal(after[:, :, [0, 2]], before[site][:, :, [0, 2]])


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda a: a.module(2, "O"), "there is no layer 2: the model has layers 0 to 1"),
        (lambda a: a.slice(0, "Q", 3), "there is no head 3: the model has heads 0 to 2"),
        (lambda a: a.module(0, "router"), "gpt2 has no block 'router'"),
        (lambda a: a.slice(0, "mlp_in", 0), "only Q, K, V and O are made of heads"),
    ],
)
def test_wrong_questions_are_one_clear_line(ask, says):
    with pytest.raises(LookupError, match=says):
        ask(ts.Scope(random_gpt2()).anatomy)


def test_validation_removes_the_site_that_is_not_what_it_is_called():
    """A block that adds something to the stream between attention and MLP has no resid_mid in this table's sense."""
    model = random_gpt2()
    model.transformer.h[1].ln_2.register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))
    anatomy = ts.Scope(model).anatomy
    assert set(anatomy.missing_sites) == {"layers.0.mlp.pre_linear", "layers.1.mlp.pre_linear", "layers.1.resid_mid"} | {
        "layers.1.mlp.out"
    }
    assert "resid_pre + attn.out is not resid_mid" in anatomy.missing_sites["layers.1.resid_mid"]
    assert "layers.0.resid_mid" in anatomy.sites


def test_nan_weights_are_named_when_the_model_is_wrapped():
    model = random_gpt2()
    model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight holds NaN"):
        ts.Scope(model)
