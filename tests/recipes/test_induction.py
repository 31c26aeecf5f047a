import json

import numpy as np
import pytest
import torch
from tiny_models import attention_only, random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.recipes.induction import after_copies, attention_on, earlier_copies, fixed_distance

PERIOD, N_TOKENS = 10, 20
REPEATS = {"period": PERIOD, "token_range": (1, N_TOKENS), "bos": 0}


def ideal_heads(samples):
    """Attention of four ideal heads, (n, 4, T, T): induction, previous token, duplicate token, uniform."""
    n, length = samples.input_ids.shape
    first = torch.zeros(n, length, length)
    first[:, :, 0] = 1  # where there is nothing to look at, a head rests on the first token

    def normalised(target):
        target = target.float()
        return torch.where(target.any(-1, keepdim=True), target / target.sum(-1, keepdim=True).clamp(min=1), first)

    uniform = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
    kinds = [after_copies(samples), fixed_distance(samples, 1), earlier_copies(samples)]
    return torch.stack([*map(normalised, kinds), uniform.expand(n, -1, -1)], 1)


def test_the_four_ideal_heads_in_closed_form():
    """Each ideal head scores 1 on its own measure; the others 0; the uniform one what counting gives."""
    samples = ts.datasets.repeats(ts.Scope(random_gpt2()), n=5, **REPEATS)
    pattern = ideal_heads(samples)
    second = samples.labels != -100
    every = torch.arange(1 + 2 * PERIOD).expand_as(second) >= 1
    t = np.arange(PERIOD + 1, 2 * PERIOD + 1)
    one_of = (1 / (t + 1)).mean()  # each query of the second copy has exactly one target among its t + 1 keys
    expected = {
        "prefix": (after_copies(samples), second, [1, 0, 0, one_of]),
        "previous": (fixed_distance(samples, 1), every, [None, 1, None, (1 / (np.arange(1, 2 * PERIOD + 1) + 1)).mean()]),
        "duplicate": (earlier_copies(samples), second, [0, 0, 1, one_of]),
    }
    for name, (target, queries, values) in expected.items():
        scores = attention_on(pattern, target, queries)
        for head, value in enumerate(values):
            if value is not None:
                assert torch.allclose(scores[:, head], torch.tensor(value, dtype=torch.float32), atol=1e-6), (name, head)


def test_targets_by_hand():
    samples = ts.Samples.tokens(torch.tensor([[7, 5, 6, 5, 5, 9]]), torch.tensor([[1, 1, 1, 1, 1, 0]]))
    after, copies = after_copies(samples)[0], earlier_copies(samples)[0]
    assert after.nonzero().tolist() == [
        [3, 2],
        [4, 2],
        [4, 4],
    ]  # after the 5 at 1 comes position 2; after the one at 3, position 4
    assert copies.nonzero().tolist() == [[3, 1], [4, 1], [4, 3]]


def test_several_copies_are_summed():
    samples = ts.Samples.tokens(torch.tensor([[1, 2, 1, 3, 1]]))
    pattern = torch.zeros(1, 1, 5, 5)
    pattern[0, 0, 4] = torch.tensor([0.1, 0.2, 0.0, 0.6, 0.1])
    only_last = torch.tensor([[False, False, False, False, True]])
    assert torch.allclose(attention_on(pattern, after_copies(samples), only_last), torch.tensor([[0.8]]))


def test_a_constructed_induction_circuit():
    heads = ts.recipes.induction_heads(ts.Scope(attention_only()), **REPEATS)
    assert np.allclose(heads["previous_token"].sel(layer=0, head=0), 1, atol=1e-5)
    assert np.allclose(heads["prefix_matching"].sel(layer=1, head=0), 1, atol=1e-5)
    assert np.allclose(heads["duplicate_token"].sel(layer=1, head=0), 0, atol=1e-5)
    # the head writes the one-hot of the right token: z = (1 − 1/V) / √((1/V)(1 − 1/V)) = √(V − 1)
    assert np.allclose(heads["copying"].sel(layer=1, head=0), np.sqrt(N_TOKENS - 1), atol=1e-3)
    assert heads["is_induction"].values.tolist() == [[False, False], [True, False]]
    # heads with zero weights attend uniformly, and write nothing: their copying is undefined
    t = np.arange(PERIOD + 1, 2 * PERIOD + 1)
    for layer in (0, 1):
        assert np.allclose(heads["prefix_matching"].sel(layer=layer, head=1), (1 / (t + 1)).mean(), atol=1e-5)
        assert np.isnan(heads["copying"].sel(layer=layer, head=1))
    assert np.allclose(heads["null"], (1 / (t + 1)).mean(), atol=1e-6)
    assert (heads["fixed_distance"].sel(head=0) < 1e-4).all()


def test_a_head_that_counts_is_unmasked_by_the_control():
    """A head that looks a fixed distance back matches nothing, and scores as well where the copy is shuffled."""
    model = attention_only()
    weight = model.transformer.h[0].attn.c_attn.weight.data
    shift = torch.zeros(24, 24)
    for p in range(24):
        shift[p, max(p - (PERIOD - 1), 0)] = 30.0
    weight[20:44, :24] = shift
    heads = ts.recipes.induction_heads(ts.Scope(model), **REPEATS).sel(layer=0, head=0)
    assert heads["prefix_matching"] > 0.99 and heads["fixed_distance"] > 0.99


def test_relabelling_tokens_changes_nothing():
    model = random_gpt2(n_positions=32)
    scope = ts.Scope(model)
    samples = ts.Samples.tokens(torch.randint(1, 8, (4, 20), generator=torch.Generator().manual_seed(0)))
    before = ts.recipes.induction_heads(scope, samples, period=8, token_range=(1, 50), bos=0)["prefix_matching_text"]
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    model.transformer.wte.weight.data[order] = model.transformer.wte.weight.data.clone()
    renamed = ts.Samples.tokens(order[samples.input_ids])
    after = ts.recipes.induction_heads(scope, renamed, period=8, token_range=(1, 50), bos=0)["prefix_matching_text"]
    assert np.allclose(before, after, atol=1e-5)


def test_text_scores_do_not_see_padding_or_the_cut():
    scope = ts.Scope(random_gpt2())
    ids = torch.randint(1, 6, (3, 12), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([ids, torch.ones(3, 4, dtype=torch.long)], 1)
    mask = torch.cat([torch.ones(3, 12), torch.zeros(3, 4)], 1).long()
    options = {"period": 6, "token_range": (1, 50), "bos": 0}
    plain = ts.recipes.induction_heads(scope, ids, **options)
    right = ts.recipes.induction_heads(scope, ts.Samples.tokens(padded, mask), chunk=1, **options)
    assert np.allclose(plain["prefix_matching_text"], right["prefix_matching_text"], atol=1e-5)
    assert plain["n_repeats"].values.tolist() == right["n_repeats"].values.tolist()
    assert np.allclose(plain["prefix_matching"], right["prefix_matching"], atol=1e-5)


def test_a_text_without_repeats_has_no_score():
    found = ts.recipes.induction_heads(ts.Scope(random_gpt2()), torch.arange(1, 9)[None], period=6, token_range=(1, 50), bos=0)
    assert found["n_repeats"].item() == 0 and np.isnan(found["prefix_matching_text"]).all()


def test_intervals_are_over_sequences_and_shrink_with_them():
    scope = ts.Scope(random_gpt2())
    few = ts.recipes.induction_heads(scope, n_sequences=4, **REPEATS)
    many = ts.recipes.induction_heads(scope, n_sequences=64, **REPEATS)
    assert ((few["ci_low"] <= few["prefix_matching"]) & (few["prefix_matching"] <= few["ci_high"])).all()
    assert ((many["ci_high"] - many["ci_low"]) < 0.6 * (few["ci_high"] - few["ci_low"])).all()


def test_an_untrained_model_has_no_induction_head():
    heads = ts.recipes.induction_heads(ts.load("tiny", checkpoint=0))
    assert not heads["is_induction"].any() and heads["prefix_matching"].max() < 0.05
    assert np.abs(heads["copying"]).max() < 1


def test_the_packaged_model_shows_the_bump():
    study = ts.Study(ts.checkpoints("tiny")).run(ts.recipes.induction_heads)
    history = study["induction_heads"]
    best = history["prefix_matching"].max(["layer", "head"])
    assert best.sel(checkpoint=600) < 0.1 and best.sel(checkpoint=3000) > 0.8
    assert history["previous_token"].sel(checkpoint=3000).max() > 0.85
    assert history["is_induction"].sel(checkpoint=3000, layer=1).any() and not history["is_induction"].sel(layer=0).any()
    assert (history["copying"].sel(checkpoint=3000).where(history["is_induction"].sel(checkpoint=3000)).max() > 2).item()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_replicates_show_it_too(seed):
    heads = ts.recipes.induction_heads(ts.load("tiny", seed=seed))
    assert heads["prefix_matching"].max() > 0.8 and heads["previous_token"].max() > 0.75
    assert heads["is_induction"].sel(layer=1).any() and not heads["is_induction"].sel(layer=0).any()


def test_the_result_says_how_it_was_made():
    scope = ts.Scope(random_gpt2(), name="random")
    found = ts.recipes.induction_heads(scope, seed=5, **REPEATS)
    said = json.loads(found.attrs["tensorscope"])
    assert (
        said["recipe"] == "induction_heads"
        and said["model"] == "random"
        and said["seed"] == 5
        and said["options"]["period"] == PERIOD
    )
    again = ts.recipes.induction_heads(scope, seed=5, **REPEATS)
    assert found.equals(again) and said["weights"] == json.loads(again.attrs["tensorscope"])["weights"]
    assert not found["prefix_matching"].equals(ts.recipes.induction_heads(scope, seed=6, **REPEATS)["prefix_matching"])
    assert all(v.attrs["long_name"] for v in found.data_vars.values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"period": 2}, "uniform attention alone would score 0.22 here"),
        ({"period": 0}, "period is 0: a block needs at least 2 tokens"),
        ({"period": 12}, "period is 12: two copies and a first token must fit the context, ask for at most 11"),
        ({"n_sequences": 1, "period": 4}, "an interval needs at least 2 sequences"),
        ({"token_range": (3, 4), "period": 4}, "must hold at least 2 token ids"),
        ({"token_range": (40, 60), "period": 4}, "outside the model's vocabulary of 50"),
    ],
)
def test_bad_options_are_one_clear_line(options, says):
    with pytest.raises(ValueError, match=says):
        ts.recipes.induction_heads(ts.Scope(random_gpt2()), **(REPEATS | options))


def test_a_model_that_broke_after_it_was_wrapped_gives_no_scores():
    scope = ts.Scope(random_gpt2())
    scope.model.transformer.wte.weight.data[3, 0] = float("inf")
    for call in (
        lambda: ts.recipes.induction_heads(scope, **REPEATS),
        lambda: ts.recipes.attention_patterns(scope, torch.ones(1, 4).long()),
    ):
        with pytest.raises(ValueError, match=r"is not finite: the parameter transformer\.wte\.weight holds NaN or infinity"):
            call()


def test_a_model_that_predicts_no_next_token_is_refused():
    from model_zoo import build

    for name in ("bert headless", "bert"):
        with pytest.raises(ts.UnsupportedModel, match="no next token"):
            ts.recipes.induction_heads(ts.Scope(build(name)), token_range=(1, 50), period=8)


def test_copying_equals_the_full_logits():
    """z over the whole vocabulary, formed in full: W_U · (the final norm's gain ∘ the centred head output)."""
    from tensorscope_nb.scope.readout import DirectLogits, output_weights

    scope = ts.Scope(random_gpt2())
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    z = scope.record(ids, "layers.1.attn.z")["layers.1.attn.z"]
    written = torch.einsum("nthd,hde->nthe", z, output_weights(scope.model, scope.anatomy, 1))[:, :-1, 2]
    logits = (
        (written - written.mean(-1, keepdim=True)) * scope.model.transformer.ln_f.weight
    ) @ scope.model.transformer.wte.weight.T
    expected = (logits.gather(-1, ids[:, 1:, None])[..., 0] - logits.mean(-1)) / logits.std(-1, correction=0)
    assert torch.allclose(DirectLogits(scope.model, scope.anatomy).z(written, ids[:, 1:]), expected, atol=1e-4)
