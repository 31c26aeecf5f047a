import numpy as np
import pytest
import torch
from model_zoo import CAUSAL, build
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(1, 50, (5, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[3:, 8:] = 0
SAMPLES = ts.Samples.tokens(IDS, MASK)
KEEP = MASK.bool().numpy()
lens = ts.recipes.logit_lens


def own_log_probabilities(scope, samples):
    return scope.record(samples, "logits")["logits"].double().log_softmax(-1)


@pytest.mark.parametrize("name", list(CAUSAL))
def test_the_last_layer_says_what_the_model_says(name):
    scope = ts.Scope(build(name))
    own = own_log_probabilities(scope, SAMPLES)
    last = lens(scope, SAMPLES).isel(layer=-1)
    assert np.array_equal(last["top_token"].values[KEEP], own.argmax(-1)[KEEP])
    assert np.allclose(last["probability"].values[KEEP], own.amax(-1).exp()[KEEP], atol=1e-6)
    assert np.allclose(last["entropy"].values[KEEP], -(own.exp() * own).sum(-1)[KEEP], atol=1e-5)
    assert (last["kl"].values[KEEP] == 0).all()
    assert np.allclose(last["loss"], scope.losses(SAMPLES).mean(), atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama tied", "gemma2", "gpt_neox"])
def test_an_earlier_layer_says_what_the_model_would_without_the_later_ones(name):
    """The dense reference runs the model with what the last layer gives replaced by what layer 0 gave."""
    scope = ts.Scope(build(name))
    stream = scope.record(SAMPLES, "layers.0.resid_post")["layers.0.resid_post"]
    said = scope.record(SAMPLES, "logits", edits={"layers.1.resid_post": lambda x: stream})["logits"].double().log_softmax(-1)
    final = own_log_probabilities(scope, SAMPLES)
    found = lens(scope, SAMPLES).sel(layer=0)
    assert np.array_equal(found["top_token"].values[KEEP], said.argmax(-1)[KEEP])
    assert np.allclose(found["entropy"].values[KEEP], -(said.exp() * said).sum(-1)[KEEP], atol=1e-5)
    assert np.allclose(found["kl"].values[KEEP], (final.exp() * (final - said)).sum(-1)[KEEP], atol=1e-5)
    following = IDS.roll(-1, 1)
    asked = (MASK * MASK.roll(-1, 1)).bool().numpy()
    asked[:, -1] = False
    own = said.gather(-1, following[..., None])
    assert np.allclose(found["target_probability"].values[asked], own.exp()[..., 0][asked], atol=1e-6)
    order = said.argsort(-1, descending=True)
    place = 1 + (order == following[..., None]).int().argmax(-1)
    assert np.array_equal(found["target_rank"].values[asked], place[asked])
    assert np.isnan(found["target_rank"].values[~asked]).all()
    per_sample = [-own[i, :, 0][asked[i]].mean() for i in range(5)]
    assert np.allclose(found["loss"], np.mean(per_sample), atol=1e-5)
    half = 2.7764451 * np.std(per_sample, ddof=1) / np.sqrt(5)
    assert np.allclose(found["ci_high"] - found["loss"], half, atol=1e-5)


def test_a_stream_that_says_nothing_has_the_entropy_of_the_vocabulary():
    model = random_gpt2()
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(50, 24))
    found = lens(ts.Scope(model), SAMPLES)
    assert np.allclose(found["entropy"].values[KEEP], np.log(50), atol=1e-5)
    assert np.allclose(found["probability"].values[KEEP], 1 / 50, atol=1e-6)
    assert (lens(ts.Scope(random_gpt2()), SAMPLES)["entropy"].values[KEEP] <= np.log(50)).all()


def test_a_certain_layer_has_no_entropy_and_no_nan():
    model = random_gpt2()
    model.lm_head.weight = torch.nn.Parameter(1e7 * model.lm_head.weight.detach())
    found = lens(ts.Scope(model), SAMPLES)
    assert (found["entropy"].values[KEEP] < 1e-3).all() and np.isfinite(found["kl"].values[KEEP]).all()


def test_more_than_one_top_token_comes_in_order():
    scope = ts.load("tiny")
    samples = ts.datasets.repeats(scope, n=2, period=8)
    found = lens(scope, samples, k=4)
    assert (np.diff(found["probabilities"], axis=-1) <= 0).all()
    assert np.array_equal(found["top_tokens"].sel(rank=1), found["top_token"])
    assert np.array_equal(found["probabilities"].sel(rank=1), found["probability"])
    ids = found["top_tokens"].values[0, -1, -1]
    from tensorscope_nb.samples.tokenize import token_strings

    assert found["top_tokens_text"].values[0, -1, -1].tolist() == token_strings(scope.tokenizer, ids.tolist())
    assert "rank" not in lens(scope, samples).dims


def test_the_repeat_is_known_only_after_the_layer_of_the_induction_heads():
    scope = ts.load("tiny")
    samples = ts.datasets.repeats(scope, n=8)
    found = lens(scope, samples)
    assert found["ci_low"].sel(layer=0) > 7 and found["ci_high"].sel(layer=1) < 0.5
    rank = found["target_rank"].sel(layer=1)
    assert float((rank == 1).sum() / rank.notnull().sum()) > 0.9


def test_the_cut_the_order_and_the_side_of_the_padding_change_nothing():
    scope = ts.Scope(build("llama"))
    whole = lens(scope, SAMPLES)
    order = [4, 2, 0, 1, 3]
    left = ts.Samples.tokens(torch.stack([row.roll(int((m == 0).sum())) for row, m in zip(IDS, MASK, strict=True)]), MASK.flip(1))
    for name in ("probability", "entropy", "kl", "target_probability"):
        assert np.allclose(whole[name], lens(scope, SAMPLES, chunk=2)[name], atol=1e-5, equal_nan=True)
        assert np.allclose(whole[name][order], lens(scope, SAMPLES[order])[name], atol=1e-5, equal_nan=True)
        assert np.allclose(whole[name][3, :7], lens(scope, left)[name][3, 4:11], atol=1e-5)
    assert np.array_equal(whole["top_token"], lens(scope, SAMPLES, chunk=1)["top_token"])


def test_padding_is_shown_as_nothing():
    found = lens(ts.Scope(random_gpt2()), SAMPLES)
    assert (found["top_token"].values[~KEEP] == -1).all() and (found["top_token_text"].values[~KEEP] == "").all()
    assert np.isnan(found["entropy"].values[~KEEP]).all() and np.isnan(found["kl"].values[~KEEP]).all()


def test_samples_without_labels_are_read_all_the_same():
    scope = ts.Scope(random_gpt2())
    found = lens(scope, ts.Samples.tokens(IDS, labels=torch.full_like(IDS, -100)))
    assert np.isnan(found["loss"]).all() and np.isnan(found["target_rank"]).all() and np.isfinite(found["entropy"]).all()


def test_a_head_that_does_more_than_unembed_is_refused():
    model = random_gpt2()
    own = model.forward

    def forward(*args, **kwargs):
        output = own(*args, **kwargs)
        output.logits = output.logits.clamp(max=1)
        return output

    scope = ts.Scope(model)
    model.forward = forward
    with pytest.raises(ts.UnsupportedModel, match="does something after that which is not known here"):
        lens(scope, SAMPLES)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bert", "no causal language model"),
        ("bert headless", "no causal language model"),
        ("vit", "no causal"),
        ("gptj", "no heads"),
    ],
)
def test_models_without_a_language_models_head_are_refused(name, says):
    with pytest.raises(ts.UnsupportedModel, match=says):
        lens(ts.Scope(build(name)), SAMPLES)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layers": [2]}, LookupError, "layers names 2: there are 0 to 1"),
        ({"layers": []}, ValueError, "name at least one"),
        ({"layers": [1, 1]}, ValueError, "each once"),
        ({"layers": 1}, TypeError, "layers is 1: give a list"),
        ({"k": 0}, ValueError, "k is 0: ask for 1 to 50"),
        ({"k": 51}, ValueError, "k is 51"),
        ({"k": True}, ValueError, "k is True"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(options, error, says):
    with pytest.raises(error, match=says):
        lens(ts.Scope(random_gpt2()), SAMPLES, **options)


def test_a_study_keeps_it_and_its_view_is_over_layers_and_positions(tmp_path):
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.repeats(scope, n=2, period=8))
    study.run(lens)
    assert repr(ts.view(study["logit_lens"])) == "Matrix(probability)"
    study.save(tmp_path / "study")
    again = ts.Study.open(tmp_path / "study")["logit_lens"]
    assert again["top_token_text"].values.tolist() == study["logit_lens"]["top_token_text"].values.tolist()
    assert np.array_equal(again["entropy"], study["logit_lens"]["entropy"])
