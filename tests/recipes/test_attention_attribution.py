import numpy as np
import pytest
import torch
import xarray as xr
from model_zoo import CAUSAL, build
from tiny_models import attention_only, random_gpt2
from torch import nn

import tensorscope_nb as ts

IDS = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[2, 6:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
attribution = ts.recipes.attention_attribution
BOTH = ("by_key", "by_query")


def induction_cells(result, period):
    """The cells at which a query of the second copy looks at what followed the first."""
    query = np.arange(period + 1, 2 * period + 1)
    return result.sel(query=xr.DataArray(query, dims="cell"), key=xr.DataArray(query - period + 1, dims="cell"))


@pytest.mark.parametrize("name", [*CAUSAL, "vit"])
def test_what_the_sources_add_is_the_score(name):
    scope = ts.Scope(build(name))
    samples = SAMPLES if name != "vit" else ts.Samples.tensors({"pixel_values": torch.rand(3, 3, 8, 8)})
    found = attribution(scope, samples, relative=False)
    own = [scope.record(samples, f"layers.{i}.attn.scores")[f"layers.{i}.attn.scores"].numpy() for i in range(2)]
    own = np.stack(own, 1)
    visible = np.isfinite(found["score"].values)
    cap = 2.0 if name == "gemma2" else None
    score = found["score"].values[visible]
    assert np.allclose(cap * np.tanh(score / cap) if cap else score, own[visible], atol=2e-5)
    hidden = np.broadcast_to(own < -1e30, visible.shape) | ~(seen_of(samples, own) & seen_of(samples, own).swapaxes(-1, -2))
    assert np.array_equal(visible, ~hidden)
    for name in BOTH:
        total = found[name].sum("source", min_count=1)
        assert np.allclose(total, found["score"], atol=2e-5, equal_nan=True)
    relative = attribution(scope, samples)
    row = found["score"] - found["score"].mean("key")
    for name in BOTH:
        assert np.allclose(relative[name].sum("source", min_count=1), row, atol=2e-5, equal_nan=True)
        centred = found[name] - found[name].mean("key")
        assert np.allclose(relative[name], centred, atol=2e-5, equal_nan=True)


def seen_of(samples, like):
    seen = samples.seen(like.shape[-1]).numpy()
    return np.broadcast_to(seen[:, None, None, None, :], like.shape)


@pytest.mark.parametrize(
    ("name", "head"), [("gpt2", 1), ("llama", 3), ("qwen3", 2), ("gemma3", 1), ("gpt_neox", 0), ("olmo2", 2)]
)
def test_taking_a_source_out_of_the_keys_at_frozen_scales_changes_the_scores_by_what_it_adds(name, head):
    """The reference edits the model's forward: its keys are made from a stream without what head 0 of layer 0 wrote, each norm
    on the way dividing by what it divides by in the model's own run."""
    model = build(name)
    scope = ts.Scope(model)
    anatomy = scope.anatomy
    found = attribution(scope, SAMPLES, relative=False, layers=[1])
    block = model.get_submodule(anatomy.names[1])
    attention = model.get_submodule(anatomy.attention_paths[1])
    norms = [module for module in block.modules() if frozen_kind(module)]
    behind = anatomy.table.after_attention and model.get_submodule(f"{anatomy.names[0]}.{anatomy.table.after_attention}")
    record = scope.record(SAMPLES, ["layers.0.attn.z", "layers.0.attn.out", "layers.1.attn.q"])
    z = record["layers.0.attn.z"].clone()
    z[:, :, 1:] = 0
    o = model.get_submodule(anatomy.module(0, "O"))
    with torch.no_grad():
        written = o(z.flatten(2)) - o(torch.zeros_like(z.flatten(2)))
        if behind:
            written = divided(behind, written, record["layers.0.attn.out"])
    inputs = {}

    def keep(module, args, output):
        inputs[module] = args[0].detach()

    hooks = [norm.register_forward_hook(keep) for norm in norms]
    scope.losses(SAMPLES, chunk=3)
    for hook in hooks:
        hook.remove()
    hooks = [norm.register_forward_hook(lambda m, args, out: divided(m, args[0], inputs[m], bias=True)) for norm in norms]
    without = scope.record(SAMPLES, "layers.1.attn.k", edits={"layers.1.resid_pre": lambda x: x - written})["layers.1.attn.k"]
    for hook in hooks:
        hook.remove()
    k = scope.record(SAMPLES, "layers.1.attn.k")["layers.1.attn.k"]
    group = head // (anatomy.n_heads // anatomy.n_kv_heads)
    q = record["layers.1.attn.q"][:, :, head]
    change = getattr(attention, "scaling", 8**-0.5) * torch.einsum("nqd,nkd->nqk", q, (k - without)[:, :, group])
    made = found["by_key"].sel(layer=1, head=head, source="0.0").values
    visible = np.isfinite(made)
    assert np.allclose(made[visible], change.numpy()[visible], atol=5e-5) and change[:, 1:].abs().max() > 0.05


def frozen_kind(module):
    return isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.ndim == 1 and module.weight.numel() > 1


def divided(norm, x, whole, bias=False):
    """norm(x) by the divisor of ``whole``, written out for LayerNorm and the two kinds of RMSNorm."""
    gain = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", 0)
    if isinstance(norm, nn.LayerNorm):
        made = gain * (x - x.mean(-1, keepdim=True)) / (whole.var(-1, correction=0, keepdim=True) + eps).sqrt()
        return made + norm.bias if bias else made
    return gain * x / ((whole**2).mean(-1, keepdim=True) + eps).sqrt()


def test_the_constructed_induction_head_looks_where_it_does_because_of_the_previous_token_head():
    scope = ts.Scope(attention_only())
    found = attribution(scope, ts.datasets.repeats(scope, n=2, period=8, token_range=(1, 20), bos=0))
    cells = induction_cells(found.sel(layer=1, head=0), 8)
    assert np.allclose(cells["pattern"], 1, atol=1e-4)
    by_key = cells["by_key"]
    assert float(by_key.sel(source="0.0").min()) > 20  # what the softmax needs to look nowhere else
    assert np.abs(by_key.drop_sel(source="0.0")).max() < 1e-4
    # the query is the token itself, which the embedding holds; the norm's bias makes it one-hot again and cancels in the row
    by_query = cells["by_query"]
    assert (by_query.sel(source="embed") > 0.9 * by_query.sum("source")).all()
    first = found.sel(layer=0, head=0).isel(query=5, key=4)
    assert first["pattern"].values[0] > 0.999
    assert np.allclose(first["by_key"].sel(source="embed"), first["by_key"].sum("source"), atol=1e-4)


def test_the_packaged_models_induction_heads_compose_with_the_previous_token_head():
    scope = ts.load("tiny")
    scores = ts.recipes.induction_heads(scope)
    previous = int(scores["previous_token"].sel(layer=0).argmax("head"))
    found = attribution(scope, ts.datasets.repeats(scope, n=4), layers=[1])
    cells = induction_cells(found.sel(layer=1), 50).mean(("sample", "cell"))
    for head in np.flatnonzero(scores["prefix_matching"].sel(layer=1) > 0.5):
        by_key = cells["by_key"].sel(head=head)
        share = float(by_key.sel(source=f"0.{previous}") / by_key.sum("source"))
        assert by_key["source"][int(by_key.argmax("source"))] == f"0.{previous}" and 0.6 < share < 0.8
        by_query = cells["by_query"].sel(head=head)
        assert float(by_query.sel(source=["embed", "mlp 0"]).sum() / by_query.sum("source")) > 0.8  # the token looks for itself


def test_the_embedding_and_the_bias_have_what_is_theirs():
    """GPT-2 written out: the embedding goes through norm and key weights, and every constant on the way is the bias's."""
    model = random_gpt2()
    scope = ts.Scope(model)
    found = attribution(scope, SAMPLES[:2], layers=[1], relative=False)
    record = scope.record(SAMPLES[:2], ["embed", "layers.1.resid_pre", "layers.1.attn.q"])
    block = model.transformer.h[1]
    scale = (record["layers.1.resid_pre"].var(-1, correction=0, keepdim=True) + block.ln_1.eps).sqrt()
    weight, constant = block.attn.c_attn.weight[:, 24:48], block.attn.c_attn.bias[24:48]
    outputs = model.transformer.h[0].attn.c_proj.bias

    def key_of(part):
        return (block.ln_1.weight * (part - part.mean(-1, keepdim=True)) / scale) @ weight

    keys = {"embed": key_of(record["embed"]), "bias": key_of(outputs) + block.ln_1.bias @ weight + constant}
    for name, key in keys.items():
        made = torch.einsum("nqhd,nkhd->nhqk", record["layers.1.attn.q"], key.unflatten(-1, (3, 8))) / 8**0.5
        got = found["by_key"].sel(layer=1, source=name).values
        assert np.allclose(got[np.isfinite(got)], made.detach().numpy()[np.isfinite(got)], atol=2e-5)


def test_heads_that_share_a_key_share_what_the_sources_give_to_it():
    scope = ts.Scope(build("llama"))
    found = attribution(scope, SAMPLES, layers=[1], relative=False)
    q = scope.record(SAMPLES, "layers.1.attn.q")["layers.1.attn.q"].numpy()
    k_part = {}
    for head in (2, 3):  # solve q_t · k = by_key over the queries that see key 0
        rows, _, _, _ = np.linalg.lstsq(
            q[0, :, head] / 6**0.5, found["by_key"].sel(layer=1, head=head, key=0).values[0], rcond=None
        )
        k_part[head] = rows
    assert np.allclose(k_part[2], k_part[3], atol=1e-3)


def test_sources_say_who_wrote_and_those_to_come_are_not_known():
    found = attribution(ts.Scope(random_gpt2()), SAMPLES)
    assert found["source"].values.tolist() == ["embed", "0.0", "0.1", "0.2", "mlp 0", "bias"]
    assert found["source_layer"].values.tolist() == [-1, 0, 0, 0, 0, -1]
    assert found["source_head"].values.tolist() == [-1, 0, 1, 2, -1, -1]
    first = found["by_key"].sel(layer=0).isel(query=3, key=2)
    assert (
        np.isnan(first.sel(source=["0.0", "0.1", "0.2", "mlp 0"])).all()
        and np.isfinite(first.sel(source=["embed", "bias"])).all()
    )


def test_some_layers_and_heads_are_those_of_all():
    scope = ts.Scope(build("qwen3"))
    whole = attribution(scope, SAMPLES)
    some = attribution(scope, SAMPLES, layers=[1], heads=[3, 0])
    for name in ("score", "pattern", *BOTH):
        assert np.allclose(some[name], whole[name].sel(layer=[1], head=[3, 0]), atol=1e-5, equal_nan=True)
    first = attribution(scope, SAMPLES, layers=[0])
    assert first["source"].values.tolist() == ["embed", "bias"]


def test_the_pattern_is_the_softmax_of_the_score():
    scope = ts.Scope(build("llama"))
    found = attribution(scope, SAMPLES)
    score = found["score"].values[:2]
    made = np.exp(score - np.nanmax(score, -1, keepdims=True))
    made = np.where(np.isfinite(made), made, 0)
    assert np.allclose(made / made.sum(-1, keepdims=True), found["pattern"][:2], atol=1e-5)
    plain = ts.recipes.attention_patterns(scope, SAMPLES)
    assert np.allclose(plain["pattern"], found["pattern"], atol=1e-6, equal_nan=True)


def test_the_order_and_the_side_of_the_padding_change_nothing():
    scope = ts.Scope(build("llama"))
    whole = attribution(scope, SAMPLES)
    turned = attribution(scope, SAMPLES[[2, 0, 1]])
    left = ts.Samples.tokens(torch.stack([row.roll(int((m == 0).sum())) for row, m in zip(IDS, MASK, strict=True)]), MASK.flip(1))
    moved = attribution(scope, left)
    for name in ("score", *BOTH):
        assert np.allclose(whole[name][[2, 0, 1]], turned[name], atol=1e-5, equal_nan=True)
        assert np.allclose(whole[name][2, :, :, :6, :6], moved[name][2, :, :, 3:, 3:], atol=2e-5, equal_nan=True)
    assert np.isnan(moved["score"][2, :, :, :3]).all() and np.isnan(moved["by_key"][2, :, :, :, :3]).all()


def test_a_body_without_a_head_and_half_precision_are_taken_apart_too():
    body = attribution(ts.Scope(random_gpt2().transformer), SAMPLES)
    assert np.allclose(body["by_key"], attribution(ts.Scope(random_gpt2()), SAMPLES)["by_key"], atol=1e-5, equal_nan=True)
    half = attribution(ts.Scope(build("llama").bfloat16()), SAMPLES)
    full = attribution(ts.Scope(build("llama")), SAMPLES)
    assert np.nanmax(np.abs(half["by_key"] - full["by_key"])) < 0.03 * np.nanmax(np.abs(full["score"]))


def test_the_model_is_as_it_was(tmp_path):
    model = build("qwen3")
    scope = ts.Scope(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attribution(scope, SAMPLES)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert not any(name.endswith(".tap") for name, _ in model.named_modules())


def test_a_scale_of_the_models_own_is_that_of_the_scores():
    """Gemma 2 divides by a number that need not be the root of the width of a head."""
    config = build("gemma2").config
    config.query_pre_attn_scalar, config.attn_logit_softcapping = 50, None
    model = type(build("gemma2"))(config).eval()
    model.load_state_dict(build("gemma2").state_dict())
    assert model.model.layers[0].self_attn.scaling == pytest.approx(50**-0.5)
    found = attribution(ts.Scope(model), SAMPLES, relative=False)
    capped = attribution(ts.Scope(build("gemma2")), SAMPLES, relative=False)
    ratio = (found["by_key"] / capped["by_key"]).sel(layer=0, source="embed").values
    assert np.allclose(ratio[np.isfinite(ratio)], (8 / 50) ** 0.5, atol=1e-3)


def test_samples_and_weights_that_are_no_tokens_and_no_numbers_are_named():
    model = random_gpt2()
    with pytest.raises(TypeError, match=r"these samples are tensors .x., and gpt2 reads tokens"):
        attribution(ts.Scope(model), ts.Samples.tensors(torch.rand(3, 4)))
    scope = ts.Scope(model)
    model.transformer.h[0].mlp.c_fc.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite: the parameter transformer.h.0.mlp.c_fc.bias holds NaN"):
        attribution(scope, SAMPLES)


def test_an_attention_that_does_something_unknown_is_refused():
    model = build("llama")

    class Bent(nn.Linear):
        def forward(self, x):
            return torch.tanh(super().forward(x))

    own = model.model.layers[1].self_attn.k_proj
    bent = Bent(24, own.weight.shape[0], bias=False)
    bent.weight = own.weight
    model.model.layers[1].self_attn.k_proj = bent
    scope = ts.Scope(model)
    with pytest.raises(ts.UnsupportedModel, match="the parts of the keys of layer 1 do not add up to them"):
        attribution(scope, SAMPLES)
    assert np.isfinite(attribution(scope, SAMPLES, layers=[0])["score"].values).any()


@pytest.mark.parametrize(
    ("name", "says"), [("bert", "post-norm"), ("bert headless", "post-norm"), ("gptj", "no heads"), ("bloom", "no heads")]
)
def test_models_that_do_not_add_up_in_the_open_are_refused(name, says):
    with pytest.raises(ts.UnsupportedModel, match=says):
        attribution(ts.Scope(build(name)), SAMPLES)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layers": [2]}, LookupError, "layers names 2: there are 0 to 1"),
        ({"heads": [3]}, LookupError, "heads names 3: there are 0 to 2"),
        ({"layers": []}, ValueError, "name at least one"),
        ({"heads": [1, 1]}, ValueError, "each once"),
        ({"layers": "1"}, TypeError, "layers is '1': give a list"),
        ({"heads": ["1"]}, TypeError, r"heads is \['1'\]: give a list"),
        ({"layers": [1.0]}, TypeError, r"layers is \[1.0\]: give a list"),
        ({"relative": "row"}, ValueError, "relative is 'row': choose True"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(options, error, says):
    with pytest.raises(error, match=says):
        attribution(ts.Scope(random_gpt2()), SAMPLES, **options)


def test_a_result_above_the_memory_option_is_refused_with_its_size():
    scope = ts.load("tiny")
    with (
        ts.options(memory=2**20),
        pytest.raises(ValueError, match=r"8 heads of 8 samples of 101 tokens by 7 sources take 0\.0\d+ GiB.*choose layers="),
    ):
        attribution(scope, ts.datasets.repeats(scope))


def test_a_study_keeps_it_and_its_view_is_the_pattern_and_its_reasons(tmp_path):
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.repeats(scope, n=2, period=6))
    study.run(attribution)
    found = study["attention_attribution"]
    assert repr(ts.view(found)) == "AttentionPattern(pattern) | Ranking(by_key)"
    study.save(tmp_path / "study")
    again = ts.Study.open(tmp_path / "study")["attention_attribution"]
    assert again["source"].values.tolist() == found["source"].values.tolist()
    assert np.array_equal(again["by_key"], found["by_key"], equal_nan=True)
