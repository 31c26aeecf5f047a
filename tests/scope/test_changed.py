"""Single entries that hold other values come back bit for bit, whatever happens meanwhile."""

import signal
import threading

import pytest
import torch
from tiny_models import random_gpt2
from torch import nn

import tensorscope_nb as ts
from tensorscope_nb.scope.changed import Change, changed

IDS = torch.randint(50, (4, 10), generator=torch.Generator().manual_seed(1))
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def bits(model):
    return [p.detach().contiguous().reshape(-1).view(torch.uint8).clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def change(p, places, values):
    return Change(p, torch.tensor(places), torch.tensor(values, dtype=p.dtype))


def two(model, value=7.0):
    body = model.transformer
    return [change(body.wte.weight, [0, 30, 5], [value] * 3), change(body.h[1].attn.c_proj.weight, [24 * 3 + 17], [value])]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_entries_and_no_others_hold_the_values_inside_and_their_own_bits_outside(dtype):
    model = random_gpt2().to(dtype)
    with torch.no_grad():
        model.transformer.wte.weight[0, :2] = torch.tensor([-0.0, float("nan")], dtype=dtype)
    before, expected = bits(model), [p.detach().clone() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    expected[names.index("transformer.wte.weight")].view(-1)[[0, 30, 5]] = 7
    expected[names.index("transformer.h.1.attn.c_proj.weight")][3, 17] = 7
    with changed(model, two(model)) as n:
        inside = [p.detach().clone() for p in model.parameters()]
    assert n == 4 and same(before, bits(model))
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(inside, expected, strict=True))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError, GeneratorExit])
def test_an_error_inside_leaves_nothing_changed(error):
    model = random_gpt2()
    before = bits(model)
    with pytest.raises(error), changed(model, two(model)):
        assert not same(before, bits(model))
        raise error("inside")
    assert same(before, bits(model))


def test_an_error_on_the_way_leaves_nothing_changed():
    model = random_gpt2()
    before = bits(model)
    wrong = [*two(model), change(model.transformer.wpe.weight, [10**6], [1.0])]
    for changes in (wrong, [two(model)[0], Change(model.transformer.wpe.weight, torch.tensor([0]), torch.ones(1).double())]):
        with pytest.raises((IndexError, RuntimeError)), changed(model, changes):
            pass
        assert same(before, bits(model))


def test_a_real_interrupt_comes_where_the_model_runs_and_leaves_nothing_changed():
    scope = ts.Scope(random_gpt2())
    before, seen = bits(scope.model), []

    def stop(module, inputs):
        seen.append(float(scope.model.transformer.wte.weight[0, 0]))
        signal.raise_signal(signal.SIGINT)
        seen.append("not reached")

    hook = scope.model.transformer.h[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt), changed(scope.model, two(scope.model)):
        scope.losses(IDS)
    hook.remove()
    assert seen == [7.0] and same(before, bits(scope.model))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_parameters_that_do_not_lie_in_one_row_of_memory_are_counted_row_by_row():
    layer = nn.Linear(3, 4)
    layer.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4).T)
    assert not layer.weight.is_contiguous()
    before = layer.weight.detach().clone()
    with changed(layer, [change(layer.weight, [1, 11], [-5.0, -6.0])]) as n:
        assert layer.weight[0, 1] == -5 and layer.weight[3, 2] == -6 and n == 2
        assert int((layer.weight != before).sum()) == 2
    assert torch.equal(layer.weight, before)


def test_a_parameter_without_axes_has_one_entry():
    model = nn.Module()
    model.gain = nn.Parameter(torch.tensor(2.0))
    with changed(model, [change(model.gain, [0], [3.0])]) as n:
        assert float(model.gain) == 3 and n == 1
    assert float(model.gain) == 2


def test_only_values_that_differ_are_counted():
    model = nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[0.0, 1.0, -0.0, float("nan")]])
    for values, n in (
        ([0.0, 1.0, -0.0, float("nan")], 0),
        ([-0.0, 1.0, 0.0, 2.0], 1),
        ([1e-45, 1.0000001, 0.0, float("nan")], 2),
    ):
        with changed(model, [change(model.weight, [0, 1, 2, 3], values)]) as counted:
            assert counted == n
    assert model.weight.view(torch.int32).tolist()[0][2] == -(2**31)  # the sign of a zero is restored too


def test_tied_weights_are_one_parameter():
    model = random_gpt2()
    with changed(model, two(model)):
        assert float(model.lm_head.weight[0, 0]) == 7
    assert float(model.lm_head.weight[0, 0]) != 7


def test_graphs_that_the_user_holds_still_work():
    model = random_gpt2()
    p = model.transformer.wte.weight
    expected = torch.autograd.grad(model(IDS, labels=IDS).loss, p)[0]
    held = model(IDS, labels=IDS).loss
    model.transformer.wpe.weight.requires_grad_(False)
    with changed(model, two(model)):
        assert p.requires_grad and not model.transformer.wpe.weight.requires_grad
    held.backward()
    assert torch.equal(p.grad, expected) and p.is_leaf


def test_another_thread_waits_until_the_model_is_back():
    scope = ts.Scope(random_gpt2())
    expected, found = scope.losses(IDS), []
    thread = threading.Thread(target=lambda: found.append(scope.losses(IDS)))
    with changed(scope.model, two(scope.model)):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not torch.equal(scope.losses(IDS), expected)
    thread.join()
    assert torch.equal(found[0], expected)
