import re
from pathlib import Path

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def test_the_value_of_the_function_comes_back(scope):
    record = scope.record(IDS, ["layers.0.attn.z", "logits"])
    z, logits = scope.run(lambda s: (s.layers[0].attn.z, s.logits), IDS)
    assert torch.allclose(z, record["layers.0.attn.z"], atol=1e-5) and torch.allclose(logits, record["logits"], atol=1e-5)
    both = scope.run(lambda s: {"mean": s.layers[0].attn.z.mean().item(), "shape": s.logits.shape}, IDS)
    assert both == {"mean": pytest.approx(z.mean().item(), abs=1e-6), "shape": (3, 12, 50)}
    assert scope.run(lambda s: None, IDS) is None


def test_edits_and_gradients(scope):
    record = scope.record(IDS, "layers.1.attn.z", gradients=True, edits={"layers.0.attn.pattern": lambda a: a * 0.5})

    def edited_gradient(s):
        s.layers[0].attn.pattern *= 0.5
        z = s.layers[1].attn.z
        logits = s.logits[:, :-1].transpose(1, 2)
        torch.nn.functional.cross_entropy(logits, IDS[:, 1:], reduction="none").mean(1).sum().backward()
        return z.grad

    assert torch.allclose(scope.run(edited_gradient, IDS), record.gradients["layers.1.attn.z"], atol=1e-6)


def test_the_model_runs_no_further_than_the_function_asks(scope):
    ran = []
    for name, module in scope.model.named_modules():
        module.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
    scope.run(lambda s: s.layers[0].attn.z, IDS)
    assert "transformer.h.0.attn.c_attn" in ran and not {"transformer.h.0.mlp", "transformer.h.1"} & set(ran)


def test_an_error_of_the_function_comes_out(scope):
    def fail(s):
        s.embed
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        scope.run(fail, IDS)
    assert scope.run(lambda s: s.logits, IDS).shape == (3, 12, 50)


def test_a_late_write_is_said(scope):
    def late(s):
        z = s.layers[0].attn.z
        s.layers[1].attn.z
        z[:] = 0

    with pytest.warns(UserWarning, match=r"layers\.0\.attn\.z was written after"):
        scope.run(late, IDS)


@pytest.mark.parametrize("model", ["mlp", "cnn", "bert classifier", "vit"])
def test_any_model(model):
    import model_zoo

    scope = ts.Scope(model_zoo.build(model))
    x = {"mlp": torch.ones(2, 10), "cnn": torch.ones(2, 1, 8, 8), "vit": {"pixel_values": torch.ones(2, 3, 8, 8)}}.get(model, IDS)
    samples = ts.Samples.tensors(x) if model in ("mlp", "cnn", "vit") else scope.samples(x)
    assert torch.allclose(scope.run(lambda s: s.logits, samples), scope.record(samples, "logits")["logits"], atol=1e-5)


def test_the_examples_of_the_guide_run():
    text = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    clean = names["scope"].record([names["text"]], "logits")["logits"]
    assert len(blocks) == 4 and not torch.allclose(names["logits"], clean, atol=1e-3)
