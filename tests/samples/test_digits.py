import importlib.util
import re

import pytest
import torch

import tensorscope_nb as ts
from tensorscope_nb.samples.corpora import handwritten


def test_the_splits_share_no_image_and_hold_all():
    train, test = ts.datasets.digits("train"), ts.datasets.digits("test")
    assert (len(train), len(test)) == (1437, 360) and len(set(train.ids + test.ids)) == 1797
    for split in (train, test):
        x, y = split.inputs["x"], split.labels
        assert x.dtype == torch.float32 and x.shape[1:] == (64,) and float(x.min()) == 0 and float(x.max()) == 1
        assert y.dtype == torch.int64 and int(torch.bincount(y, minlength=10).min()) > 0.07 * len(y)
        assert set(split.tasks) == {"digits"}


def test_an_id_names_one_row_of_the_published_file_in_either_split():
    published = torch.tensor(handwritten())
    both = ts.datasets.digits("train") + ts.datasets.digits("test")
    rows = torch.tensor([int(re.fullmatch(r"digit-(\d{4})", name)[1]) for name in both.ids])
    assert torch.equal(both.inputs["x"] * 16, published[rows, :64].float())
    assert torch.equal(both.labels, published[rows, 64].long())
    assert both.texts == tuple(f"a {digit}" for digit in published[rows, 64].tolist())


def test_the_images_are_the_published_ones():
    # what the archive and scikit-learn say of the test set: images per class, and the first image
    assert torch.bincount(torch.tensor(handwritten()[:, 64])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert handwritten()[0, :16].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0] and handwritten().max() == 16


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_the_images_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert (bunch.data == handwritten()[:, :64]).all() and (bunch.target == handwritten()[:, 64]).all()


def test_the_first_n_are_a_draw_of_the_same_images():
    few = ts.datasets.digits("train", n=50)
    assert few.ids == ts.datasets.digits("train").ids[:50] and len(set(few.labels.tolist())) == 10
    assert few.ids != tuple(sorted(few.ids)) and ts.datasets.digits().ids == ts.datasets.digits("test").ids


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ts.datasets.digits("dev"), "split is 'dev': use 'train' or 'test'"),
        (lambda: ts.datasets.digits("test", n=361), "n is 361: the test split has 360 digits"),
        (lambda: ts.datasets.digits("train", n=0), "n is 0: the train split has 1437 digits"),
        (lambda: ts.Samples.tensors(torch.zeros(2, 3), texts=["one"]), "texts has 1 entries for 2 rows"),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
