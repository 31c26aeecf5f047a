import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

STEP = 1e-6  # of central differences, in double precision
IDS = torch.randint(50, (5, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def test_patterns_and_hidden_states_are_the_models_own(scope):
    model = scope.model
    record = scope.record(
        IDS, ["layers.*.attn.pattern", "embed", "layers.*.resid_post", "layers.*.resid_pre", "final_norm", "logits"]
    )
    with torch.no_grad():
        own = model(IDS, output_hidden_states=True)
        model.set_attn_implementation("eager")
        eager = model(IDS, output_attentions=True)
    for i in range(2):
        assert torch.allclose(record[f"layers.{i}.attn.pattern"], eager.attentions[i], atol=1e-6)
        assert torch.allclose(record[f"layers.{i}.resid_pre"], own.hidden_states[i], atol=1e-5)
    assert torch.allclose(record["embed"], own.hidden_states[0], atol=1e-6)
    assert torch.allclose(record["layers.0.resid_post"], own.hidden_states[1], atol=1e-5)
    assert torch.allclose(record["final_norm"], own.hidden_states[2], atol=1e-5)
    assert torch.allclose(record["logits"], own.logits, atol=1e-5)


def test_the_sites_of_a_layer_hang_together(scope):
    """softmax(scores) = pattern, pattern @ v = z, projections of the normalised stream are q, k, v; MLP sites likewise."""
    block = scope.model.transformer.h[1]
    r = {
        k.removeprefix("layers.1."): v for k, v in scope.record(IDS, ["layers.1.attn.*", "layers.1.mlp.*", "layers.1.*"]).items()
    }
    qkv = block.attn.c_attn(block.ln_1(r["resid_pre"])).unflatten(-1, (3, 3, 8))
    for j, name in enumerate("qkv"):
        assert torch.allclose(r[f"attn.{name}"], qkv[:, :, j], atol=1e-5)
    lower = torch.ones(12, 12).tril().bool()
    scores = torch.einsum("bqhd,bkhd->bhqk", r["attn.q"], r["attn.k"]) / 8**0.5
    assert torch.allclose(r["attn.scores"][..., lower], scores[..., lower], atol=1e-5)
    assert torch.allclose(r["attn.scores"].softmax(-1), r["attn.pattern"], atol=1e-6)
    assert torch.allclose(torch.einsum("bhqk,bkhd->bqhd", r["attn.pattern"], r["attn.v"]), r["attn.z"], atol=1e-5)
    assert torch.allclose(block.mlp.c_fc(block.ln_2(r["resid_mid"])), r["mlp.pre"], atol=1e-5)
    assert torch.allclose(block.mlp.act(r["mlp.pre"]), r["mlp.post"], atol=1e-6)
    assert torch.allclose(r["resid_mid"] + r["mlp.out"], r["resid_post"], atol=1e-5)


def test_gradients_equal_autograd_with_respect_to_a_perturbation(scope):
    """dL/d(site) is the derivative of the summed per-sample mean losses with respect to something added there."""
    sites = ["layers.0.attn.z", "layers.0.attn.pattern", "layers.1.resid_post", "layers.1.attn.q", "layers.0.mlp.post"]
    record = scope.record(IDS, sites, gradients=True, chunk=2)
    generator = torch.Generator().manual_seed(2)
    for site in sites:
        direction = torch.randn(record[site].shape, generator=generator, dtype=torch.float64)
        scope64 = ts.Scope(random_gpt2().double())
        up = scope64.losses(IDS, edits={site: lambda t, d=direction: t + STEP * d}, chunk=5).sum()
        down = scope64.losses(IDS, edits={site: lambda t, d=direction: t - STEP * d}, chunk=5).sum()
        numeric = (up - down) / (2 * STEP)
        assert torch.allclose((record.gradients[site].double() * direction).sum(), numeric, rtol=2e-4, atol=1e-5), site


def test_gradients_of_a_frozen_model(scope):
    expected = scope.record(IDS, "layers.1.attn.z", gradients=True).gradients["layers.1.attn.z"]
    for p in scope.model.parameters():
        p.requires_grad_(False)
    found = scope.record(IDS, "layers.1.attn.z", gradients=True).gradients["layers.1.attn.z"]
    assert torch.allclose(found, expected, atol=1e-7) and expected.abs().max() > 1e-4
    assert not any(p.requires_grad for p in scope.model.parameters())


def test_a_head_edit_equals_a_hand_written_hook(scope):
    def silence(z):
        z[:, :, 1] = 0
        return z

    edited = scope.record(IDS, "logits", edits={"layers.0.attn.z": silence})["logits"]

    def hook(module, args):
        x = args[0].clone()
        x[..., 8:16] = 0
        return (x,)

    handle = scope.model.transformer.h[0].attn.c_proj.register_forward_pre_hook(hook)
    with torch.no_grad():
        by_hand = scope.model(IDS).logits
    handle.remove()
    assert torch.allclose(edited, by_hand, atol=1e-5)
    assert (edited - scope.record(IDS, "logits")["logits"]).abs().max() > 0.1


def test_an_edited_pattern_is_what_moves_the_values(scope):
    uniform = torch.ones(12, 12).tril() / torch.arange(1, 13)[:, None]
    record = scope.record(
        IDS, ["layers.0.attn.z", "layers.0.attn.v"], edits={"layers.0.attn.pattern": lambda a: uniform.expand_as(a)}
    )
    assert torch.allclose(record["layers.0.attn.z"], torch.einsum("qk,bkhd->bqhd", uniform, record["layers.0.attn.v"]), atol=1e-5)


def test_edits_are_followed_by_gradients(scope):
    record = scope.record(IDS, "layers.0.attn.z", gradients=True, edits={"layers.1.attn.z": lambda z: z * 0})
    plain = scope.record(IDS, "layers.0.attn.z", gradients=True)
    assert (record.gradients["layers.0.attn.z"] - plain.gradients["layers.0.attn.z"]).abs().max() > 1e-4


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_results_do_not_depend_on_the_cut(scope, chunk):
    whole = scope.record(IDS, ["layers.1.attn.z", "logits"], gradients=True)
    cut = scope.record(IDS, ["layers.1.attn.z", "logits"], gradients=True, chunk=chunk)
    for site in whole:
        assert torch.allclose(whole[site], cut[site], atol=1e-5)
        assert torch.allclose(whole.gradients[site], cut.gradients[site], atol=1e-6)


def test_module_paths_and_globs(scope):
    record = scope.record(IDS, ["layers.0.ln_1", "transformer.h.0.ln_1", "layers.*.mlp.out"])
    assert list(record) == ["layers.0.ln_1", "transformer.h.0.ln_1", "layers.0.mlp.out", "layers.1.mlp.out"]
    assert torch.equal(record["layers.0.ln_1"], record["transformer.h.0.ln_1"])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: s.record(IDS, "layers.0.resid_middle"), LookupError, "there is no site or module 'layers.0.resid_middle'. Sites: embed"),
        (lambda s: s.record(IDS, "layers.7.resid_post"), LookupError, "layers.0 to layers.1 with resid_pre"),
        (lambda s: s.record(IDS, "layers.0.mlp.pre_linear"), LookupError, "gpt2 has no site 'layers.0.mlp.pre_linear': its MLP is not gated"),
        (lambda s: s.record(IDS, "logits", edits={"layers.0.attn.z": lambda z: None}), TypeError, "returned NoneType: return the tensor"),
        (lambda s: s.record(IDS, "logits", edits={"layers.0.attn.z": lambda z: z[:1]}), ValueError, "keep the shape"),
        (lambda s: s.record(IDS, "logits", edits={"layers.0.attn.z": 0}), TypeError, "give a function"),
        (lambda s: s.record(IDS, "logits", chunk=0), ValueError, "chunk is 0"),
        (lambda s: s.record([], "logits"), ValueError, "there are no texts"),
        (lambda s: s.record(torch.zeros(0, 4, dtype=torch.long), "logits"), ValueError, r"shape \(0, 4\)"),
        (lambda s: s.record(["a text"], "logits"), TypeError, "has no tokenizer: pass token ids"),
        (lambda s: s.record(torch.zeros(2, 25, dtype=torch.long), "logits"), ValueError, "the samples are 25 tokens wide, and the model's context is 24: make them with scope.samples"),
        (lambda s: s.record(torch.full((1, 4), 50), "logits"), ValueError, "token id 50 is outside the model's vocabulary of 50"),
        (lambda s: s.record(torch.full((1, 4), -1), "logits"), ValueError, "token id -1 is outside"),
        (lambda s: s.record(3.5, "logits"), TypeError, "samples cannot be made from a float"),
        (lambda s: s.record(IDS, "logits")["embed"], LookupError, "'embed' was not recorded: recorded are logits"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(scope, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(scope)
    assert "\n" not in str(caught.value)


def test_edits_of_one_site_follow_one_another(scope):
    record = scope.record(
        IDS, "layers.0.mlp.out", edits={"layers.0.mlp.out": lambda x: x * 0, "layers.*.mlp.out": lambda x: x + 1}
    )
    assert torch.equal(record["layers.0.mlp.out"], torch.ones_like(record["layers.0.mlp.out"]))


@pytest.mark.parametrize("read", ["layers.0.mlp.out", "transformer.h.0.mlp"])
def test_edits_under_two_names_of_one_place_keep_their_order(scope, read):
    plain = scope.record(IDS, read)[read]
    edits = {"transformer.h.0.mlp": lambda x: x * 2, "layers.0.mlp.out": lambda x: x + 1}
    assert torch.allclose(scope.record(IDS, read, edits=edits)[read], plain * 2 + 1, atol=1e-5)


def test_gradients_need_sites_and_a_graph(scope):
    with pytest.raises(ValueError, match="gradients=True and no sites"):
        scope.record(IDS, [], gradients=True)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"inside torch\.inference_mode"):
        scope.record(IDS, "logits", gradients=True)


def test_what_an_activation_overwrites_was_read_before():
    def made(inplace):
        layers = [torch.nn.Linear(6, 5), torch.nn.ReLU(inplace=inplace), torch.nn.Linear(5, 3)]
        for i, layer in enumerate(layers[::2]):
            layer.weight.data = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(i))
            layer.bias.data.zero_()
        return ts.Scope(torch.nn.Sequential(*layers))

    data = (torch.randn(4, 6, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 0]))
    plain, overwriting = (made(i).record(data, ["layers.0.out", "1", "logits"], gradients=True) for i in (False, True))
    assert plain["layers.0.out"].min() < 0
    for site in plain:
        assert torch.allclose(plain[site], overwriting[site]) and torch.allclose(
            plain.gradients[site], overwriting.gradients[site]
        )


def test_a_part_of_a_model_is_not_recorded_inside_a_trace_of_the_whole(scope):
    part = ts.Scope(scope.model.transformer)
    with pytest.raises(ValueError, match="tapped already"), scope.trace(IDS):
        scope.layers[0].resid_pre.save()
        part.record(IDS, "layers.0.attn.pattern")


def test_memory_is_said_before_it_is_gone(scope):
    with ts.options(memory=2000), pytest.raises(ValueError, match=r"recording 2 sites of 5 samples takes .* GiB"):
        scope.record(IDS, "layers.*.attn.pattern")
