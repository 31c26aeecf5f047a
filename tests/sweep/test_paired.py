"""What is made of the gradients of two sets of samples, against the gradients themselves, however they come."""

import pytest
import torch
from gradient_forms import random_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorscope_nb.sweep import forms, measure
from tensorscope_nb.sweep.forms import Gradients, Whole, joined
from tensorscope_nb.sweep.measure import SquaresBy, SumsBy
from tensorscope_nb.sweep.paired import Part, part_by_part, positions, products

KINDS = ["product", "lookup", "whole", "tied", "called twice", "all", "nothing"]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS), n=st.integers(1, 5), terms=st.integers(1, 4), rows=st.integers(1, 9), columns=st.integers(1, 7),
    seed=st.integers(0, 9), block=st.sampled_from([64, 512, 2**23]),
)  # fmt: skip
def test_sums_and_squares_by_group(kind, n, terms, rows, columns, seed, block):
    gradients, dense = random_gradients(kind, n, terms, rows, columns, seed)
    ids, groups = [f"s{i}" for i in range(n)], [{"s0", "s2"}, {"s1"}, {"elsewhere"}]
    squares, sums = SquaresBy(groups), SumsBy(groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "BLOCK_BYTES", block)
        found = measure.measure(gradients, [squares, sums, "squares", "gram"], ids)
        alone = measure.measure(gradients, [sums, "sum"], ids)

    def by_group(of):
        return torch.stack(
            [sum((of(dense[i]) for i in group if i < n), torch.zeros(rows, columns)) for group in ((0, 2), (1,), ())]
        )

    assert torch.allclose(found[squares], by_group(torch.square).double())
    assert torch.allclose(found["squares"], (dense**2).sum(0))
    for each in (found, alone):
        assert torch.allclose(each[sums], by_group(lambda g: g).double())
    assert torch.allclose(alone["sum"], dense.sum(0))


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS), other_kind=st.sampled_from(KINDS), axis=st.sampled_from([0, 1]), seed=st.integers(0, 9),
    block=st.sampled_from([64, 512, 2**23]),
)  # fmt: skip
def test_parts_are_the_rows_or_columns_of_the_gradients(kind, other_kind, axis, seed, block):
    rows, columns = 6, 8
    a, dense_a = random_gradients(kind, 3, 2, rows, columns, seed)
    b, dense_b = random_gradients(other_kind, 4, 2, rows, columns, seed + 20)
    length = rows if axis == 0 else columns
    parts = [Part("x", axis, 0, 2), Part("y", axis, 2, length)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorscope_nb.sweep.paired.BLOCK_BYTES", block)
        for first, second, x, y in ((a, b, dense_a, dense_b), (a, a, dense_a, dense_a)):
            made = {"x": 0.0, "y": 0.0}

            def take(part, place, one, other, made=made):
                made[part.key] = made[part.key] + one @ other.T

            total = part_by_part(first, second, parts, [take])
            for part in parts:
                cut = slice(part.start, part.stop)
                p, q = (g[:, cut] if axis == 0 else g[:, :, cut] for g in (x, y))
                assert torch.allclose(made[part.key].double(), p.flatten(1) @ q.flatten(1).T)
            assert torch.allclose(total, x.flatten(1) @ y.flatten(1).T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other_kind", KINDS)
def test_products_are_those_of_the_gradients(kind, other_kind):
    """Also where a table has many more rows than there are tokens, so that only those that occur are visited."""
    for rows in (6, 90):
        a, dense_a = random_gradients(kind, 3, 2, rows, 5, 1)
        b, dense_b = random_gradients(other_kind, 4, 2, rows, 5, 2)
        single = Gradients(b.weight.float(), [Whole(dense_b.float())], 4)
        for x in (b, single):
            assert torch.allclose(products(a, x), dense_a.flatten(1) @ dense_b.flatten(1).T, atol=1e-5)
    assert torch.allclose(products(a, a), dense_a.flatten(1) @ dense_a.flatten(1).T)


@pytest.mark.parametrize("kind", ["product", "tied", "called twice"])
@pytest.mark.parametrize("other_kind", ["product", "tied", "lookup"])
def test_positions_add_up_to_the_inner_products_of_samples_side_by_side(kind, other_kind):
    a, dense_a = random_gradients(kind, 4, 3, 6, 5, 1)
    b, dense_b = random_gradients(other_kind, 4, 3, 6, 5, 2)
    found = positions(a, b)
    if found is None:  # forms of several lengths have no positions in common
        assert len({form.right.shape[1] for g in (a, b) for form in g.forms}) > 1
    else:
        assert torch.allclose(found.sum((1, 2)), (dense_a * dense_b).sum((1, 2)))
    whole = joined([a.compact()])
    assert positions(type(a)(a.weight, [Whole(dense_a)], 4), b) is None and whole.n == 4


def test_a_position_is_its_own_part_of_the_gradient():
    a, _ = random_gradients("product", 3, 4, 6, 5, 1)
    b, dense_b = random_gradients("product", 3, 4, 6, 5, 2)
    found = positions(a, b)
    (form,) = a.forms
    for k in range(3):
        for s in range(4):
            alone = torch.outer(form.left[k, s], form.right[k, s])
            assert torch.isclose(found[k, s].sum(), (alone * dense_b[k]).sum())
