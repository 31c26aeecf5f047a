"""Perplexity of texts beyond the context, and of their first tokens."""

import math

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import attention_only, bigram_gpt2, random_gpt2
from unequal_sizes import half_width

import tensorscope_nb as ts
from tensorscope_nb.samples.windows import windows
from tensorscope_nb.scope.perplexity import rows_of, token_losses

CONTEXT = 24
LONG = torch.randint(1, 50, (1, 61), generator=torch.Generator().manual_seed(5))


class Starts:
    """A tokenizer of which only the start token is asked."""

    def __init__(self, bos=None, eos=None):
        self.bos_token_id, self.eos_token_id = bos, eos


@pytest.fixture(scope="module")
def scope():
    return ts.Scope(random_gpt2(), Starts(eos=0), name="random")


def rows(*lengths, seed=7):
    """Token samples of unequal length, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, 50, (len(lengths), width), generator=generator)
    return ts.Samples.tokens(ids, (torch.arange(width) < torch.tensor(lengths)[:, None]).long())


def logits(scope, tokens):
    with torch.no_grad():
        return scope.model(torch.as_tensor(tokens)[None], use_cache=False).logits[0].double().log_softmax(-1)


def by_hand(scope, tokens, stride, context=CONTEXT):
    """−log p of each token but the first, by the loop that the transformers library documents; stride < context."""
    found, before = {}, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + context, len(tokens))
        said = logits(scope, tokens[begin:end])
        for t in range(max(before, begin + 1), end):
            found[t] = -float(said[t - 1 - begin, tokens[t]])
        before = end
        if end == len(tokens):
            break
    return found


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary_whatever_the_windows():
    model = random_gpt2()
    model.transformer.wte.weight.data.zero_()
    scope = ts.Scope(model, Starts(bos=0))
    for stride in (1, 7, 23, 24):
        found = scope.perplexity(LONG, stride=stride, start_token=True)
        assert math.isclose(found.value, 50, rel_tol=1e-6) and found.n_tokens == 61


@pytest.mark.parametrize("stride", [1, 3, 15, 16])
def test_a_table_of_bigrams_in_closed_form(stride):
    table = np.random.default_rng(1).dirichlet(np.ones(6), 6)
    scope = ts.Scope(bigram_gpt2(table), Starts(bos=0))
    tokens = np.random.default_rng(2).integers(1, 6, (3, 45))
    pairs = -np.log(table[tokens[:, :-1], tokens[:, 1:]])
    found = scope.perplexity(torch.tensor(tokens), stride=stride)
    assert found.n_tokens == pairs.size and math.isclose(found.value, math.exp(pairs.mean()), rel_tol=1e-5)
    first = -np.log(table[0, tokens[:, 0]])
    found = scope.perplexity(torch.tensor(tokens), stride=stride, start_token=True)
    assert found.n_tokens == tokens.size
    assert math.isclose(found.nll, (pairs.sum() + first.sum()) / tokens.size, rel_tol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 11, 12, 23])
def test_the_windows_are_those_of_the_transformers_library(scope, stride):
    expected = by_hand(scope, LONG[0].tolist(), stride)
    assert sorted(expected) == list(range(1, 61))
    found = scope.perplexity(LONG, stride=stride)
    assert found.n_tokens == 60 and math.isclose(found.nll, sum(expected.values()) / 60, rel_tol=1e-6)


def test_a_stride_of_one_gives_each_token_all_the_context_there_is(scope):
    tokens = LONG[0].tolist()
    expected = [-float(logits(scope, tokens[max(0, t - CONTEXT + 1) : t])[-1, tokens[t]]) for t in range(1, 61)]
    assert math.isclose(scope.perplexity(LONG, stride=1).nll, np.mean(expected), rel_tol=1e-6)


@pytest.mark.parametrize("length", [24, 25, 26, 48, 49, 61])
def test_a_stride_of_the_context_gives_disjoint_windows_and_loses_no_token(scope, length):
    tokens = LONG[0, :length].tolist()
    expected = []
    for begin in range(0, length, CONTEXT):
        said = logits(scope, tokens[begin : begin + CONTEXT])
        expected += [-float(row[token]) for row, token in zip(said, tokens[begin + 1 : begin + CONTEXT + 1], strict=False)]
    found = scope.perplexity(LONG[:, :length], stride=CONTEXT)
    assert found.n_tokens == len(expected) == length - 1
    assert math.isclose(found.nll, np.mean(expected), rel_tol=1e-6)


@pytest.mark.parametrize("context, stride", [(5, 1), (5, 3), (5, 4), (5, 5), (8, 5), (1, 1), (2, 2)])
def test_every_token_is_predicted_once(context, stride):
    samples = rows(2, 5, 6, 7, 16, 23)
    cut = windows(samples, torch.nn.functional.pad(samples.attention_mask[:, 1:].bool(), (1, 0)), context, stride)
    assert cut.samples.input_ids.shape[1] <= context
    for i, length in enumerate(samples.lengths.tolist()):
        own = cut.source == i
        counted = torch.cat([cut.samples.labels[own][:, 1:].flatten(), cut.following[own]])
        expected = samples.input_ids[i, 1:length]
        assert torch.equal(counted[counted != -100].sort().values, expected.sort().values)
        assert (cut.samples.labels[own][:, 0] == -100).all()  # nothing stands before it in its window


def test_texts_that_fit_are_not_changed_by_windows(scope):
    samples = rows(24, 2, 17)
    plain = scope.perplexity(samples)
    for stride in (1, 12, 24):
        found = scope.perplexity(samples, stride=stride)
        assert found.n_tokens == plain.n_tokens and np.allclose(
            [found.nll, found.ci_low, found.ci_high], [plain.nll, plain.ci_low, plain.ci_high], rtol=1e-6
        )


def test_the_loss_of_the_transformers_library_agrees(scope):
    tokens = LONG[:, :20]
    with torch.no_grad():
        assert math.isclose(scope.perplexity(tokens).nll, float(scope.model(tokens, labels=tokens).loss), rel_tol=1e-5)
        begun = torch.cat([torch.zeros(1, 1, dtype=torch.long), tokens], 1)
        found = scope.perplexity(tokens, start_token=True)
        assert math.isclose(found.nll, float(scope.model(begun, labels=begun).loss), rel_tol=1e-5) and found.n_tokens == 20


@pytest.mark.parametrize(
    "options", [{}, {"stride": 9}, {"stride": 24}, {"stride": 9, "start_token": True}, {"start_token": True}]
)
def test_batching_padding_order_and_joining_do_not_matter(scope, options):
    samples = rows(60, 3, 24, 25, 41) if "stride" in options else rows(23, 3, 11, 20, 2)
    total, count = token_losses(scope, rows_of(scope, samples, **options))
    for chunk in (1, 3):
        assert np.allclose(token_losses(scope, rows_of(scope, samples, **options), chunk=chunk)[0], total, rtol=1e-6)
    turned = samples[[4, 2, 0, 3, 1]]
    assert np.allclose(token_losses(scope, rows_of(scope, turned, **options))[0], total[[4, 2, 0, 3, 1]], rtol=1e-6)
    width = samples.input_ids.shape[1]
    places = [torch.arange(width).roll(width - int(n)) for n in samples.lengths]
    left = ts.Samples.tokens(
        torch.stack([row[place.argsort().argsort()] for row, place in zip(samples.input_ids, places, strict=True)]),
        torch.stack([row[place.argsort().argsort()] for row, place in zip(samples.attention_mask, places, strict=True)]),
    )
    assert left.attention_mask[1, 0] == 0 and left.attention_mask[1, -1] == 1
    assert np.allclose(token_losses(scope, rows_of(scope, left, **options))[0], total, rtol=1e-6)
    parts = [scope.perplexity(samples[[i]], **options) for i in range(5)]
    assert np.allclose([p.nll * p.n_tokens for p in parts], total, rtol=1e-6)
    assert [p.n_tokens for p in parts] == count.tolist()
    whole = scope.perplexity(samples, **options)
    assert math.isclose(whole.nll, total.sum() / count.sum(), rel_tol=1e-9) and whole.n_tokens == count.sum()


def test_the_interval_is_over_texts_and_not_windows(scope):
    samples = rows(60, 50, 61, 40)
    total, count = token_losses(scope, rows_of(scope, samples, stride=4))
    ratio = total.sum() / count.sum()
    half = half_width(total, count)
    found = scope.perplexity(samples, stride=4)
    assert math.isclose(found.ci_high, math.exp(ratio + half), rel_tol=1e-9)
    assert math.isclose(found.ci_low, math.exp(ratio - half), rel_tol=1e-9)


@pytest.mark.parametrize("stride", [7, 24])
def test_labels_choose_what_is_predicted_in_any_window(scope, stride):
    labels = LONG.clone()
    labels[:, :40] = -100
    labels[0, 50] = 3  # another token than the one that stands there
    found = scope.perplexity(ts.Samples.tokens(LONG, labels=labels), stride=stride)
    each = {t: -float(v) for t, v in enumerate(logits_by_window(scope, LONG[0].tolist(), labels[0].tolist(), stride)) if v}
    assert found.n_tokens == 21 == len(each) and math.isclose(found.nll, sum(each.values()) / 21, rel_tol=1e-6)


def logits_by_window(scope, tokens, labels, stride):
    """log p of each label at its place, None where it is not predicted; a window of the context predicts what follows it."""
    found = [None] * len(tokens)
    for begin in range(0, len(tokens), stride):
        said = logits(scope, tokens[begin : begin + CONTEXT])
        reach = min(begin + CONTEXT + (stride == CONTEXT), len(tokens))
        for t in range(begin + 1, reach):
            if found[t] is None and labels[t] != -100:
                found[t] = float(said[t - 1 - begin, labels[t]])
    return found


def test_a_hole_in_the_mask_is_read_as_without_windows(scope):
    mask = torch.ones(1, 20, dtype=torch.long)
    mask[0, 8] = 0
    samples = ts.Samples.tokens(LONG[:, :20], mask)
    plain, cut = scope.perplexity(samples), scope.perplexity(samples, stride=5)
    assert plain.n_tokens == cut.n_tokens == 17 and math.isclose(plain.nll, cut.nll, rel_tol=1e-6)


def test_a_text_that_has_its_start_token_gets_no_other(scope):
    tokens = torch.cat([torch.zeros(1, 1, dtype=torch.long), LONG[:, :20]], 1)
    found, plain = scope.perplexity(tokens, start_token=True), scope.perplexity(tokens)
    assert found.nll == pytest.approx(plain.nll, rel=1e-6) and found.n_tokens == plain.n_tokens == 20


def test_the_token_for_the_beginning_goes_before_that_for_the_end():
    model = random_gpt2()
    begun = torch.cat([torch.full((1, 1), 4), LONG[:, :20]], 1)
    expected = ts.Scope(model).perplexity(begun).nll
    for tokenizer in (Starts(bos=4, eos=9), Starts(eos=4)):
        assert ts.Scope(model, tokenizer).perplexity(LONG[:, :20], start_token=True).nll == pytest.approx(expected, rel=1e-6)


def test_a_first_token_without_a_label_is_not_predicted(scope):
    labels = LONG[:, :20].clone()
    labels[0, 0] = -100
    assert scope.perplexity(ts.Samples.tokens(LONG[:, :20], labels=labels), start_token=True).n_tokens == 19


def test_a_text_of_one_token_needs_a_start(scope):
    samples = rows(5, 1)
    found = scope.perplexity(samples, start_token=True)
    assert found.n_tokens == 6
    with pytest.raises(
        ValueError, match=r"sample 'samples-1' has 1 token and none to predict: leave it out, or .* \(start_token=True\)"
    ):
        scope.perplexity(samples)
    with pytest.raises(ValueError, match=r"text 1 \(''\) has no tokens: leave it out"):
        ts.Scope(random_gpt2(), _Splits()).perplexity(["one", ""])


class _Splits(Starts):
    """A tokenizer of words that are numbers of letters."""

    pad_token_id = 0

    def __call__(self, text, **_):
        return {"input_ids": [len(word) for word in text.split()]}

    def encode(self, text):
        return self(text)["input_ids"]


def test_what_cannot_be_done_is_said_in_one_line(scope):
    long = ts.Samples.tokens(LONG)
    with pytest.raises(ValueError, match=r"sample 'samples-0' has 61 tokens and the context of random is 24: .*stride=12"):
        scope.perplexity(long)
    for stride in (0, 25, -1, 2.0, True, "3"):
        with pytest.raises(ValueError, match=r"stride is .*: move windows on by 1 to 24 tokens"):
            scope.perplexity(long, stride=stride)
    for tokenizer, words in ((None, "no tokenizer"), (Starts(), "a tokenizer without a token for the beginning")):
        with pytest.raises(ValueError, match=words):
            ts.Scope(random_gpt2(), tokenizer).perplexity(rows(5), start_token=True)
    bloom = ts.Scope(build("bloom"), Starts(bos=0))
    assert bloom.anatomy.context == 0 and bloom.perplexity(long, start_token=True).n_tokens == 61
    with pytest.raises(ValueError, match="that of BloomForCausalLM is not known: leave it out"):
        bloom.perplexity(long, stride=4)
    with pytest.raises(ts.UnsupportedModel, match="BertForMaskedLM predicts no next token: stride= and start_token="):
        ts.Scope(build("bert")).perplexity(rows(5), start_token=True)
    with pytest.raises(ts.UnsupportedModel, match="no loss per token"):
        ts.Scope(build("mlp")).perplexity((torch.zeros(2, 10), torch.tensor([0, 1])), stride=2)
    more = ts.Samples.tokens(LONG, more={"token_type_ids": torch.zeros_like(LONG)})
    with pytest.raises(ValueError, match="have token_type_ids beside tokens"):
        scope.perplexity(more, stride=4)


def test_the_model_is_left_as_it_is(scope):
    before = {name: value.clone() for name, value in scope.model.state_dict().items()}
    scope.model.train()
    scope.perplexity(LONG, stride=6, start_token=True)
    assert scope.model.training
    scope.model.eval()
    assert all(torch.equal(value, before[name]) for name, value in scope.model.state_dict().items())


def test_a_longer_context_helps_where_something_repeats():
    """An induction head needs the earlier copy in its window."""
    scope = ts.Scope(attention_only())
    generator = torch.Generator().manual_seed(0)
    first = torch.randperm(19, generator=generator)[:10] + 1
    text = torch.cat([first, first, first, first])[None]
    small, large = (scope.perplexity(text, stride=stride).nll for stride in (24, 4))
    assert large < small - 0.2
