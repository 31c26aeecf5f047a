"""Every family, from a tiny random model: what its sites are called is what they are."""

from dataclasses import replace

import pytest
import torch
from model_zoo import CAUSAL, IGNORE_THE_INTERFACE, OTHERS, build

import tensorscope_nb as ts
from tensorscope_nb.scope.families import gpt_neox

IDS = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
TRANSFORMERS = [*CAUSAL, *OTHERS]


def data_for(name, n=3):
    if name == "vit":
        return ts.Samples.tensors({"pixel_values": IMAGES[:n]}, torch.arange(n))
    if name == "bert classifier":
        return ts.Samples.tokens(IDS[:n], labels=torch.arange(n))
    if name == "bert":
        labels = torch.full_like(IDS, -100)
        labels[:, [2, 5, 7]] = IDS[:, [2, 5, 7]]
        return ts.Samples.tokens(IDS, labels=labels)[:n]
    return ts.Samples.tokens(IDS[:n])


def own_output(model, samples):
    with torch.no_grad():
        out = model(
            **(
                {"pixel_values": samples.inputs["pixel_values"]}
                if "pixel_values" in samples.inputs
                else {"input_ids": samples.input_ids}
            )
        )
    return out.logits if "logits" in out else out.last_hidden_state


@pytest.fixture(params=TRANSFORMERS)
def named(request):
    return request.param, ts.Scope(build(request.param))


def test_every_standard_site_is_there_or_says_why(named):
    name, scope = named
    missing = {site.partition(".0.")[2] for site in scope.anatomy.missing_sites if site.startswith("layers.0")}
    ungated = "gpt" in name or "bert" in name or name == "vit"
    expected = ({"mlp.pre_linear"} if ungated else set()) | ({"resid_mid"} if name == "gpt_neox" else set())
    assert missing == expected
    assert scope.anatomy.n_layers == 2 and "layers.1.attn.pattern" in scope.anatomy.sites


def test_tapping_changes_nothing_and_leaves_nothing(named):
    name, scope = named
    samples, model = data_for(name), scope.model
    expected = own_output(model, samples)
    before, implementation = list(model.state_dict()), model.config._attn_implementation
    record = scope.record(samples, [*scope.anatomy.sites])
    last = "logits" if "logits" in record else "layers.1.resid_post"
    assert torch.allclose(record[last], expected, atol=2e-5)
    assert list(model.state_dict()) == before and model.config._attn_implementation == implementation


def test_patterns_are_the_models_own(named):
    name, scope = named
    samples = data_for(name)
    record = scope.record(samples, "layers.*.attn.pattern")
    scope.model.set_attn_implementation("eager")
    given = {k: v for k, v in samples.inputs.items() if k != "attention_mask"}
    with torch.no_grad():
        eager = scope.model(**given, output_attentions=True)
    for i in range(2):
        assert torch.allclose(record[f"layers.{i}.attn.pattern"], eager.attentions[i], atol=1e-5)


def test_values_arithmetic_by_hand(named):
    """pattern @ v = z, W_O z + b = attn.out, and the down projection of mlp.post is mlp.out, with the weights themselves."""
    name, scope = named
    record = scope.record(data_for(name), ["layers.1.attn.*", "layers.1.mlp.*"])
    r = {site.removeprefix("layers.1."): value for site, value in record.items()}
    groups = scope.anatomy.n_heads // scope.anatomy.n_kv_heads
    z = torch.einsum("bhqk,bkhd->bqhd", r["attn.pattern"], r["attn.v"].repeat_interleave(groups, 2))
    assert torch.allclose(z, r["attn.z"], atol=1e-5)
    total = sum(r["attn.z"][:, :, h] @ head_output(scope, 1, h) for h in range(scope.anatomy.n_heads))
    bias = getattr(scope.model.get_submodule(scope.anatomy.module(1, "O")), "bias", None)
    assert torch.allclose(total + (0 if bias is None else bias), r["attn.out"], atol=1e-4)
    if "mlp.pre_linear" in r:
        activation = (
            scope.anatomy.layers[1].mlp.act_fn
            if hasattr(scope.anatomy.layers[1].mlp, "act_fn")
            else scope.anatomy.layers[1].mlp.activation_fn
        )
        assert torch.allclose(activation(r["mlp.pre"]) * r["mlp.pre_linear"], r["mlp.post"], atol=1e-5)


def head_output(scope, layer, head):
    piece = scope.anatomy.slice(layer, "O", head)
    weight = piece.of(dict(scope.model.named_parameters())[piece.parameter].detach())
    return weight if scope.anatomy.transposed else weight.T


def test_a_head_edit_is_weight_surgery(named):
    """Silencing a head by an edit equals zeroing its slice of W_O; only that head's effect goes."""
    name, scope = named
    samples = data_for(name)
    last = "logits" if "logits" in scope.anatomy.sites else "layers.1.resid_post"

    def silence(z):
        z[:, :, 2] = 0
        return z

    edited = scope.record(samples, last, edits={"layers.0.attn.z": silence})[last]
    plain = scope.record(samples, last)[last]
    operated = ts.Scope(build(name))
    piece = operated.anatomy.slice(0, "O", 2)
    piece.of(dict(operated.model.named_parameters())[piece.parameter].data).zero_()
    assert torch.allclose(edited, operated.record(samples, last)[last], atol=2e-5)
    assert (edited - plain).abs().max() > 1e-3


@pytest.mark.parametrize("block", ["Q", "K", "V"])
def test_slices_of_q_k_and_v(named, block):
    """Zeroing a head's slice changes that head's (or its group's) q, k or v, and no other's."""
    name, scope = named
    if block in "QK" and name in ("qwen3", "gemma3", "olmo2"):
        pytest.skip("q and k are normalised together")
    samples, site = data_for(name), f"layers.0.attn.{block.lower()}"
    before = scope.record(samples, site)[site]
    piece = scope.anatomy.slice(0, block, 2)
    piece.of(dict(scope.model.named_parameters())[piece.parameter].data).zero_()
    after = scope.record(samples, site)[site]
    at = 2 if block == "Q" else 2 // (scope.anatomy.n_heads // scope.anatomy.n_kv_heads)
    changed = (before - after).abs().amax((0, 1, 3)) > 1e-4
    assert changed.nonzero().flatten().tolist() == [at]


def test_gradients_equal_finite_differences(named):
    name, scope = named
    if name == "bert headless":
        with pytest.raises(ts.UnsupportedModel, match="no loss: the model has no head; pass loss="):
            scope.record(data_for(name), "layers.0.attn.z", gradients=True)
        return
    single = scope.anatomy.family == "llama"  # its norms compute in single precision whatever the model's
    samples, step, rtol, atol = data_for(name), *((3e-4, 2e-2, 2e-3) if single else (1e-6, 1e-4, 1e-7))
    scope = ts.Scope(build(name).double())
    for site in ("layers.0.attn.z", "layers.1.attn.pattern", "layers.0.mlp.post"):
        record = scope.record(samples, site, gradients=True)
        direction = torch.randn(record[site].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        up = scope.losses(samples, edits={site: lambda t, d=direction: t + step * d}, chunk=3).sum()
        down = scope.losses(samples, edits={site: lambda t, d=direction: t - step * d}, chunk=3).sum()
        assert torch.allclose((record.gradients[site] * direction).sum(), (up - down) / (2 * step), rtol=rtol, atol=atol), site


def test_tracing_agrees_with_recording(named):
    name, scope = named
    samples = data_for(name)
    last = "logits" if "logits" in scope.anatomy.sites else "layers.1.resid_post"

    def double(z):
        z[:, :, 1] *= 2
        return z

    record = scope.record(samples, ["layers.0.attn.pattern", "layers.1.mlp.pre", last], edits={"layers.0.attn.z": double})
    with scope.trace(samples):
        pattern = scope.layers[0].attn.pattern.save()
        scope.layers[0].attn.z[:, :, 1] *= 2
        pre = scope.layers[1].mlp.pre.save()
        out = (scope.logits if last == "logits" else scope.layers[1].resid_post).save()
    assert torch.allclose(pattern, record["layers.0.attn.pattern"], atol=1e-5)
    assert torch.allclose(pre, record["layers.1.mlp.pre"], atol=1e-5)
    assert torch.allclose(out, record[last], atol=2e-5)


@pytest.mark.parametrize("name", [*CAUSAL, *IGNORE_THE_INTERFACE])
def test_left_and_right_padding_and_the_batch_change_no_loss(name):
    scope = ts.Scope(build(name))
    pad = torch.zeros(3, 4, dtype=torch.long)
    left = ts.Samples.tokens(torch.cat([pad, IDS], 1), torch.cat([pad, torch.ones_like(IDS)], 1))
    right = ts.Samples.tokens(torch.cat([IDS, pad], 1), torch.cat([torch.ones_like(IDS), pad], 1))
    with torch.no_grad():
        logits = scope.model(input_ids=IDS).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none").mean(1)
    for samples in (ts.Samples.tokens(IDS), left, right):
        assert torch.allclose(scope.losses(samples), expected, atol=3e-5)
    assert torch.allclose(scope.losses(left, chunk=1), expected, atol=3e-5)


@pytest.mark.parametrize("name", IGNORE_THE_INTERFACE)
def test_a_family_that_ignores_the_attention_interface_has_no_heads_and_says_so(name):
    scope = ts.Scope(build(name))
    assert str(scope.anatomy) == "module" and scope.anatomy.n_heads == 0
    with pytest.raises(ts.UnsupportedModel, match=r"no heads: .* follows none of the tables here"):
        ts.recipes.attention_patterns(scope, IDS)
    path = next(n for n, m in scope.model.named_modules() if isinstance(m, torch.nn.Linear))
    assert scope.record(IDS, path)[path].shape[:2] == (3, 12)


def test_the_wrong_split_of_a_fused_projection_fails_loudly(monkeypatch):
    """GPT-2's order of Q, K and V, read off a GPT-NeoX."""
    monkeypatch.setattr(gpt_neox, "PARALLEL", replace(gpt_neox.PARALLEL, interleaved=False))
    with pytest.raises(ts.UnsupportedModel, match=r"the values of head 0\.\d are not where the table of gpt_neox says"):
        ts.Scope(build("gpt_neox"))


def test_a_tap_that_ignored_the_soft_cap_would_be_caught(monkeypatch):
    from tensorscope_nb.scope import tap

    def deaf(module, q, k, v, mask, scaling=None, dropout=0.0, softcap=None, **more):
        return tap.tapped_attention(module, q, k, v, mask, scaling, dropout, None, **more)

    from transformers import AttentionInterface

    monkeypatch.setattr(tap, "_register", lambda: AttentionInterface.register(tap.NAME, deaf))
    scope = ts.Scope(build("gemma2"))
    assert "the model's output changes when its attention is tapped" in scope.anatomy.missing_sites["layers.0.attn.pattern"]
    with pytest.raises(ts.UnsupportedModel, match=r"has no layers\.0\.attn\.q"):
        ts.recipes.attention_patterns(scope, IDS)


def test_an_attention_argument_that_is_not_known_is_refused():
    from tensorscope_nb.scope.tap import tapped_attention

    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ts.UnsupportedModel, match="takes s_aux, which the tap does not know"):
        tapped_attention(torch.nn.Identity(), q, q, q, None, s_aux=torch.zeros(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_half_precision(name, dtype):
    scope = ts.Scope(build(name).to(dtype))
    assert "layers.1.attn.pattern" in scope.anatomy.sites
    full = ts.Scope(build(name)).losses(IDS)
    assert torch.allclose(scope.losses(IDS).float(), full, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mistral"])
def test_the_recipes_run_on_other_families(name):
    scope = ts.Scope(build(name))
    heads = ts.recipes.induction_heads(scope, IDS, period=12, n_sequences=3, token_range=(1, 50), bos=0)
    effect = ts.recipes.ablation(scope, IDS)
    assert heads.sizes["head"] == scope.anatomy.n_heads and bool(effect["loss_increase"].notnull().all())
