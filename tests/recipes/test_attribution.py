import json

import numpy as np
import pytest
import torch
from model_zoo import CAUSAL, IGNORE_THE_INTERFACE, OTHERS, build
from tiny_models import attention_only, random_gpt2
from torch import nn

import tensorscope_nb as ts

IDS = torch.randint(1, 50, (5, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[3:, 8:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
attribution = ts.recipes.logit_attribution


def total(found):
    """The sum of everything that is attributed."""
    parts = found["attribution"].sum(("layer", "head")) + found["mlp_attribution"].sum("layer")
    return parts + found["embed_attribution"] + found["bias_attribution"]


def logits_before_the_cap(scope, samples):
    """What the unembedding itself gives, by a hook written by hand."""
    kept = []
    hook = scope.model.get_output_embeddings().register_forward_hook(lambda module, args, output: kept.append(output.detach()))
    scope.losses(samples, chunk=len(samples))
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("name", list(CAUSAL))
def test_everything_that_is_written_adds_up_to_the_logit(name):
    scope = ts.Scope(build(name))
    logits = logits_before_the_cap(scope, SAMPLES)
    following = IDS.roll(-1, 1)
    own = logits.gather(-1, following[..., None])[..., 0]
    asked = (MASK * MASK.roll(-1, 1)).bool()
    asked[:, -1] = False
    other = torch.tensor([7, 8, 9, 10, 11])
    for against, expected in (
        (None, own),
        ("mean", own - logits.mean(-1)),
        (other, own - logits.gather(-1, other[:, None, None].expand(5, 12, 1))[..., 0]),
    ):
        found = attribution(scope, SAMPLES, against=against)
        assert np.allclose(found["logit"].values[asked], expected[asked], atol=2e-5)
        assert np.allclose(total(found).values[asked], expected[asked], atol=2e-5)
        assert np.isnan(found["logit"].values[~asked]).all() and np.isnan(found["attribution"].values[~asked]).all()
    said = found["logit"].attrs.get("before", "")
    assert ("caps it softly at 3" in said) == (name == "gemma2")


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma2", "olmo2", "gpt_neox"])
def test_taking_a_head_out_at_the_frozen_scale_changes_the_logit_by_its_attribution(name):
    """A dense reference that knows nothing of linear norms: zero the head's weights, freeze each norm's divisor, run the end."""
    scope = ts.Scope(build(name))
    anatomy, model = scope.anatomy, scope.model
    sandwich = anatomy.table.residual == "sandwich"
    sites = ["layers.0.attn.z", "layers.0.attn.out", "layers.1.resid_post"]
    record = scope.record(SAMPLES, sites)
    found = attribution(scope, SAMPLES, target=4, against=None)
    o = model.get_submodule(anatomy.module(0, "O"))

    def frozen(norm, x, whole):
        """norm(x) with the divisor that ``whole`` has."""
        gain = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        if isinstance(norm, nn.LayerNorm):
            return gain * (x - x.mean(-1, keepdim=True)) / (whole.var(-1, correction=0, keepdim=True) + eps).sqrt() + norm.bias
        return gain * x / ((whole**2).mean(-1, keepdim=True) + eps).sqrt()

    def logit(stream):
        end = frozen(model.get_submodule(anatomy.final_norm), stream, record["layers.1.resid_post"])
        return model.get_output_embeddings()(end)[..., 4]

    for head in range(anatomy.n_heads):
        z = record["layers.0.attn.z"].clone()
        z[:, :, [h for h in range(anatomy.n_heads) if h != head]] = 0
        with torch.no_grad():
            written = o(z.flatten(2)) - o(torch.zeros_like(z.flatten(2)))
            if sandwich:
                behind = model.get_submodule(f"{anatomy.names[0]}.{anatomy.table.after_attention}")
                written = frozen(behind, written, record["layers.0.attn.out"])
            stream = record["layers.1.resid_post"]
            change = logit(stream) - logit(stream - written)
        keep = MASK.bool()
        assert np.allclose(found["attribution"].sel(layer=0, head=head).values[keep], change[keep], atol=2e-5)
        assert change.abs().max() > 0.05


def test_the_constructed_induction_head_writes_the_whole_answer():
    scope = ts.Scope(attention_only())
    samples = ts.datasets.repeats(scope, n=3, period=8, token_range=(1, 20), bos=0)
    found = attribution(scope, samples, against=None)
    mean = found["attribution_mean"]
    others = mean.values.copy()
    others[1, 0] = 0
    assert np.abs(others).max() < 0.01 * float(mean.sel(layer=1, head=0)) and np.abs(found["mlp_attribution"]).max() == 0
    stream = scope.record(samples, "layers.1.resid_post")["layers.1.resid_post"]
    scale = stream.std(-1, correction=0)[:, 9:-1]
    d = stream.shape[-1]
    closed = 40 / ((3 / d) * (1 - 3 / d)) ** 0.5 * (1 - 1 / d) / scale  # what it writes, less the mean, at the norm's scale
    written = found["attribution"].sel(layer=1, head=0).values[:, 9:-1]
    assert np.allclose(written, closed, rtol=1e-3)


def test_the_induction_heads_of_the_packaged_model_write_the_repeated_token():
    scope = ts.load("tiny")
    found = attribution(scope, ts.datasets.repeats(scope, n=8))
    heads = ts.recipes.induction_heads(scope)
    mean = found["attribution_mean"].values
    matching = heads["prefix_matching"].values.ravel() > 0.5
    largest = np.argsort(-mean.ravel())[: matching.sum()]
    assert set(largest) == set(np.flatnonzero(matching)) and matching.sum() == 3
    assert mean.ravel()[matching].sum() > 0.9 * float(found["logit_mean"])
    assert (found["ci_low"].values.ravel()[matching] > 2).all()


def test_the_mean_logit_taken_off_is_what_no_softmax_sees():
    model = random_gpt2()
    before = attribution(ts.Scope(model), SAMPLES)
    with torch.no_grad():  # every logit rises alike
        model.lm_head.weight.data.add_(torch.randn(24, generator=torch.Generator().manual_seed(0)))
    raised = random_gpt2()
    raised.lm_head = nn.Linear(24, 50, bias=True)
    raised.lm_head.weight.data = random_gpt2().lm_head.weight.data + torch.linspace(-1, 1, 24)
    raised.lm_head.bias.data.fill_(3.0)
    after = attribution(ts.Scope(raised), SAMPLES)
    for name in ("attribution", "mlp_attribution", "embed_attribution", "bias_attribution", "logit"):
        assert np.allclose(before[name], after[name], atol=2e-5, equal_nan=True)
    raw = attribution(ts.Scope(raised), SAMPLES, against=None)
    assert np.nanmax(np.abs(raw["attribution"] - before["attribution"])) > 0.1


def test_a_difference_of_two_logits_is_the_difference_of_their_attributions():
    scope = ts.Scope(random_gpt2())
    one, other = (attribution(scope, SAMPLES, target=t, against=None) for t in (4, 9))
    both = attribution(scope, SAMPLES, target=4, against=9)
    assert np.allclose(both["attribution"], one["attribution"] - other["attribution"], atol=1e-5, equal_nan=True)
    assert np.allclose(both["logit"], one["logit"] - other["logit"], atol=1e-5, equal_nan=True)


def test_targets_by_sample_and_by_position_are_those_asked_for():
    scope = ts.Scope(random_gpt2())
    by_sample = attribution(scope, SAMPLES, target=[1, 2, 3, 4, 5], chunk=2)
    for i in range(5):
        alone = attribution(scope, SAMPLES[i], target=i + 1)
        assert np.allclose(by_sample["attribution"][i], alone["attribution"][0], atol=1e-5, equal_nan=True)
    places = torch.full((5, 12), -100)
    places[0, 3] = 7
    found = attribution(scope, SAMPLES, target=places)
    assert int(np.isfinite(found["logit"]).sum()) == 1 and found["target"].values[0, 3] == 7
    assert np.isfinite(found["attribution_mean"]).all() and np.isnan(found["ci_low"]).all()  # one sample has no interval
    assert found["attribution_mean"].attrs["interval"].endswith("over 1 samples")
    found = attribution(scope, SAMPLES, target=8, against=places)  # a difference only where both are asked for
    assert int(np.isfinite(found["logit"]).sum()) == 1 and int((found["target"] != -100).sum()) == 1


def test_the_means_are_of_positions_first_and_then_of_samples():
    found = attribution(ts.Scope(random_gpt2()), SAMPLES)
    rows = np.nanmean(found["attribution"].values.astype(float), 1)
    assert np.allclose(found["attribution_mean"], rows.mean(0), atol=1e-6)
    half = 2.7764451 * rows.std(0, ddof=1) / np.sqrt(5)
    assert np.allclose(found["ci_high"] - found["attribution_mean"], half, atol=1e-6)
    assert np.allclose(found["logit_mean"], np.nanmean(found["logit"].values.astype(float), 1).mean(), atol=1e-6)


def test_the_cut_the_order_and_the_side_of_the_padding_change_nothing():
    scope = ts.Scope(build("llama"))
    whole = attribution(scope, SAMPLES)
    cut = attribution(scope, SAMPLES, chunk=2)
    assert np.allclose(whole["attribution"], cut["attribution"], atol=1e-5, equal_nan=True)
    order = [4, 2, 0, 1, 3]
    turned = attribution(scope, SAMPLES[order])
    assert np.allclose(whole["attribution"][order], turned["attribution"], atol=1e-5, equal_nan=True)
    left = ts.Samples.tokens(torch.stack([row.roll(int((m == 0).sum())) for row, m in zip(IDS, MASK, strict=True)]), MASK.flip(1))
    moved = attribution(scope, left)
    assert np.allclose(whole["attribution"][3, :7], moved["attribution"][3, 4:11], atol=1e-5)
    assert np.allclose(whole["attribution_mean"], moved["attribution_mean"], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_add_up_to_their_own_rounding(dtype):
    scope = ts.Scope(build("llama").to(dtype))
    found = attribution(scope, SAMPLES)
    gap = np.nanmax(np.abs(total(found) - found["logit"]))
    assert gap < 1e-5  # what is made is made in single precision at least
    own = scope.record(SAMPLES, "logits")["logits"].double()
    own = (own.gather(-1, IDS.roll(-1, 1)[..., None])[..., 0] - own.mean(-1)).numpy()
    gap = np.nanmax(np.abs(found["logit"].values - own))
    assert gap < (1e-5 if dtype == torch.float64 else 0.2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bert", "post-norm"),
        ("bert headless", "post-norm"),
        ("falcon", "no heads: FalconForCausalLM"),
        ("bloom", "no heads: BloomForCausalLM"),
        ("vit", "no next token: ViTForImageClassification reads no tokens"),
    ],
)
def test_models_that_do_not_add_up_in_the_open_are_refused(name, says):
    assert name in OTHERS | IGNORE_THE_INTERFACE
    with pytest.raises(ts.UnsupportedModel, match=says):
        attribution(ts.Scope(build(name)), SAMPLES)


def test_a_model_that_adds_something_unknown_is_refused():
    class Louder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.weight, self.bias = inner, inner.weight, None

        def forward(self, x):
            return self.inner(x) + 0.01 * x[..., :50] ** 2 if x.shape[-1] >= 50 else 1.02 * self.inner(x)

    model = random_gpt2()
    model.lm_head = Louder(model.lm_head)
    with pytest.raises(ts.UnsupportedModel, match="do not add up to the logit"):
        attribution(ts.Scope(model), SAMPLES)
    scaled = random_gpt2()
    body = scaled.transformer.h[1]
    own = body.forward
    scope = ts.Scope(scaled)
    body.forward = lambda *args, **kwargs: 1.01 * own(*args, **kwargs)
    with pytest.raises(ts.UnsupportedModel, match="do not add up to it"):
        attribution(scope, SAMPLES)


def test_parameters_that_are_no_numbers_are_named():
    scope = ts.Scope(random_gpt2())
    scope.model.transformer.ln_f.bias.data[3] = torch.nan
    with pytest.raises(ValueError, match=r"the parameters of transformer.ln_f hold NaN or infinity"):
        attribution(scope, SAMPLES)


def test_a_body_without_its_head_is_refused():
    with pytest.raises(ts.UnsupportedModel, match="no causal language model with its head"):
        attribution(ts.Scope(random_gpt2().transformer), SAMPLES)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"target": "nxt"}, ValueError, "target is 'nxt': choose 'next', or give token ids"),
        ({"against": "median"}, ValueError, "against is 'median': choose 'mean', None, or token ids"),
        ({"target": 50}, ValueError, "target holds the token id 50: the model's vocabulary has 50"),
        ({"target": [1, 2]}, ValueError, r"target has shape \(2,\)"),
        ({"target": 1.5}, TypeError, "target is 1.5"),
        ({"target": None}, TypeError, "target is None: give a token id, one per sample"),
        ({"against": ["a", "b", "c", "d", "e"]}, TypeError, "against is .*: give a token id, one per sample"),
        ({"target": [[1], [2, 3]]}, TypeError, "target is .*: give a token id"),
        ({"against": torch.zeros(5)}, ValueError, "dtype torch.float32"),
        ({"target": torch.full((5, 12), -100)}, ValueError, "no token is asked for"),
        ({"layer": 1}, TypeError, "has no option layer"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(options, error, says):
    with pytest.raises(error, match=says):
        attribution(ts.Scope(random_gpt2()), SAMPLES, **options)


def test_samples_without_labels_or_without_tokens_are_refused():
    scope = ts.Scope(random_gpt2())
    with pytest.raises(ValueError, match="no token is asked for"):
        attribution(scope, ts.Samples.tokens(IDS, labels=torch.full_like(IDS, -100)))
    with pytest.raises(TypeError, match="have no tokens"):
        attribution(scope, ts.Samples.tensors(torch.rand(3, 4)))


def test_a_result_above_the_memory_option_is_refused_with_its_size():
    scope = ts.Scope(random_gpt2())
    with (
        ts.options(memory=1000),
        pytest.raises(
            ValueError, match=r"60 positions take .* GiB, more than.*ask for fewer samples, or raise ts.options\(memory"
        ),
    ):
        attribution(scope, SAMPLES)


def test_the_view_of_it_is_a_grid_of_heads_and_a_study_keeps_it(tmp_path):
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.repeats(scope, n=2, period=8))
    study.run(attribution)
    assert repr(ts.view(study["logit_attribution"])) == "HeadGrid(attribution_mean)"
    study.save(tmp_path / "study")
    again = ts.Study.open(tmp_path / "study")["logit_attribution"]
    assert np.array_equal(again["attribution"], study["logit_attribution"]["attribution"], equal_nan=True)
    assert json.loads(again.attrs["tensorscope"])["n_used"] == 2
