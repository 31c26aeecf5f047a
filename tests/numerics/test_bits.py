"""Flipped bits against the integers that numpy reads from the same memory."""

import numpy as np
import pytest
import torch

from tensorscope_nb.numerics.bits import flipped, n_differing

NUMPY = {torch.float64: np.uint64, torch.float32: np.uint32, torch.float16: np.uint16, torch.bfloat16: np.uint16}


def stored(values):
    return np.frombuffer(values.contiguous().view(torch.uint8).numpy().tobytes(), NUMPY[values.dtype])


@pytest.mark.parametrize("dtype", NUMPY)
def test_one_bit_of_what_is_stored_is_flipped_and_twice_is_nothing(dtype):
    width = 8 * dtype.itemsize
    values = torch.randn(5, generator=torch.Generator().manual_seed(0)).to(dtype).repeat_interleave(width)
    values[0], values[-1] = -0.0, float("inf")
    bits = torch.arange(width).repeat(5)
    new = flipped(values, bits)
    assert new.dtype == dtype
    np.testing.assert_array_equal(
        stored(values) ^ stored(new), np.array([1], NUMPY[dtype])[0] << bits.numpy().astype(NUMPY[dtype])
    )
    np.testing.assert_array_equal(stored(flipped(new, bits)), stored(values))


def test_the_highest_bit_is_the_sign_and_the_bit_below_it_the_largest_of_the_exponent():
    one = torch.tensor([1.5])
    assert flipped(one, torch.tensor([31])).item() == -1.5
    assert not flipped(one, torch.tensor([30])).isfinite().item()
    assert flipped(one, torch.tensor([0])).item() == np.nextafter(np.float32(1.5), np.float32(2))


def test_zeros_of_both_signs_are_one_value():
    a = torch.tensor([0.0, -0.0, 1.0, float("nan")])
    assert n_differing(a, torch.tensor([-0.0, 0.0, 1.0, float("nan")])) == 0
    assert n_differing(a, torch.tensor([-0.0, 1e-45, -1.0, 1.0])) == 3
