"""Inner products with held gradients, where forms differ: large vocabularies, other lengths, small numbers, one position."""

import weakref

import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.sweep.across import Held, Passing, across


def check(scope, samples, held, bound=1e-5, **how):
    found = across(scope, samples, held, **how)
    one, other = ({name: g.flatten(1).double() for name, g in scope.per_sample_gradients(s).items()} for s in (samples, held))
    for module, products in found.products.items():
        names = [name for name in one if name.rpartition(".")[0] == module]
        expected = sum(one[n] @ other[n].T for n in names)
        sizes = [sum((g[n] ** 2).sum(1) for n in names).sqrt() for g in (one, other)]
        scale = torch.outer(*sizes).clamp(min=1e-300)
        assert ((products - expected).abs() / scale).max() < bound, module
    assert found.n_weights == sum(g[0].nelement() for g in one.values())
    return found


def tokens(n, length, vocabulary, seed, task):
    return ts.Samples.tokens(torch.randint(1, vocabulary, (n, length), generator=torch.Generator().manual_seed(seed)), task=task)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("room", [None, 200_000])
def test_a_large_vocabulary_of_which_few_tokens_occur(tied, room):
    scope = ts.Scope(random_gpt2(vocab_size=900, tie_word_embeddings=tied))
    samples, held = tokens(3, 8, 900, 1, "a"), tokens(4, 6, 900, 2, "b")
    with ts.options(memory=room or 2**30):
        check(scope, samples, held, chunk=2)


@pytest.mark.parametrize("lengths", [(20, 4), (4, 20), (2, 2)])
def test_what_goes_by_and_what_is_held_may_differ_in_length(lengths):
    scope = ts.Scope(build("llama"))
    check(scope, tokens(7, lengths[0], 50, 1, "a"), tokens(3, lengths[1], 50, 2, "b"), chunk=3)


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_numbers_whose_products_leave_single_precision(scale):
    def loss(output, target):
        return scale * torch.nn.functional.cross_entropy(output, target, reduction="none")

    scope = ts.Scope(build("mlp"), loss=loss)
    x = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    samples, held = (
        ts.Samples.tensors(x[k], torch.arange(len(x[k])) % 3, task=t) for k, t in ((slice(5), "a"), (slice(5, 9), "b"))
    )
    found = check(scope, samples, held)
    assert all(bool((products != 0).any()) for products in found.products.values())


def test_a_gradient_that_is_no_number_is_named():
    def loss(output, target):
        rows = zip(output[:, 0], target, strict=True)
        return torch.stack([(y - y.detach()).abs().sqrt() if t == 1 else y**2 for y, t in rows])

    scope = ts.Scope(build("mlp"), loss=loss)
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    good, bad = ts.Samples.tensors(x, torch.zeros(4), task="good"), ts.Samples.tensors(x, torch.tensor([0, 0, 1, 0]), task="bad")
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="the gradient of sample 'bad-2' at"):
            across(scope, *pair)


def test_what_is_held_does_not_fit_at_all():
    scope = ts.Scope(random_gpt2())
    with (
        ts.options(memory=10_000),
        pytest.raises(ValueError, match="the gradients of a sample that is held and of one that goes by take"),
    ):
        across(scope, tokens(2, 8, 50, 1, "a"), tokens(3, 8, 50, 2, "b"), chunk=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [200_000, 400_000])
def test_what_is_held_keeps_to_its_half_of_the_memory_option(monkeypatch, dtype, memory):
    """Gradients of half precision are held in single."""
    sizes = []

    def begin(self, n, kept=Passing.begin):
        forms = [form for against in self.held.values() for form in against.held.forms]
        sizes.append(sum(tensor.nbytes for form in forms for tensor in vars(form).values() if isinstance(tensor, torch.Tensor)))
        kept(self, n)

    monkeypatch.setattr(Passing, "begin", begin)
    scope = ts.Scope(random_gpt2(vocab_size=400).to(dtype))
    samples, held = tokens(2, 8, 400, 1, "a"), tokens(12, 8, 400, 2, "b")
    with ts.options(memory=memory):
        across(scope, samples, held, chunk=4)
    assert sizes and all(size <= memory / 2 * 1.05 for size in sizes)  # the numbers of the tokens are not counted


def test_small_tensors_go_by_at_once_and_as_many_as_fit():
    """A chunk costs what it costs, however few samples are in it."""
    scope, sizes = ts.Scope(build("mlp")), []
    x = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    samples, held = ts.Samples.tensors(x, torch.arange(500) % 3, task="a"), ts.Samples.tensors(x[:3], torch.arange(3), task="b")
    scope.model.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    found = check(scope, samples, held)
    assert max(sizes) == 500
    sizes.clear()
    with ts.options(memory=64 * 640):
        again = across(scope, samples, held)
    assert max(sizes) == 64
    assert all(torch.allclose(again.products[name], products, atol=1e-6) for name, products in found.products.items())


def test_a_piece_is_let_go_before_the_next_is_held(monkeypatch):
    held, original = {}, Held.hold

    def hold(self, parameter, gradients):
        original(self, parameter, gradients)
        held.setdefault(self, []).append(weakref.ref(self.kept[parameter.name][-1]))
        assert not [ref for piece, refs in held.items() if piece is not self for ref in refs if ref() is not None]

    monkeypatch.setattr(Held, "hold", hold)
    with ts.options(memory=150_000):
        across(ts.Scope(random_gpt2()), tokens(2, 8, 50, 1, "a"), tokens(5, 8, 50, 2, "b"))
    assert len(held) > 2
