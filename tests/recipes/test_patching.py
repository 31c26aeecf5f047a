import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import attention_only, random_gpt2
from unequal_sizes import half_width

import tensorscope_nb as ts

CLEAN = torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(1))
CORRUPT = CLEAN.clone()
CORRUPT[:, 4] = CLEAN[:, 4] % 49 + 1
MASK = torch.ones_like(CLEAN)
MASK[4:, 9:] = 0
patching = ts.recipes.patching
A, B = ts.Samples.tokens(CLEAN, MASK), ts.Samples.tokens(CORRUPT, MASK)


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def by_hand(scope, base, donor, site, place, labels=A):
    """(n,) the loss of the clean labels with one place of ``base`` taken from ``donor``, one record and one forward."""
    given = scope.record(donor, site)[site]

    def edit(x):
        if site.endswith(".z"):
            x[:, :, place] = given[:, :, place]
        else:
            x[:, place] = given[:, place]
        return x

    logits = scope.record(base, "logits", edits={site: edit})["logits"]
    return scope.rule.per_sample(logits, labels).double().numpy()


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out", "z"])
def test_each_place_is_one_forward_with_one_value_put_in(scope, site, direction):
    found = patching(scope, A, B, sites=site, direction=direction, per_sample=True)
    base, donor = (B, A) if direction == "denoise" else (A, B)
    own, other = (scope.rule.per_sample(scope.record(s, "logits")["logits"], A).double().numpy() for s in (base, donor))
    for layer in range(2):
        for place in range(3 if site == "z" else 12):
            full = f"layers.{layer}.{'attn.z' if site == 'z' else site}"
            there = np.ones(6, bool) if site == "z" else MASK[:, place].bool().numpy()
            effect = by_hand(scope, base, donor, full, place) - own
            assert np.allclose(found["effect_by_sample"].values[there, layer, place], effect[there], atol=2e-6)
            assert np.isnan(found["effect_by_sample"].values[~there, layer, place]).all()
            share = effect[there].sum() / (other - own)[there].sum()
            assert np.allclose(found["recovered"].values[layer, place], share, atol=1e-4)
    assert np.abs(found["recovered"]).max() > 0.3
    clean, corrupt = (other, own) if direction == "denoise" else (own, other)
    assert np.allclose(found["clean_by_sample"], clean, atol=1e-6) and np.allclose(found["corrupt"], corrupt.mean(), atol=1e-6)


def test_the_token_that_differs_recovers_all_before_the_first_layer_and_every_other_place_nothing(scope):
    found = patching(scope, A, B, sites="resid_pre", layers=[0])["recovered"].values[0]
    assert np.allclose(found[4], 1, atol=1e-5)
    assert (np.delete(found, 4) == 0).all()  # exactly: there is nothing to put in


def test_a_place_that_cannot_be_reached_recovers_exactly_nothing(scope):
    found = patching(scope, A, B, per_sample=True)
    assert (found["effect_by_sample"].values[:, :, :4] == 0).all()  # before the first token that differs
    # after the last prediction: it is put in, and nothing reads it
    late = patching(scope, A[:4], B[:4], sites="resid_post", positions=[11], layers=[1])
    assert abs(float(late["recovered"][0, 0])) < 1e-5


def test_what_is_alike_in_both_runs_costs_no_third_one(scope):
    rows = []
    hook = scope.model.register_forward_pre_hook(lambda m, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    patching(scope, A, B, sites="resid_pre", layers=[0])
    hook.remove()
    assert sum(rows) == 3 * 6  # a clean run, a corrupt one, and one with the only token that differs


def test_the_interval_is_that_of_a_ratio_of_sums(scope):
    found = patching(scope, A, B, sites="z", per_sample=True)
    effect, whole = found["effect_by_sample"].values[:, 0, 1], (found["clean_by_sample"] - found["corrupt_by_sample"]).values
    ratio = effect.sum() / whole.sum()
    half = half_width(effect, whole)
    assert np.allclose(found["ci_high"][0, 1] - ratio, half) and np.allclose(ratio - found["ci_low"][0, 1], half)


def test_a_pair_that_does_not_differ_leaves_the_ratio_as_it_is(scope):
    alone = patching(scope, A[:3], B[:3], sites="z")["recovered"]
    same = ts.Samples.tokens(torch.cat([CORRUPT[:3], CLEAN[3:4]]), torch.cat([MASK[:3], MASK[3:4]]))
    assert np.allclose(patching(scope, A[:4], same, sites="z")["recovered"], alone, atol=1e-5)


def test_where_nothing_differs_there_is_no_share_and_it_says_why(scope):
    found = patching(scope, A, A, sites="z")
    assert np.isnan(found["recovered"]).all() and (found["effect"] == 0).all()
    said = found["recovered"].attrs
    assert "do not differ" in said["undefined"] and said["nan"] == said["undefined"]  # a view says it beside its empty cells


def test_a_place_that_only_samples_without_a_difference_have_says_so(scope):
    longer = torch.cat([CLEAN[:2], torch.ones(2, 3, dtype=torch.long)], 1)
    clean, corrupt = (A + ts.Samples.tokens(longer, task="alike") for A in (A, B))
    found = patching(scope, clean, corrupt)["recovered"]
    assert found.isel(position=slice(12)).notnull().all() and found.isel(position=slice(12, 15)).isnull().all()
    assert "that have this place do not differ" in found.attrs["nan"] and "undefined" not in found.attrs


def test_shares_of_a_difference_that_is_not_sure_are_cautioned_about(scope):
    effect = scope.rule.per_sample(scope.record(B, "logits")["logits"], A) - scope.losses(A)
    assert effect.min() < 0 < effect.max()  # the corruption helps some samples and harms others
    found = patching(scope, A, B, sites="z")
    holds = bool(found["difference_ci_low"] <= 0 <= found["difference_ci_high"])
    mean, half = -effect.double().mean(), 2.5705818 * effect.double().std() / 6**0.5
    assert holds == bool(abs(mean) <= half) and ("caution" in found["recovered"].attrs) == holds
    before = patching(scope, A, B, sites="z", metric=lambda logits, samples: logits[:, 3, 0])  # of what comes before it differs
    assert "undefined" in before["recovered"].attrs
    tiny = ts.load("tiny")
    clean, corrupt = (ts.datasets.repeats(tiny, n=4, period=8, unrelated=u) for u in (False, True))
    said = patching(tiny, clean, corrupt, sites="z")["recovered"].attrs
    assert "caution" not in said and "undefined" not in said


def test_the_constructed_circuit_is_recovered_by_its_heads_alone():
    scope = ts.Scope(attention_only())
    clean = ts.datasets.repeats(scope, n=4, period=8, token_range=(1, 20), bos=0)
    corrupt = ts.datasets.repeats(scope, n=4, period=8, token_range=(1, 20), bos=0, unrelated=True)
    found = patching(scope, clean, corrupt, sites="z")["recovered"].values
    # all that is written of the answer is head 1.0's; 0.0 alone says where to look, and there stands another token
    assert np.allclose(found[1], [1, 0], atol=1e-3) and abs(found[0, 1]) < 1e-6
    noise = patching(scope, clean, corrupt, sites="z", direction="noise")["recovered"].values
    assert np.allclose(noise[1], [1, 0], atol=1e-3) and noise[0, 0] > 0.5


def test_the_packaged_models_induction_heads_carry_the_repeat():
    scope = ts.load("tiny")
    clean, corrupt = (ts.datasets.repeats(scope, n=8, period=20, unrelated=u) for u in (False, True))
    found = patching(scope, clean, corrupt, sites="z")
    assert (found["ci_low"].sel(layer=1, head=[1, 2, 3]) > 0.1).all() and float(found["recovered"].sel(layer=0).max()) < 0.1
    noise = patching(scope, clean, corrupt, sites="z", direction="noise")
    assert noise["ci_low"].sel(layer=0, head=0) > 0.5  # without the previous-token head none of it works


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_padding_on_either_side_and_on_different_sides_gives_the_same(name):
    scope = ts.Scope(build(name))

    def left(ids):
        rows = [row.roll(int((m == 0).sum())) for row, m in zip(ids, MASK, strict=True)]
        return ts.Samples.tokens(torch.stack(rows), MASK.flip(1))

    whole = patching(scope, A, B, sites="z", per_sample=True)
    mixed = patching(scope, A, left(CORRUPT), sites="z", per_sample=True)
    assert np.allclose(whole["effect_by_sample"], mixed["effect_by_sample"], atol=1e-5)
    other = CORRUPT.clone()
    other[:, 0] = CLEAN[:, 0]
    other[torch.arange(6), MASK.sum(1) - 1] = CLEAN[torch.arange(6), MASK.sum(1) - 1] % 49 + 1
    pairs = [
        ts.Samples.tokens(b.input_ids, b.attention_mask, labels=b.input_ids)
        for b in (ts.Samples.tokens(other, MASK), left(other))
    ]
    answers = [patching(scope, A, b, layers=[0], sites="z", metric="logit_diff") for b in pairs]
    assert np.allclose(answers[0]["clean"], answers[1]["clean"], atol=1e-5)
    by_position = patching(scope, A, B, per_sample=True)["effect_by_sample"].values
    moved = patching(scope, left(CLEAN), B, per_sample=True)["effect_by_sample"].values
    assert np.allclose(by_position[4:, :, :9], moved[4:, :, 3:], atol=1e-5)
    assert patching(scope, left(CLEAN), B)["corrupt_token"].values[5, 3] == str(int(CORRUPT[5, 0]))


def test_the_cut_and_the_order_of_pairs_change_nothing(scope):
    whole = patching(scope, A, B, per_sample=True)
    cut = patching(scope, A, B, per_sample=True, chunk=2)
    order = [5, 3, 1, 0, 2, 4]
    turned = patching(scope, A[order], B[order], per_sample=True)
    assert np.allclose(whole["effect_by_sample"], cut["effect_by_sample"], atol=2e-6, equal_nan=True)
    assert np.allclose(whole["effect_by_sample"][order], turned["effect_by_sample"], atol=2e-6, equal_nan=True)
    assert np.allclose(whole["ci_low"], turned["ci_low"], atol=1e-4)
    some = patching(scope, A, B, layers=[1], positions=[7, 4])
    assert np.allclose(some["recovered"].sel(layer=1, position=7), whole["recovered"].sel(layer=1, position=7), atol=1e-5)


def test_heads_at_some_positions_are_put_in_there_alone(scope):
    found = patching(scope, A, B, sites="z", positions=[6, 7], per_sample=True)
    given = scope.record(A, "layers.1.attn.z")["layers.1.attn.z"]

    def edit(z):
        z[:, 6:8, 2] = given[:, 6:8, 2]
        return z

    logits = scope.record(B, "logits", edits={"layers.1.attn.z": edit})["logits"]
    own = scope.rule.per_sample(scope.record(B, "logits")["logits"], A).double()
    effect = scope.rule.per_sample(logits, A).double() - own
    assert np.allclose(found["effect_by_sample"].sel(layer=1, head=2), effect, atol=2e-6)


def test_a_difference_of_logits_is_read_where_the_answer_is_due(scope):
    given = patching(scope, A, B, sites="z", metric="logit_diff", answers=(7, [1, 2, 3, 4, 5, 6]), per_sample=True)
    logits = scope.record(A, "logits")["logits"].double()
    last = MASK.sum(1) - 1
    each = torch.arange(6)
    expected = logits[each, last, 7] - logits[each, last, torch.arange(1, 7)]
    assert np.allclose(given["clean_by_sample"], expected, atol=1e-5)
    swapped = CORRUPT.clone()
    swapped[each, last] = CLEAN[each, last] % 49 + 1  # the answer itself is not read by what predicts it
    found = patching(scope, A, ts.Samples.tokens(swapped, MASK), sites="z", metric="logit_diff", per_sample=True)
    expected = logits[each, last - 1, CLEAN[each, last]] - logits[each, last - 1, swapped[each, last]]
    assert np.allclose(found["clean_by_sample"], expected, atol=1e-5)


def test_a_function_is_a_metric(scope):
    plain = patching(scope, A, B, sites="z")
    own = patching(scope, A, B, sites="z", metric=scope.rule.per_sample)
    assert np.allclose(plain["recovered"], own["recovered"], atol=1e-6)
    with pytest.raises(ValueError, match=r"metric= returned \(\) for 6 rows"):
        patching(scope, A, B, metric=lambda logits, samples: logits.sum())
    third = torch.arange(6) == 2  # a sample without a number is not left out of the sums unsaid
    with pytest.raises(ValueError, match=f"metric= is not finite for sample '{A.ids[2]}'"):
        patching(scope, A, B, metric=lambda logits, samples: logits[:, 0, 0].masked_fill(third[: len(logits)], torch.nan))


def test_the_model_is_as_it_was_also_after_an_error(scope):
    before = {name: value.clone() for name, value in scope.model.state_dict().items()}
    state = torch.random.get_rng_state()
    patching(scope, A, B, sites="z")
    calls = []

    def failing(logits, samples):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("stop")
        return logits[:, -1, 0]

    with pytest.raises(RuntimeError, match="stop"):
        patching(scope, A, B, sites="z", metric=failing)
    assert all(torch.equal(before[name], value) for name, value in scope.model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in scope.model.modules())


def test_a_study_takes_the_corrupt_samples_as_an_option(tmp_path):
    scope = ts.load("tiny")
    clean, corrupt = (ts.datasets.repeats(scope, n=20, period=4, unrelated=u) for u in (False, True))
    study = ts.Study(scope, clean)
    recipe = patching.using(corrupt=corrupt, sites="z")
    assert study.plan(recipe)["passes"].item() == 10  # two runs, and one for each of eight heads
    study.run(recipe)
    assert np.array_equal(study["patching"]["recovered"], patching(scope, clean, corrupt, sites="z")["recovered"])
    study.save(tmp_path / "study")
    assert "recovered" in ts.Study.open(tmp_path / "study")["patching"]


def test_a_classifier_is_patched_by_its_loss():
    scope = ts.Scope(build("bert classifier"))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    clean, corrupt = (ts.Samples.tokens(ids, MASK, labels=labels) for ids in (CLEAN, CORRUPT))
    found = patching(scope, clean, corrupt, sites="resid_pre", layers=[0])["recovered"]
    assert np.allclose(found.sel(position=4), 1, atol=1e-4)


def test_a_masked_model_is_patched_by_the_labels_it_is_given():
    scope = ts.Scope(build("bert"))
    labels = torch.full_like(CLEAN, -100)
    labels[:, 2] = CLEAN[:, 2]
    found = patching(scope, ts.Samples.tokens(CLEAN, MASK, labels=labels), B, sites="resid_pre", layers=[0])["recovered"]
    assert np.allclose(found.sel(position=4), 1, atol=1e-4)
    with pytest.raises(ValueError, match="give the clean samples labels"):
        patching(scope, A, B)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"sites": "resid"}, ValueError, "sites is 'resid': choose among resid_pre"),
        ({"sites": ["z"]}, ValueError, r"sites is \['z'\]: choose among resid_pre"),
        ({"metric": "logit_diff", "answers": (3, ["a"] * 6)}, TypeError, "answers is .*: give a token id, one per sample"),
        ({"metric": "kl"}, ValueError, "metric is 'kl': choose 'loss', 'logit_diff', or a function"),
        ({"direction": "both"}, ValueError, "direction is 'both'"),
        ({"answers": (1, 2)}, ValueError, "answers= are for metric='logit_diff'"),
        ({"metric": "logit_diff", "answers": 3}, ValueError, "answers is 3: give two"),
        ({"metric": "logit_diff", "answers": (3, 3)}, ValueError, "the same token"),
        ({"metric": "logit_diff", "answers": (3, 99)}, ValueError, "answers holds the token id 99"),
        ({"metric": "logit_diff"}, ValueError, "the same token"),
        ({"layers": [2]}, LookupError, "layers names 2: there are 0 to 1"),
        ({"positions": [12]}, LookupError, "positions names 12: there are 0 to 11"),
        ({"positions": []}, ValueError, "name at least one"),
        ({"layers": 0}, TypeError, "layers is 0: give a list"),
        ({"chunk": 0}, ValueError, "chunk is 0"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(scope, options, error, says):
    with pytest.raises(error, match=says):
        patching(scope, A, B, **options)


def test_pairs_that_are_none_are_refused(scope):
    with pytest.raises(ValueError, match="6 clean and 5 corrupt samples"):
        patching(scope, A, B[:5])
    with pytest.raises(ValueError, match="clean sample 'samples-4' has 9 tokens and its corrupt one 12"):
        patching(scope, A, ts.Samples.tokens(CORRUPT))
    with pytest.raises(ValueError, match="has no token to predict"):
        patching(scope, ts.Samples.tokens(CLEAN, MASK, labels=torch.full_like(CLEAN, -100)), B)
    with pytest.raises(TypeError, match="have no tokens"):
        patching(scope, ts.Samples.tensors(torch.rand(3, 4)), B)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("falcon", {}, "no heads"),
        ("vit", {}, "no tokens: ViTForImageClassification reads none"),
        ("bert headless", {}, "no loss"),
        ("bert classifier", {"metric": "logit_diff"}, "no next token"),
    ],
)
def test_models_that_lack_a_part_are_refused(name, options, says):
    with pytest.raises(ts.UnsupportedModel, match=says):
        patching(ts.Scope(build(name)), A, B, **options)


def test_a_site_that_a_family_lacks_is_an_error_with_the_reason():
    with pytest.raises(LookupError, match="parallel residual"):
        patching(ts.Scope(build("gpt_neox")), A, B, sites="resid_mid")


def test_unrelated_repeats_are_pairs():
    scope = ts.load("tiny")
    clean, corrupt = (ts.datasets.repeats(scope, n=5, period=9, unrelated=u, seed=3) for u in (False, True))
    assert torch.equal(clean.input_ids[:, 10:], corrupt.input_ids[:, 10:]) and torch.equal(clean.labels, corrupt.labels)
    assert torch.equal(clean.input_ids[:, 1:10], clean.input_ids[:, 10:])
    for first, second in zip(corrupt.input_ids[:, 1:10], corrupt.input_ids[:, 10:], strict=True):
        assert not set(first.tolist()) & set(second.tolist()) and len(set(first.tolist())) == 9
    with pytest.raises(ValueError, match="ask for one of the two"):
        ts.datasets.repeats(scope, shuffled=True, unrelated=True)
    with pytest.raises(ValueError, match="widen token_range"):
        ts.datasets.repeats(scope, period=5, token_range=(1, 6), unrelated=True)
