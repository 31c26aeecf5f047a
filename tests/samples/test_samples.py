import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.samples.corpora import corpus


@pytest.fixture(scope="module")
def scope():
    return ts.load("tiny")


def test_texts_become_padded_rows_that_decode_to_themselves(scope):
    texts = ["To be, or not to be", "x = [i for i in range(3)]\n"]
    samples = scope.samples(texts, task="mixed")
    assert samples.ids == ("mixed-0", "mixed-1") and samples.tasks == ("mixed", "mixed")
    for i, text in enumerate(texts):
        ids = samples.input_ids[i][samples.attention_mask[i].bool()].tolist()
        assert ids[0] == scope.tokenizer.bos_token_id
        assert scope.tokenizer.decode(ids[1:]) == text == samples.text(i)
        assert "".join(samples.token_strings(i)[1:]).rstrip("\0") == text
    short = int(samples.lengths.argmin())
    assert (
        samples.token_strings(short)[-1] == "" and (samples.token_labels[short][samples.attention_mask[short] == 0] == -100).all()
    )


def test_nothing_is_cut_unless_asked(scope):
    text = "word " * 300
    assert int(scope.samples(text).lengths) > 300
    assert int(scope.samples(text, max_length=20).lengths) == 20


def test_ids_stay_with_samples_through_slicing_and_joining(scope):
    a = ts.datasets.shakespeare(scope, n=4, length=12)
    b = ts.datasets.maths(scope, n=3, length=20)
    joined = (a + b)[2:6]
    assert joined.ids == ("shakespeare-2", "shakespeare-3", "maths-0", "maths-1")
    assert joined.tasks == ("shakespeare",) * 2 + ("maths",) * 2
    assert joined.text(2) == b.text(0) and joined.input_ids.shape == (4, 20)
    assert torch.equal(scope.losses(joined)[2:], scope.losses(b[:2])) or torch.allclose(
        scope.losses(joined)[2:], scope.losses(b[:2]), atol=1e-5
    )
    assert torch.allclose(scope.losses(joined)[:2], scope.losses(a[2:4]), atol=1e-5)
    with pytest.raises(ValueError, match="the sample id 'shakespeare-0' occurs twice"):
        a + a


def test_other_forms_of_data(scope):
    texts = ["one two", "three"]
    from_texts = scope.samples(texts)
    from_frame = scope.samples(pd.DataFrame({"text": texts}))
    batch = scope.tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(from_texts.input_ids, from_frame.input_ids)
    assert torch.allclose(scope.losses(from_texts), scope.losses(dict(batch)), atol=1e-6)
    assert scope.samples(from_texts) is from_texts
    with pytest.raises(LookupError, match="no column 'text': it has label"):
        scope.samples(pd.DataFrame({"label": [1]}))


@pytest.mark.parametrize("name", ["shakespeare", "code"])
def test_corpora_are_split_between_what_the_model_saw_and_what_it_did_not(scope, name):
    train, test = corpus(name, "train"), corpus(name, "test")
    assert 8.9 < len(train) / len(test) < 9.1
    samples = getattr(ts.datasets, name)(scope, n=20, length=32)
    assert samples.input_ids.shape == (20, 32) and int(samples.lengths.min()) == 32
    places = [test.index(samples.text(i)) for i in range(20)]
    assert places == sorted(places)
    ends = [place + len(samples.text(i)) for i, place in enumerate(places)]
    assert all(end <= following for end, following in zip(ends, places[1:]))
    assert all(place == 0 or test[place - 1] == "\n" for place in places)


def test_repeats_repeat_and_shuffled_ones_do_not(scope):
    samples = ts.datasets.repeats(scope, n=6, period=20, seed=4)
    ids = samples.input_ids
    assert ids.shape == (6, 41) and (ids[:, 0] == scope.tokenizer.bos_token_id).all()
    assert torch.equal(ids[:, 1:21], ids[:, 21:]) and all(len(set(row.tolist())) == 20 for row in ids[:, 1:21])
    assert (samples.labels[:, :21] == -100).all() and torch.equal(samples.labels[:, 21:], ids[:, 21:])
    shuffled = ts.datasets.repeats(scope, n=6, period=20, seed=4, shuffled=True).input_ids
    assert torch.equal(shuffled[:, 21:].sort(1).values, shuffled[:, 1:21].sort(1).values)
    assert (shuffled[:, 21:] == shuffled[:, 1:21]).float().mean() < 0.2
    again = ts.datasets.repeats(scope, n=6, period=20, seed=4).input_ids
    other = ts.datasets.repeats(scope, n=6, period=20, seed=5).input_ids
    assert torch.equal(again, ids) and not torch.equal(other, ids)


def test_repeats_without_a_tokenizer():
    scope = ts.Scope(random_gpt2())
    samples = ts.datasets.repeats(scope, n=3, period=5, token_range=(10, 15), bos=0)
    assert set(samples.input_ids[:, 1:].flatten().tolist()) == set(range(10, 15))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: ts.datasets.shakespeare(s, n=5000, length=64), ValueError, "5000 passages do not fit into the test split of shakespeare"),
        (lambda s: ts.datasets.shakespeare(s, split="dev"), ValueError, "use 'train' or 'test'"),
        (lambda s: ts.datasets.maths(s, n=201), ValueError, "there are 200 problems"),
        (lambda s: ts.datasets.repeats(s, period=0), ValueError, "period is 0: a block needs at least 2 tokens"),
        (lambda s: ts.datasets.repeats(s, n=0), ValueError, "n is 0"),
        (lambda s: ts.datasets.shakespeare(object()), TypeError, "has no tokenizer"),
        (lambda s: s.samples([""]) if s.tokenizer("")["input_ids"] == [] else s.samples([]), ValueError, "there are no texts"),
        (lambda s: s.samples(["a", 3]), TypeError, "a text is a int"),
        (lambda s: ts.Samples.tokens(torch.zeros(2, 3)), ValueError, "integer token ids"),
        (lambda s: ts.Samples.tokens(torch.ones(2, 3).long(), torch.tensor([[1, 1, 1], [0, 0, 0]])), ValueError, r"rows \[1\] of attention_mask have no token"),
        (lambda s: ts.Samples.tokens(torch.ones(2, 3).long(), labels=torch.ones(2, 4).long()), ValueError, r"labels has shape \(2, 4\)"),
        (lambda s: s.samples(["a", "b"])[5:], ValueError, "selects none of 2 samples"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(scope, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(scope)
    assert "\n" not in str(caught.value)


def test_rows_are_chosen_by_any_kind_of_index(scope):
    samples = ts.datasets.shakespeare(scope, n=4, length=8)
    for rows in (
        [True, False, True, False],
        torch.tensor([True, False, True, False]),
        np.array([0, 2]),
        torch.tensor([0, 2]),
        [0, 2],
        slice(0, 4, 2),
    ):
        chosen = samples[rows]
        assert chosen.ids == ("shakespeare-0", "shakespeare-2") and torch.equal(chosen.input_ids, samples.input_ids[[0, 2]])
    assert samples[np.int64(-1)].ids == ("shakespeare-3",)
    with pytest.raises(ValueError, match="2 booleans choose among 4 samples"):
        samples[[True, False]]


def test_samples_do_not_share_memory_with_what_they_were_made_of():
    ids = torch.arange(1, 9).reshape(2, 4).int()
    samples = ts.Samples.tokens(ids)
    ids.zero_()
    assert samples.input_ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and samples.input_ids.dtype == torch.int64


def test_ids_as_lists_and_arrays(scope):
    lists = scope.samples([[5, 6, 7], [8, 9]])
    assert lists.lengths.tolist() == [3, 2] and torch.equal(scope.samples(np.array([[5, 6, 7]])).input_ids, lists.input_ids[:1])
    assert scope.samples(pd.Series(["one", "two"])).texts == ("one", "two")


def test_padding_may_be_an_id_that_the_model_does_not_have():
    scope = ts.Scope(random_gpt2())
    ids = torch.tensor([[5, 6, 7, -100], [8, 9, 3, 4]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert torch.allclose(scope.losses(ts.Samples.tokens(ids, mask))[0], scope.losses(ids[:1, :3])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda s: ts.Samples.tokens(torch.ones(1, 3).long(), torch.tensor([[2, 2, 1]])), "give 1 for a token and 0 for padding"),
        (lambda s: s.losses(ts.Samples.tokens(torch.ones(1, 3).long(), labels=torch.tensor([[1, 700, 1]]))), "label 700 is outside"),
        (lambda s: s.samples("a text", max_length=0), "max_length is 0: keep at least 1 token"),
        (lambda s: s.samples(s.samples("a text"), max_length=3), "these are Samples already"),
        (lambda s: s.samples(torch.ones(1, 3).long(), max_length=2), "max_length= cuts texts"),
        (lambda s: ts.Samples.tensors(torch.zeros(0, 3)), "at least 1"),
        (lambda s: ts.Samples.tensors(torch.zeros(2, 3), torch.zeros(3)), "give one target per row"),
        (lambda s: ts.Samples.tensors(torch.zeros(2, 3)) + s.samples("a"), "do not join"),
    ],
)  # fmt: skip
def test_more_bad_input_is_one_clear_line(scope, make, says):
    with pytest.raises(ValueError, match=says):
        make(scope)


def test_samples_of_another_tokenizer_are_refused(scope):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"one": 0, "two": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    other = ts.Scope(random_gpt2(), PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"))
    samples = other.samples(["one two one"])
    with pytest.raises(ValueError, match="these samples were made with another tokenizer"):
        scope.losses(samples)
    with pytest.raises(ValueError, match="made with different tokenizers"):
        samples + scope.samples(["one"], task="more")
    assert other.losses(samples).shape == (1,) and scope.losses(ts.Samples.tokens(samples.input_ids)).shape == (1,)


def test_tokens_that_are_no_text_are_spelled_as_bytes(scope):
    from tensorscope_nb.samples import token_strings

    spelled = token_strings(scope.tokenizer, scope.tokenizer.convert_tokens_to_ids(["\u0100", "\u00e9", "\u0120the", "\u010a"]))
    assert spelled == ["\\x00", "\\xe9", " the", "\n"]


def test_rows_by_id():
    samples = ts.Samples.tokens(torch.arange(12).reshape(4, 3), task="prose")
    assert samples["prose-2"].ids == ("prose-2",) and torch.equal(samples["prose-2"].input_ids, samples[2].input_ids)
    assert samples[["prose-3", "prose-0"]].ids == ("prose-3", "prose-0")
    with pytest.raises(LookupError, match="there is no sample 'code-1': ids are such as 'prose-0'"):
        samples[["prose-1", "code-1"]]
    with pytest.raises(TypeError, match="Samples join with Samples, and a list came"):
        samples + ["a text"]


def test_images_stay_images_through_slicing_and_joining():
    x = torch.arange(24.0).reshape(4, 6) / 24
    samples = ts.Samples.tensors(x, torch.arange(4), picture=(2, 3))
    assert samples[2:].pictures.tolist() == x[2:].reshape(2, 2, 3).tolist()
    more = ts.Samples.tensors(x, torch.arange(4), task="more", picture=(2, 3))
    assert (samples + more).pictures.shape == (8, 2, 3)
    plain = ts.Samples.tensors(x, torch.arange(4), task="plain")
    assert plain.pictures is None and (samples + plain).pictures is None
    with pytest.raises(ValueError, match=r"picture is \(2, 4\): give rows and columns that make up each x; x \(6,\) came"):
        ts.Samples.tensors(x, picture=(2, 4))
