import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from model_zoo import build
from tiny_models import bigram_gpt2, random_gpt2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast
from unequal_sizes import half_width

import tensorscope_nb as ts

compare = ts.recipes.compare_models
LETTERS = "abcd"
START = {"bos_token": "<s>"}
NEVER = 1e-30


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def words(pieces, size=1, normalizer=None, **special):
    """A tokenizer of pieces of ``size`` characters, after the start token 0."""
    vocabulary = {piece: i for i, piece in enumerate(["<s>", *pieces])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(f"[\\s\\S]{{{size}}}"), "isolated")
    made.decoder = decoders.Fuse()
    if normalizer is not None:
        made.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def byte_level(**special):
    """A tokenizer of single bytes: 256 of them after the start token."""
    vocabulary = {piece: i for i, piece in enumerate(["<s>", *sorted(ByteLevel.alphabet())])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def uniform(tokenizer, seed=0):
    """A random model whose logits are all 0."""
    model = random_gpt2(seed, vocab_size=len(tokenizer), tie_word_embeddings=False)
    model.lm_head.weight.data.zero_()
    return ts.Scope(model, tokenizer, name="uniform")


def unigram(p, tokenizer, context=64):
    """A model that gives each piece its probability, whatever stands before, and the start token none."""
    row = np.concatenate([[NEVER], p])
    return ts.Scope(bigram_gpt2(np.tile(row, (len(row), 1)), context), tokenizer, name="unigram")


def random_model(tokenizer, seed=0, **changes):
    return ts.Scope(random_gpt2(seed, vocab_size=len(tokenizer), **changes), tokenizer, name=f"random {seed}")


def letters(n, seed=0, low=3, high=20):
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list(LETTERS), length)) for length in draw.integers(low, high, n)]


PAIRS = [a + b for a in LETTERS for b in LETTERS]


def test_a_uniform_model_has_log2_of_its_vocabulary_for_each_token():
    texts = ["naïve café", "ab", "日本語 – x"]
    n_bytes, n_characters = sum(len(t.encode()) for t in texts), sum(map(len, texts))
    by_character = words(sorted(set("".join(texts))), **START)
    found = compare({"bytes": uniform(byte_level(**START)), "characters": uniform(by_character)}, texts)
    assert n_bytes > n_characters + 8
    assert found["n_bytes"].values.tolist() == [n_bytes] * 2 and found["n_tokens"].values.tolist() == [n_bytes, n_characters]
    expected = [math.log2(257), math.log2(len(by_character)) * n_characters / n_bytes]
    assert np.allclose(found["bits_per_byte"], expected, rtol=1e-6)
    assert np.allclose(found["perplexity"], [257, len(by_character)], rtol=1e-5)
    assert found["coverage"].values.tolist() == [1, 1]
    assert math.isclose(found["difference"].sel(model_a="bytes", model_b="characters"), expected[0] - expected[1], rel_tol=1e-5)


def test_the_same_distribution_in_other_tokens_has_the_same_bits_per_byte_and_another_perplexity():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    texts = [text for text in letters(30, high=30) if len(text) % 2 == 0]
    single = unigram(p, words(LETTERS, **START))
    pairs = unigram(np.outer(p, p).ravel(), words(PAIRS, 2, **START))
    found = compare({"single": single, "pairs": pairs}, texts, per_sample=True)
    by_hand = -np.log2([math.prod(p[LETTERS.index(c)] for c in text) for text in texts]) / [len(text) for text in texts]
    assert np.allclose(found["bits_per_byte_by_sample"], by_hand[:, None], rtol=1e-5)
    assert found["n_tokens"].values.tolist() == [sum(map(len, texts)), sum(map(len, texts)) / 2]
    assert np.allclose(found["difference"], 0, atol=1e-5) and np.allclose(found["difference_ci_high"], 0, atol=1e-5)
    assert math.isclose(found["perplexity"][1], float(found["perplexity"][0]) ** 2, rel_tol=1e-4)


def test_a_model_does_not_differ_from_itself():
    scope = random_model(words(LETTERS, **START))
    found = compare({"one": scope, "again": scope}, letters(6))
    for name in ("difference", "difference_ci_low", "difference_ci_high"):
        assert (found[name].values == 0).all()
    assert np.array_equal(found["sensitivity"][0], found["sensitivity"][1])


def test_differences_are_paired_by_text():
    tokenizer = words(LETTERS, **START)
    texts = letters(9)
    found = compare({"a": random_model(tokenizer, 0), "b": random_model(tokenizer, 1)}, texts, per_sample=True)
    n_bytes = np.array([len(text) for text in texts])
    bits = found["bits_per_byte_by_sample"].values * n_bytes[:, None]
    apart = bits[:, 0] - bits[:, 1]
    ratio = apart.sum() / n_bytes.sum()
    half = half_width(apart, n_bytes)
    pair = found.sel(model_a="a", model_b="b")
    assert math.isclose(pair["difference"], ratio, rel_tol=1e-9)
    assert math.isclose(pair["difference_ci_low"], ratio - half, rel_tol=1e-9)
    assert math.isclose(pair["difference_ci_high"], ratio + half, rel_tol=1e-9)
    turned = found.sel(model_a="b", model_b="a")
    assert turned["difference"] == -pair["difference"] and math.isclose(turned["difference_ci_low"], -pair["difference_ci_high"])
    assert np.allclose(found["bits_per_byte"], bits.sum(0) / n_bytes.sum())
    assert (found["ci_low"] < found["bits_per_byte"]).all() and (found["bits_per_byte"] < found["ci_high"]).all()


def test_the_losses_are_those_of_the_transformers_library():
    tokenizer, text = words(LETTERS, **START), letters(1, low=18)[0]
    scope = random_model(tokenizer)
    ids = torch.tensor([[0, *tokenizer(text)["input_ids"]]])
    with torch.no_grad():
        expected = float(scope.model(ids, labels=ids).loss) / math.log(2)  # one byte a token
    assert math.isclose(compare({"it": scope}, text)["bits_per_byte"][0], expected, rel_tol=1e-5)


@pytest.mark.parametrize("stride", [5, 24])
def test_long_texts_take_windows_and_count_as_texts(stride):
    tokenizer = words(LETTERS, **START)
    scope = random_model(tokenizer)
    texts = letters(5, low=30, high=70)
    with pytest.raises(
        ValueError,
        match=r"'samples-\d' is \d+ tokens of the model 'it', whose context is 24: .*stride=12\), or give a shorter text",
    ):
        compare({"it": scope}, texts)
    found = compare({"it": scope}, texts, stride=stride, per_sample=True)
    expected = [scope.perplexity(text, stride=stride, start_token=True) for text in texts]
    assert int(found["n_tokens"][0]) == sum(p.n_tokens for p in expected) == sum(map(len, texts)) == int(found["n_bytes"][0])
    assert np.allclose(found["bits_per_byte_by_sample"][:, 0], [p.nll / math.log(2) for p in expected], rtol=1e-6)
    assert np.isfinite(found["sensitivity_ci_low"]).all()


def test_the_sensitivity_of_a_long_text_is_summed_over_its_windows():
    scope = random_model(words(LETTERS, **START))
    texts, stride = letters(3, low=40, high=60), 10
    masses = np.zeros((3, 2))
    for i, text in enumerate(texts):
        ids, before = torch.tensor([0, *scope.tokenizer(text)["input_ids"]]), 0
        for begin in range(0, len(ids), stride):
            row = ids[begin : begin + 24]
            labels = row.clone()
            labels[: before - begin if begin else 0] = -100
            before = begin + len(row)
            scope.model.zero_grad()
            terms = int((labels[1:] != -100).sum())
            (scope.model(row[None], labels=labels[None]).loss * terms).backward()
            for layer in (0, 1):
                each = scope.model.transformer.h[layer].parameters()
                masses[i, layer] += sum(float((p.grad * p.detach()).abs().sum()) for p in each)
            if before == len(ids):
                break
    found = compare({"it": scope}, texts, stride=stride)["sensitivity"]
    assert np.allclose(found[0], 2 * masses.sum(0) / masses.sum(), rtol=1e-4)


def masses_by_hand(scope, texts):
    """{parameter: Σₖ |gᵢₖ wₖ| (texts,)} of the summed losses, one backward for each text."""
    start = scope.tokenizer.bos_token_id
    found = {name: [] for name, _ in scope.model.named_parameters()}
    for text in texts:
        ids = torch.tensor([[start, *scope.tokenizer(text)["input_ids"]]])
        scope.model.zero_grad()
        (scope.model(ids, labels=ids).loss * (ids.shape[1] - 1)).backward()
        for name, parameter in scope.model.named_parameters():
            found[name].append(float((parameter.grad * parameter.detach()).abs().sum()))
    scope.model.zero_grad(set_to_none=True)
    return {name: np.array(values) for name, values in found.items()}


def test_sensitivity_is_what_the_weights_of_each_layer_do_spread_over_depth():
    tokenizer, texts = words(LETTERS, **START), letters(6)
    scopes = {"two": random_model(tokenizer, 0), "three": random_model(tokenizer, 1, n_layer=3)}
    even, finer = compare(scopes, texts), compare(scopes, texts, n_depths=3)
    assert even["depth"].values.tolist() == [0.25, 0.75] and np.allclose(finer["depth"], [1 / 6, 1 / 2, 5 / 6])
    assert np.allclose(even["sensitivity"].mean("depth"), 1) and np.allclose(finer["sensitivity"].mean("depth"), 1)
    layers = {}
    for name, scope in scopes.items():
        masses = masses_by_hand(scope, texts)
        each = [sum(v for p, v in masses.items() if f".h.{i}." in p) for i in range(scope.anatomy.n_layers)]
        layers[name] = np.array([values.sum() for values in each]) / np.sum(each)
        blocks = even["sensitivity_by_block"].sel(model=name)
        assert math.isclose(blocks.sum(), 1, rel_tol=1e-9)
        total = sum(v.sum() for v in masses.values())
        of_values = sum(v.sum() for p, v in masses.items() if ".attn.c_attn." in p)
        assert math.isclose(blocks.sel(block="QKV"), of_values / total, rel_tol=1e-4)
        embedded = sum(v.sum() for p, v in masses.items() if ".wte." in p or ".wpe." in p)
        assert math.isclose(blocks.sel(block="embed"), embedded / total, rel_tol=1e-4)
    (a, b), (c, d, e) = layers["two"], layers["three"]
    assert np.allclose(even["sensitivity"], [[2 * a, 2 * b], [2 * (c + d / 2), 2 * (d / 2 + e)]], rtol=1e-4)
    assert np.allclose(finer["sensitivity"], [[2 * a, a + b, 2 * b], [3 * c, 3 * d, 3 * e]], rtol=1e-4)
    sure = np.isclose(finer["sensitivity_ci_low"], finer["sensitivity"], rtol=1e-9)
    assert sure.tolist() == [[False, True, False], [False] * 3]  # of two layers the middle third has the mean, in every text
    assert not np.isclose(a, b, rtol=0.05) and not np.isclose(c, e, rtol=0.05)


def test_models_of_other_blocks_stand_beside_each_other():
    tokenizer = words([f"w{i:02d}" for i in range(49)], 3, **START)
    texts = ["w01w07w12", "w40w02", "w03w04w05w06"]
    scopes = {name: ts.Scope(build(name), tokenizer) for name in ("gpt2", "llama")}
    found = compare(scopes, texts)["sensitivity_by_block"]
    assert found.sel(model="gpt2", block="Q").isnull() and found.sel(model="llama", block="QKV").isnull()
    assert found.sel(model="llama", block="mlp_gate") > 0 and np.allclose(found.sum("block"), 1)


def test_cutting_into_batches_and_the_order_of_texts_do_not_matter():
    tokenizer, texts = words(LETTERS, **START), letters(7)
    scopes = {"a": random_model(tokenizer, 0), "b": random_model(tokenizer, 1, n_layer=3)}
    found = compare(scopes, texts)
    for other in (compare(scopes, texts, chunk=1), compare(scopes, texts, chunk=3), compare(scopes, texts[::-1])):
        for name, variable in found.data_vars.items():
            assert np.allclose(variable, other[name], rtol=1e-5, atol=1e-6, equal_nan=True), name


def test_without_a_start_token_all_predict_from_the_same_byte_on():
    texts = [text for text in letters(20, low=5) if len(text) % 2 == 0]
    p = np.array([0.5, 0.25, 0.15, 0.1])
    single, pairs = unigram(p, words(LETTERS)), unigram(np.outer(p, p).ravel(), words(PAIRS, 2, **START))
    found = compare({"single": single, "pairs": pairs}, texts, per_sample=True)
    n = sum(map(len, texts))
    assert found["n_bytes"].values.tolist() == [n - 2 * len(texts)] * 2  # after the first pair, where both have a token begin
    assert np.allclose(found["coverage"], 1 - 2 * len(texts) / n)
    by_hand = [-np.log2([p[LETTERS.index(c)] for c in text[2:]]).sum() / (len(text) - 2) for text in texts]
    assert np.allclose(found["bits_per_byte_by_sample"], np.array(by_hand)[:, None], rtol=1e-5)
    alone = compare({"single": single}, texts)
    assert int(alone["n_bytes"][0]) == int(alone["n_tokens"][0]) == n - len(texts)
    said = json.loads(found.attrs["tensorscope"])
    assert said["start_tokens"] == {"single": None, "pairs": "<s>"}


def test_the_rest_of_a_first_character_is_left_out_with_its_first_byte():
    texts = ["日本", "éa"]  # of 3 + 3 and 2 + 1 bytes
    found = compare({"bytes": uniform(byte_level())}, texts)
    assert int(found["n_bytes"][0]) == int(found["n_tokens"][0]) == 4
    assert math.isclose(found["bits_per_byte"][0], math.log2(257), rel_tol=1e-6) and math.isclose(found["coverage"][0], 4 / 9)


def test_a_text_that_holds_the_sign_of_a_broken_character_is_not_cut_inside_it():
    found = compare({"bytes": uniform(byte_level())}, ["\ufffdabc"])
    assert int(found["n_bytes"][0]) == int(found["n_tokens"][0]) == 2


def test_a_tokenizer_that_sets_a_space_first_and_spells_unknown_characters_in_bytes():
    """As Llama's: the space before the first word is no part of the text, and a character may take several tokens."""
    pieces = ["\u2581", *"abcdxy", *[f"<0x{byte:02X}>" for byte in range(256)], "ab", "\u2581ab"]
    vocabulary = {piece: i for i, piece in enumerate(["<s>", *pieces])}
    made = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("\u2581", "ab")], byte_fallback=True, fuse_unk=True, unk_token="<s>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    with_start, without = (PreTrainedTokenizerFast(tokenizer_object=made, **special) for special in (START, {}))
    texts = ["ab ab", "é abcd", "日x"]
    n_bytes = [len(text.encode()) for text in texts]
    n_tokens = [len(without(text)["input_ids"]) for text in texts]
    both = compare({"it": random_model(with_start)}, [*texts, " xy"])
    assert int(both["n_bytes"][0]) == sum(n_bytes) + 3 and int(both["n_tokens"][0]) == sum(n_tokens) + 3
    found = compare({"it": random_model(without)}, texts)
    # where the space is a token of its own it stands before the text, and all of the text is predicted
    assert int(found["n_bytes"][0]) == sum(n_bytes) - len("ab") and int(found["n_tokens"][0]) == sum(n_tokens) - len(texts)


def test_special_tokens_that_a_tokenizer_adds_are_no_text():
    """The packaged tokenizer sets a start token of its own; a text that holds that token predicts it like any other."""
    scope, texts = ts.load("tiny"), ["To be, or not", "a <|endoftext|> b", "<|endoftext|>c"]
    found = compare({"it": scope}, texts)
    tokens = [scope.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert int(found["n_tokens"][0]) == sum(map(len, tokens)) and int(found["n_bytes"][0]) == sum(map(len, texts))
    plain = ["To be, or not", "Naïve – good morrow"]
    expected = scope.perplexity(plain)
    bits = expected.nll * expected.n_tokens / math.log(2)
    n_bytes = sum(len(text.encode()) for text in plain)
    assert math.isclose(compare({"it": scope}, plain)["bits_per_byte"][0], bits / n_bytes, rel_tol=1e-6)


def test_training_helps_and_replicates_are_alike():
    models_ = {"early": ts.load("tiny", checkpoint=200), "final": ts.load("tiny"), "again": ts.load("tiny", seed=1)}
    texts = ts.datasets.shakespeare(models_["final"], n=24) + ts.datasets.code(models_["final"], n=8)
    found = compare(models_, texts, per_sample=True)
    assert found["bits_per_byte_by_sample"].dims == ("sample", "model") and tuple(found["sample"].values) == texts.ids
    assert found["task"].values.tolist() == list(texts.tasks) and found["text"].values.tolist() == list(texts.texts)
    assert (found["difference_ci_low"].sel(model_a="early", model_b=["final", "again"]) > 0.3).all()
    assert abs(found["difference"].sel(model_a="final", model_b="again")) < 0.1
    assert (found["bits_per_byte"] < 4).all() and (found["bits_per_byte"] > 1.5).all()


def test_it_says_which_weights_and_data_it_is_of():
    tokenizer, texts = words(LETTERS, **START), letters(4)
    scopes = {"a": random_model(tokenizer, 0), "b": random_model(tokenizer, 1)}
    scopes["b"].model.to(torch.float64)
    found = compare(scopes, texts)
    said = json.loads(found.attrs["tensorscope"])
    weights = [json.loads(ts.recipes.magnitude_importance(s).summary().attrs["tensorscope"])["weights"] for s in scopes.values()]
    assert [said["members"][name]["weights"] for name in "ab"] == weights and weights[0] != weights[1]
    assert [said["members"][name]["dtype"] for name in "ab"] == ["torch.float32", "torch.float64"]
    assert said["notes"] == ["the models do not compute in one precision: a torch.float32, b torch.float64"]
    assert said["data"] == json.loads(compare(scopes, texts).attrs["tensorscope"])["data"]
    assert said["data"] != json.loads(compare(scopes, texts[:3]).attrs["tensorscope"])["data"]
    assert found["n_layers"].values.tolist() == [2, 2]
    assert found["n_parameters"].values.tolist() == [sum(p.numel() for p in s.model.parameters()) for s in scopes.values()]


def test_texts_come_in_any_form():
    tokenizer, texts = words(LETTERS, **START), letters(4)
    scopes = {"a": random_model(tokenizer)}
    expected = compare(scopes, texts)
    frame = pd.DataFrame({"text": texts})
    for given in (tuple(texts), frame, frame["text"], np.array(texts, dtype=object), scopes["a"].samples(texts)):
        assert compare(scopes, given)["bits_per_byte"].equals(expected["bits_per_byte"])


def test_what_has_no_sensitivity_says_why():
    """A table of bigrams is made of embeddings only, and a model without a family has no layers that are known."""
    table = unigram(np.full(4, 0.25), CHARACTERS)
    strange = ts.Scope(build("falcon"), words([f"w{i}" for i in range(4)], 2, **START))
    found = compare({"table": table, "random": random_model(CHARACTERS)}, letters(4))
    assert np.isnan(found["sensitivity"].sel(model="table")).all() and np.isfinite(found["sensitivity"].sel(model="random")).all()
    assert found["sensitivity_by_block"].sel(model="table", block=["embed", "unembed"]).sum() > 0.9
    told = "table has no sensitivity over depth: the loss feels none of the weights in its layers"
    assert json.loads(found.attrs["tensorscope"])["notes"] == [told]
    alone = compare({"strange": strange}, ["w0w1w3", "w2w2"])
    assert np.isnan(alone["sensitivity"]).all() and np.isfinite(alone["bits_per_byte"]).all()
    assert json.loads(alone.attrs["tensorscope"])["notes"] == ["strange has no sensitivity over depth: its layers are not known"]


def test_one_text_has_no_interval():
    found = compare({"a": random_model(words(LETTERS, **START))}, "abcd")
    assert np.isfinite(found["bits_per_byte"]).all() and np.isnan(found["ci_low"]).all()
    assert np.isnan(found["sensitivity_ci_low"]).all()


def test_a_study_of_models_runs_it():
    tokenizer, texts = words(LETTERS, **START), letters(5)
    scopes = {"a": random_model(tokenizer, 0), "b": random_model(tokenizer, 1)}
    study = ts.Study(scopes, texts)
    plan = study.plan(compare, ts.recipes.gradient_health)
    assert sorted(plan["recipes"]) == ["compare_models", "gradient_health"] and (plan["seconds"] >= 0).all()
    assert plan.set_index("recipes").loc["compare_models", "passes"] > 1
    study.run(compare.using(n_depths=2), ts.recipes.gradient_health)
    assert study["compare_models"].equals(compare(scopes, texts, n_depths=2))
    assert study["gradient_health"].sizes["model"] == 2
    long = ts.Study(scopes, letters(3, low=30, high=40))
    assert float(long.plan(compare.using(stride=6))["passes"][0]) > 4 < len(long.run(compare.using(stride=6))["compare_models"])
    with pytest.raises(ValueError, match="compare_models compares models: make the study of"):
        ts.Study(scopes["a"], texts).run(compare)
    with pytest.raises(ValueError, match=r"the study has none: ts.Study\(models, texts\)"):
        ts.Study(scopes).run(compare)


CHARACTERS = words(LETTERS, **START)


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        (lambda s: compare(s, ["ab"]), TypeError, "compare_models takes models by name and a Scope came"),
        (lambda s: compare([s], ["ab"]), TypeError, "by name and a list came"),
        (lambda s: compare({}, ["ab"]), ValueError, "has no models to compare"),
        (lambda s: compare({"a": s.model}, ["ab"]), TypeError, "'a' names a GPT2LMHeadModel"),
        (lambda s: compare({1: s}, ["ab"]), TypeError, "takes models by name, and 1 names"),
        (lambda s: compare({"a": s}, []), ValueError, "there are no texts"),
        (lambda s: compare({"a": s}, ["ab", ""]), ValueError, "text 1 is empty: leave it out"),
        (lambda s: compare({"a": s}, ["ab", 3]), TypeError, r"text 1 is a int \('3'\)"),
        (lambda s: compare({"a": s}, ["ab", "b\ud83da"]), ValueError, r"text 1 has half a character at 1 \('.ud83d'\), which has no bytes"),
        (lambda s: compare({"a": s}, torch.zeros(2, 3)), TypeError, "texts are a Tensor"),
        (lambda s: compare({"a": s}, pd.DataFrame({"words": ["ab"]})), LookupError, "no column 'text': it has words"),
        (lambda s: compare({"a": s}, ts.Samples.tokens(torch.ones(1, 3).long())), ValueError, "sample 'samples-0' has no text"),
        (lambda s: compare({"a": s}, ts.Samples.tokens(torch.ones(1, 3).long(), labels=torch.ones(1, 3).long(), texts=["abc"])), ValueError, "the samples have labels"),
        (lambda s: compare({"a": s, "b": ts.Scope(random_gpt2())}, ["ab"]), ts.UnsupportedModel, "the model 'b' has no tokenizer"),
        (lambda s: compare({"a": s, "b": ts.Scope(build("bert"), CHARACTERS)}, ["ab"]), ts.UnsupportedModel, r"the model 'b' has no next token to predict \(bert\)"),
        (lambda s: compare({"b": ts.Scope(build("mlp"), CHARACTERS)}, ["ab"]), ts.UnsupportedModel, "the model 'b' has no next token"),
        (lambda s: compare({"b": ts.Scope(s.model, CHARACTERS, lambda o, t: o.mean((1, 2)))}, ["ab"]), ts.UnsupportedModel, "'b' has a loss= of its own"),
        (lambda s: compare({"a": s}, ["ab", "abxcd"]), ValueError, "the tokenizer of 'a' does not keep the text of 'samples-1': from character 2 on 'xcd' becomes '<s>cd'"),
        (lambda s: compare({"a": s}, ["ab"], stride=25), ValueError, "the model 'a': stride is 25: move windows on by 1 to 24"),
        (lambda s: compare({"a": s}, ["ab"], n_depths=0), ValueError, "n_depths is 0: divide depth into at least 1 bin"),
        (lambda s: compare({"a": s}, ["ab"], n_depths=1.5), ValueError, "n_depths is 1.5"),
        (lambda s: compare({"a": s}, ["ab"], chunk=0), ValueError, "chunk is 0"),
        (lambda s: compare({"a": s}, ["ab"], strid=4), TypeError, "has no option strid"),
        (lambda s: compare({"a": random_model(words(LETTERS))}, ["ab", "a"]), ValueError, "of 'samples-1' there is nothing to predict: 'a' has no start token"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(use, error, says):
    with pytest.raises(error, match=says):
        use(random_model(CHARACTERS))


def test_a_tokenizer_that_loses_case_is_refused():
    lower = words(LETTERS, normalizer=normalizers.Lowercase(), **START)
    with pytest.raises(ValueError, match=r"'lower' does not keep the text of 'samples-0': from character 1 on 'B' becomes 'b'"):
        compare({"lower": random_model(lower)}, ["aB"])


def test_a_frozen_or_broken_model_is_named():
    scopes = {"good": random_model(CHARACTERS, 0), "bad": random_model(CHARACTERS, 1)}
    scopes["bad"].model.transformer.wte.weight.data[2] = torch.nan
    with pytest.raises(ValueError, match="the model 'bad': the loss of sample"):
        compare(scopes, ["abab", "ab"])
    scopes["bad"] = random_model(CHARACTERS, 1)
    scopes["bad"].model.requires_grad_(False)
    with pytest.raises(ValueError, match="the model 'bad': all parameters are frozen"):
        compare(scopes, ["abab", "ab"])


def test_the_models_are_left_as_they_are():
    scope = random_model(CHARACTERS)
    before = {name: value.clone() for name, value in scope.model.state_dict().items()}
    scope.model.train()
    compare({"a": scope}, letters(3))
    assert scope.model.training and all(p.grad is None for p in scope.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in scope.model.state_dict().items())


def test_intervals_cover_what_they_are_of():
    """Texts of random length from one distribution: what is true of it is what all texts together say, nearly."""
    rounds, size = 150, 10
    scopes = {"a": random_model(CHARACTERS, 0, n_embd=12), "b": random_model(CHARACTERS, 1, n_embd=12)}
    texts = letters(rounds * size, seed=3)
    whole = compare(scopes, texts)
    found = [compare(scopes, texts[i * size : (i + 1) * size]) for i in range(rounds)]

    def covered(name, low, high, where):
        truth = float(whole[name].isel(where))
        return np.mean([bool(f[low].isel(where) <= truth <= f[high].isel(where)) for f in found])

    # four standard errors of a share of .95 in 150 rounds are .07
    assert covered("bits_per_byte", "ci_low", "ci_high", {"model": 0}) > 0.88
    for name, where in (
        ("difference", {"model_a": 0, "model_b": 1}),
        ("sensitivity", {"model": 0, "depth": 0}),
        ("sensitivity_by_block", {"model": 1, "block": 0}),
    ):
        assert 0.88 < covered(name, f"{name}_ci_low", f"{name}_ci_high", where) < 1, name
    narrow = found[0]["difference_ci_high"] - found[0]["difference_ci_low"]
    assert float(narrow[0, 1]) < 5 * float(np.std([float(f["difference"][0, 1]) for f in found])) * 1.96
