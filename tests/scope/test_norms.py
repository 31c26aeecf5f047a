"""Norms taken apart: the parts add up to what the module does, for every kind that a family has."""

import pytest
import torch
from model_zoo import CAUSAL, OTHERS
from torch import nn

import tensorscope_nb as ts
from tensorscope_nb.scope.norms import Norm

MODELS = CAUSAL | {"vit": OTHERS["vit"], "bert": OTHERS["bert"]}


def paths_of(anatomy):
    return [path for path in (anatomy.attention_norm(1), anatomy.final_norm) if path]


@pytest.mark.parametrize("name", list(MODELS))
def test_the_parts_of_a_norms_input_become_parts_of_its_output(name):
    model = MODELS[name]()
    anatomy = ts.detect(model)
    assert paths_of(anatomy) or name == "bert"  # whose norms stand behind each sum
    for path in paths_of(anatomy):
        parts = torch.randn(3, 5, 7, anatomy.d_model) * torch.tensor([1.0, 0.01, 30.0])[:, None, None, None]
        norm, whole = Norm.of(model, path, anatomy.d_model), parts.sum(0)
        made = norm.apart(parts, whole).sum(0) + norm.bias
        assert torch.allclose(made.float(), model.get_submodule(path)(whole), atol=1e-4)


@pytest.mark.parametrize("name", list(MODELS))
def test_attention_reads_what_its_norm_gives(name):
    model = MODELS[name]()
    scope = ts.Scope(model)
    path, attention = scope.anatomy.attention_norm(1), scope.anatomy.attention_paths[1]
    given = {}

    def keep(module, args, kwargs):
        given["x"] = args[0] if args else kwargs["hidden_states"]

    hook = model.get_submodule(attention).register_forward_pre_hook(keep, with_kwargs=True)
    inputs = {"pixel_values": torch.randn(1, 3, 8, 8)} if name == "vit" else {"input_ids": torch.arange(1, 9)[None]}
    samples = ts.Samples.tensors(inputs) if name == "vit" else ts.Samples.tokens(inputs["input_ids"])
    stream = scope.record(samples, "layers.1.resid_pre")["layers.1.resid_pre"]
    hook.remove()
    expected = model.get_submodule(path)(stream) if path else stream
    assert torch.allclose(given["x"], expected, atol=1e-5)


def test_the_gain_of_a_norm_that_keeps_its_difference_from_one_is_found():
    model = CAUSAL["gemma2"]()
    norm = Norm.of(model, "model.norm", 24)
    assert not norm.centres and torch.equal(norm.gain, 1 + model.model.norm.weight.detach().double())


def test_the_scale_of_no_norm_is_one():
    norm = Norm.of(nn.Linear(4, 4), "", 4)
    x = torch.randn(2, 4)
    assert torch.equal(norm.apart(x, 2 * x), x.double())


def test_what_is_no_norm_is_refused():
    model = nn.Sequential(nn.Softmax(-1))
    model.register_parameter("p", nn.Parameter(torch.ones(1)))
    with pytest.raises(ts.UnsupportedModel, match="neither a LayerNorm nor an RMSNorm"):
        Norm.of(model, "0", 4)
