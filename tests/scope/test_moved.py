"""Parameters that are moved come back bit for bit, whatever happens meanwhile."""

import threading

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.scope.moved import moved

IDS = torch.randint(50, (4, 10), generator=torch.Generator().manual_seed(1))


def bits(model):
    return [p.detach().contiguous().reshape(-1).view(torch.uint8).clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def far(model, seed=0):
    """Steps after which subtracting gives other numbers back."""
    generator = torch.Generator().manual_seed(seed)
    return [1e3 * torch.randn(p.shape, generator=generator) for p in model.parameters()]


def test_values_are_moved_inside_and_the_same_bits_outside():
    model = random_gpt2()
    parameters = list(model.parameters())
    with torch.no_grad():
        parameters[0][0, :2] = torch.tensor([-0.0, float("nan")])
    before, values, steps = bits(model), [p.detach().clone() for p in parameters], far(model)
    with moved(model, parameters, steps):
        for p, value, step in zip(parameters, values, steps):
            assert torch.equal(p.nan_to_num(), (value + step).nan_to_num())
    assert same(before, bits(model))
    assert not all(torch.equal((v + s) - s, v) for v, s in zip(values[1:], steps[1:]))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError, GeneratorExit])
def test_an_error_inside_leaves_nothing_moved(error):
    model = random_gpt2()
    before = bits(model)
    with pytest.raises(error), moved(model, list(model.parameters()), far(model)):
        assert not same(before, bits(model))
        raise error("inside")
    assert same(before, bits(model))


def test_an_error_on_the_way_leaves_nothing_moved():
    model = random_gpt2()
    before = bits(model)

    def steps():
        yield from far(model)[:3]
        raise torch.OutOfMemoryError("for the fourth")

    for given, error in ((steps(), torch.OutOfMemoryError), (far(model)[:3], ValueError)):
        with pytest.raises(error), moved(model, list(model.parameters()), given):
            pass
        assert same(before, bits(model))


def test_graphs_that_the_user_holds_still_work():
    model = random_gpt2()
    parameters = list(model.parameters())
    parameters[1].requires_grad_(False)
    expected = torch.autograd.grad(model(IDS, labels=IDS).loss, parameters[0])[0]
    held = model(IDS, labels=IDS).loss
    with moved(model, parameters, far(model)):
        assert [p.requires_grad for p in parameters] == [i != 1 for i in range(len(parameters))]
    held.backward()
    assert torch.equal(parameters[0].grad, expected) and all(p.is_leaf for p in parameters)


def test_another_thread_waits_until_the_model_is_back():
    scope = ts.Scope(random_gpt2())
    expected, found = scope.losses(IDS), []
    thread = threading.Thread(target=lambda: found.append(scope.losses(IDS)))
    with moved(scope.model, list(scope.model.parameters()), far(scope.model)):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not torch.equal(scope.losses(IDS), expected)  # and its own thread goes on
    thread.join()
    assert torch.equal(found[0], expected)
