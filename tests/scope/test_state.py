"""Whatever is called, and however it ends, the model and the user's random state are bit-equal afterwards."""

import threading

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (4, 10), generator=torch.Generator().manual_seed(1))


def snapshot(model):
    return {
        "parameters": {n: p.detach().clone() for n, p in model.named_parameters()},
        "buffers": {n: b.clone() for n, b in model.named_buffers()},
        "gradients": {n: (None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "modules": [n for n, _ in model.named_modules()],
        "attributes": {n: sorted(k for k in m.__dict__ if not k.startswith("_")) for n, m in model.named_modules()},
        "hooks": {
            n: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for n, m in model.named_modules()
        },
        "attention": model.config._attn_implementation,
        "use_cache": model.config.use_cache,
        "random": torch.get_rng_state(),
    }


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def interrupting(tensor):
    raise KeyboardInterrupt


def trace_and_edit(scope):
    with scope.trace(IDS):
        z = scope.layers[0].attn.z
        scope.layers[1].attn.pattern[:] = 0.1
        with scope.logits.sum().backward():
            z.grad.save()


def trace_and_fail(scope):
    with scope.trace(IDS):
        scope.layers[0].attn.z.save()
        raise RuntimeError("in the block")


CALLS = {
    "wrap": lambda s: ts.Scope(s.model),
    "record": lambda s: s.record(IDS, ["layers.*.attn.pattern", "layers.0.resid_mid"], gradients=True, chunk=2),
    "losses": lambda s: s.losses(IDS),
    "perplexity": lambda s: s.perplexity(IDS),
    "trace": trace_and_edit,
    "induction": lambda s: ts.recipes.induction_heads(s, IDS, period=8, n_sequences=2, token_range=(1, 50), bos=0),
    "ablation": lambda s: ts.recipes.ablation(s, IDS, method="resample"),
    "patterns": lambda s: ts.recipes.attention_patterns(s, IDS),
    "landscape": lambda s: ts.recipes.loss_landscape(s, IDS, n_points=3, normalize="none", chunk=2),
    "landscape, eigen": lambda s: ts.recipes.loss_landscape(s, IDS, n_points=3, directions="eigen", modules="*.mlp.*"),
    "sharpness": lambda s: ts.recipes.sam_sharpness(s, IDS, ascent_steps=2, adaptive=True),
}
FAILURES = {
    "edit raises": (lambda s: s.record(IDS, "logits", edits={"layers.1.attn.pattern": lambda a: a / None}), TypeError),
    "interrupt": (lambda s: s.losses(IDS, edits={"layers.1.attn.z": interrupting}, chunk=1), KeyboardInterrupt),
    "trace raises": (trace_and_fail, Exception),
    "wrong shape": (lambda s: s.record(IDS, "logits", edits={"layers.0.attn.v": lambda v: v[:1]}), ValueError),
}


@pytest.fixture(params=["evaluation", "training, mixed, with gradients"])
def scope(request):
    model = random_gpt2(resid_pdrop=0.1)
    if request.param != "evaluation":
        model.train()
        model.transformer.h[0].eval()
        model(IDS, labels=IDS).loss.backward()
        model.transformer.wpe.weight.requires_grad_(False)
    return ts.Scope(model)


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_left_behind(scope, call):
    before = snapshot(scope.model)
    CALLS[call](scope)
    assert equal(before, snapshot(scope.model))


@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_is_left_behind_by_an_error(scope, failure):
    call, error = FAILURES[failure]
    before = snapshot(scope.model)
    caught = None
    try:
        call(scope)
    except BaseException as raised:
        caught = raised  # kept: restoring must not wait until the traceback is gone
    assert isinstance(caught, error)
    assert equal(before, snapshot(scope.model))


def test_a_model_that_draws_random_numbers_leaves_the_users_alone():
    model = random_gpt2()
    model.transformer.drop.register_forward_pre_hook(lambda module, args: torch.rand(1) and None)
    scope = ts.Scope(model)
    before = torch.get_rng_state()
    scope.losses(IDS)
    scope.record(IDS, "logits")
    ts.recipes.attention_patterns(scope, IDS)
    assert torch.equal(before, torch.get_rng_state())


def test_a_random_edit_draws_new_numbers_each_time():
    scope = ts.Scope(random_gpt2())
    noise = {"layers.0.attn.z": lambda z: z + torch.randn_like(z)}
    assert not torch.equal(scope.losses(IDS, edits=noise), scope.losses(IDS, edits=noise))
    assert not torch.equal(*(scope.record(IDS, "logits", edits=noise)["logits"] for _ in range(2)))


RUNS = {  # and how many of their module calls are looked at
    "record": (lambda s: s.record(IDS, ["layers.*.attn.pattern", "layers.*.resid_post"], gradients=True, chunk=1), 60, 1),
    "landscape": (lambda s: ts.recipes.loss_landscape(s, IDS, n_points=3, normalize="none"), 270, 7),
    "sharpness": (lambda s: ts.recipes.sam_sharpness(s, IDS, ascent_steps=3), 180, 5),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("run", RUNS)
def test_errors_at_any_moment_leave_the_model_alone(scope, run, error):
    """Ends the run after each of its first module calls in turn."""
    call, calls, every = RUNS[run]
    before = snapshot(scope.model)
    count = 0

    def watch(module, args):
        nonlocal count
        count += 1
        if count == stop:
            raise error

    for stop in range(1, calls, every):
        count = 0
        handle = torch.nn.modules.module.register_module_forward_pre_hook(watch)
        try:
            with pytest.raises(error):
                call(scope)
        finally:
            handle.remove()
        assert equal(before, snapshot(scope.model)), stop


def test_a_hook_never_sees_another_threads_forward():
    scope = ts.Scope(random_gpt2())
    expected = scope.losses(IDS)
    plain = scope.model(IDS).logits.detach()
    wrong = []

    def run_the_bare_model():
        for _ in range(20):
            with torch.no_grad():
                wrong.append(not torch.allclose(scope.model(IDS).logits, plain, atol=1e-5))

    def zero(z):
        return z * 0

    thread = threading.Thread(target=run_the_bare_model)
    thread.start()
    edited = [scope.losses(IDS, edits={"layers.0.attn.z": zero, "layers.1.mlp.out": zero}) for _ in range(20)]
    thread.join()
    assert not any(wrong)
    assert all(torch.equal(e, edited[0]) for e in edited) and not torch.allclose(edited[0], expected)


def test_two_threads_take_turns():
    scope = ts.Scope(random_gpt2())
    expected = {k: scope.losses(IDS, edits={"layers.0.attn.z": lambda z, k=k: z * k}) for k in (0.0, 0.5)}
    found = {0.0: [], 0.5: []}

    def work(k):
        for _ in range(10):
            found[k].append(scope.losses(IDS, edits={"layers.0.attn.z": lambda z: z * k}))

    threads = [threading.Thread(target=work, args=(k,)) for k in found]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(torch.equal(x, expected[k]) for k in found for x in found[k])


class Counting(torch.nn.Module):
    """Writes into its buffers while it runs, in both ways that there are."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(5, 3)
        self.register_buffer("written", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.written += 1
        self.replaced = self.replaced + 1
        return self.linear(x) + 0 * self.written


def test_buffers_that_a_forward_writes_are_put_back():
    model = Counting()
    scope, rows = ts.Scope(model), (torch.rand(4, 5), torch.arange(4) % 3)
    held = dict(model.named_buffers())
    ts.recipes.fisher_importance(scope, rows)
    scope.losses(rows)
    after = dict(model.named_buffers())
    assert all(after[name] is held[name] and float(after[name]) == 0 for name in held)
    model(torch.rand(1, 5))
    assert float(model.written) == 1  # and the model still counts for its user
