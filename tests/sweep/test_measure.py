"""Every measure of per-sample gradients against the gradients themselves, however they come and however they are cut."""

import pytest
import torch
from gradient_forms import random_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorscope_nb.sweep import forms, measure
from tensorscope_nb.sweep.forms import Gradients, Product, Whole, joined
from tensorscope_nb.sweep.measure import Elementwise, SquaresBy, SumsBy
from tensorscope_nb.sweep.paired import products


def _cube(g, w):
    return (g * w).abs() ** 3


GROUPS = [{"0", "2"}, {"1", "3", "4"}, set()]
WANTS = ["total", "rows", "columns", "sum", "squares", "gram", Elementwise(_cube, "weight"), Elementwise(_cube, "sample")]
WANTS += [SumsBy(GROUPS), SquaresBy(GROUPS)]


def _of(group, dense):
    return [i for i in range(len(dense)) if str(i) in group]


def expected(dense, weight, other=None):
    flat, second = dense.flatten(1), (dense if other is None else other).flatten(1)
    return {
        "total": (dense**2).sum((1, 2)),
        "rows": (dense**2).sum(2),
        "columns": (dense**2).sum(1),
        "sum": dense.sum(0),
        "squares": (dense**2).sum(0),
        "gram": flat @ second.T,
        WANTS[6]: _cube(dense, weight).sum(0),
        WANTS[7]: _cube(dense, weight).sum((1, 2)),
        WANTS[8]: torch.stack([dense[_of(group, dense)].sum(0) for group in GROUPS]),
        WANTS[9]: torch.stack([(dense[_of(group, dense)] ** 2).sum(0) for group in GROUPS]),
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["product", "lookup", "whole", "tied", "called twice", "all", "nothing"]),
    n=st.integers(1, 5),
    terms=st.integers(1, 6),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    wants=st.lists(st.sampled_from(WANTS), min_size=1, unique=True),
    block=st.sampled_from([1, 800, 10**7]),
    seed=st.integers(0, 1000),
)
def test_what_is_measured_is_what_the_gradients_say(kind, n, terms, shape, wants, block, seed):
    gradients, dense = random_gradients(kind, n, terms, *shape, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "BLOCK_BYTES", block)
        patch.setattr(forms, "SIDE", 3)
        found = measure.measure(gradients, wants, [str(i) for i in range(n)])
    assert found.keys() == set(wants)
    truth = expected(dense, gradients.weight)
    for want in wants:
        assert torch.allclose(found[want], truth[want], atol=1e-9, rtol=1e-9), want


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kinds=st.tuples(*[st.sampled_from(["product", "lookup", "whole", "tied", "nothing"])] * 2),
    terms=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    block=st.sampled_from([1, 800, 10**7]),
    seed=st.integers(0, 1000),
)
def test_products_of_some_samples_with_others(kinds, terms, shape, block, seed):
    (a, one), (b, other) = (random_gradients(kind, n, terms, *shape, seed + n) for kind, n in zip(kinds, (3, 2), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "BLOCK_BYTES", block)
        found = products(a, b)
    assert torch.allclose(found, one.flatten(1) @ other.flatten(1).T, atol=1e-9)


@pytest.mark.parametrize("terms", [1, 2, 40])
def test_each_way_is_taken_where_it_is_the_cheaper(terms, monkeypatch):
    """Short sequences never make the gradients of a large weight; long ones do."""
    gradients, dense = random_gradients("product", 3, terms, 40, 40, 0)
    made = []
    original = Gradients.block
    monkeypatch.setattr(Gradients, "block", lambda *a: made.append(1) or original(*a))
    total = measure.measure(gradients, ["total"])["total"]
    gram = measure.measure(gradients, ["gram"])["gram"]
    assert bool(made) == (terms == 40)
    assert torch.allclose(total, (dense**2).sum((1, 2))) and torch.allclose(gram, dense.flatten(1) @ dense.flatten(1).T)


def test_chunks_are_joined_and_kept_in_the_smaller_form():
    parts = [random_gradients(kind, 2, 6, 5, 4, i) for i, kind in enumerate(["product", "product", "nothing"])]
    both = joined([g for g, _ in parts[:2]])
    assert isinstance(both.forms[0], Product) and isinstance(both.compact().forms[0], Whole)  # 6 · (5 + 4) numbers against 5 · 4
    three = joined([g for g, _ in parts])
    truth = torch.cat([dense for _, dense in parts])
    for each in (three, three.compact(), joined([both, parts[2][0]])):
        assert torch.allclose(each.block(slice(None), slice(None)), truth)
    short, _ = random_gradients("product", 2, 1, 5, 4, 0)
    assert short.compact() is short
    assert torch.allclose(both.times(torch.ones(4, dtype=torch.float64)), truth[:4].sum(2))
