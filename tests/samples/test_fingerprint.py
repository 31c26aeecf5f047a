import dataclasses

import pytest
import torch

import tensorscope_nb as ts

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
PLAIN = ts.Samples.tokens(IDS, MASK)


def test_equal_data_has_one_fingerprint_whatever_its_ids_tasks_and_texts():
    named = ts.Samples.tokens(IDS, MASK, task="prose", ids=["a", "b"], texts=["one", "two"])
    assert named.fingerprint == PLAIN.fingerprint
    assert len(PLAIN.fingerprint) == 16 and int(PLAIN.fingerprint, 16) >= 0


def test_it_is_a_fixed_function_of_the_data():
    assert ts.Samples.tokens(torch.tensor([[1, 2]])).fingerprint == ts.Samples.tokens(torch.tensor([[1, 2]]).int()).fingerprint
    assert PLAIN.fingerprint == "0f27800d9a306f73"


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[5, 6, 7, 8], [9, 10, 44, 3]], [[1, 1, 1, 1], [1, 1, 0, 0]]),  # other ids under the mask
        ([[5, 6, 7, 8], [0, 0, 9, 10]], [[1, 1, 1, 1], [0, 0, 1, 1]]),  # padding on the left
        ([[5, 6, 7, 8, 0, 0], [9, 10, 0, 0, 0, 0]], [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]),  # wider
    ],
)
def test_padding_does_not_count(ids, mask):
    assert ts.Samples.tokens(torch.tensor(ids), torch.tensor(mask)).fingerprint == PLAIN.fingerprint


def test_labels_are_padded_along():
    labels = torch.tensor([[-100, 6, 7, 8], [-100, 10, 1, 1]])
    left = torch.tensor([[-100, 6, 7, 8], [3, 3, -100, 10]])
    right = ts.Samples.tokens(IDS, MASK, labels)
    turned = ts.Samples.tokens(torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]), left)
    assert right.fingerprint == turned.fingerprint != PLAIN.fingerprint


def test_a_hole_in_the_mask_is_another_sequence():
    dense = ts.Samples.tokens(torch.tensor([[5, 6, 7]]))
    holed = [ts.Samples.tokens(torch.tensor([[5, hidden, 6, 7]]), torch.tensor([[1, 0, 1, 1]])).fingerprint for hidden in (0, 40)]
    assert holed[0] == holed[1] != dense.fingerprint


def test_whatever_the_model_or_the_loss_reads_counts():
    x, y = torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1])
    different = [
        PLAIN,
        ts.Samples.tokens(IDS[[1, 0]], MASK[[1, 0]]),  # another order
        ts.Samples.tokens(IDS, MASK)[:1],
        ts.Samples.tokens(torch.tensor([[5, 6, 7], [8, 9, 10]])),  # the same stream, cut elsewhere
        ts.Samples.tokens(torch.tensor([[5, 6], [7, 8], [9, 10]])),
        ts.Samples.tokens(IDS, MASK, vocabulary="another"),
        ts.Samples.tokens(IDS, MASK, torch.tensor([1, 2])),
        ts.Samples.tokens(IDS, MASK, torch.tensor([1, 3])),
        ts.Samples.tokens(IDS, MASK, more={"token_type_ids": torch.zeros(2, 4, dtype=torch.long)}),
        ts.Samples.tokens(IDS, MASK, more={"token_type_ids": torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0]])}),
        ts.Samples.tensors(x, y),
        ts.Samples.tensors(x.double(), y),
        ts.Samples.tensors(x.reshape(2, 3, 1), y),
        ts.Samples.tensors({"z": x}, y),
        ts.Samples.tensors(x + 1e-6, y),
        ts.Samples.tensors(x),
    ]
    assert len({s.fingerprint for s in different}) == len(different)


def test_it_survives_slicing_joining_and_half_precision():
    assert (PLAIN[:1] + PLAIN[1:]).fingerprint == PLAIN.fingerprint
    half = ts.Samples.tensors(torch.ones(2, 3, dtype=torch.bfloat16))
    assert half.fingerprint != dataclasses.replace(half, inputs={"x": torch.ones(2, 3, dtype=torch.float16)}).fingerprint
