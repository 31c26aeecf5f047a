"""Where a trace that is read from its source goes wrong: what our user gets there, with ``scope.trace`` and ``scope.run``."""

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(1))
TESTS = Path(__file__).parents[1]


@pytest.fixture
def scope():
    return ts.Scope(random_gpt2())


def by_trace(scope, site, ids=IDS):
    with scope.trace(ids):
        value = scope.live(site)
    return value


def by_run(scope, site, ids=IDS):
    return scope.run(lambda s: s.live(site), ids)


WAYS = pytest.mark.parametrize("read", [by_trace, by_run])
MODULE = {
    "trace": "def f(scope, ids):\n    with scope.trace(ids):\n        x = scope.live({site!r})\n    return x\n",
    "run": "def f(scope, ids):\n    return scope.run(lambda s: s.live({site!r}), ids)\n",
}


@pytest.mark.parametrize("way", MODULE)
def test_a_reloaded_module_runs_its_new_block(scope, way, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path, name = tmp_path / f"reloaded_{way}.py", f"reloaded_{way}"
    expected = scope.record(IDS, ["layers.0.attn.z", "layers.1.mlp.out"])
    path.write_text(MODULE[way].format(site="layers.0.attn.z"))
    module = importlib.import_module(name)
    assert torch.allclose(module.f(scope, IDS), expected["layers.0.attn.z"], atol=1e-5)
    path.write_text(MODULE[way].format(site="layers.1.mlp.out"))
    importlib.invalidate_caches()
    assert torch.allclose(importlib.reload(module).f(scope, IDS), expected["layers.1.mlp.out"], atol=1e-5)
    del sys.modules[name]


@pytest.mark.parametrize("way", MODULE)
def test_a_file_changed_under_a_running_module_does_not_change_its_block(scope, way, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path, name = tmp_path / f"changed_{way}.py", f"changed_{way}"
    path.write_text(MODULE[way].format(site="layers.0.attn.z"))
    module = importlib.import_module(name)
    path.write_text("\n\ndef other():\n    with open('x'):\n        pass\n")
    assert torch.allclose(module.f(scope, IDS), scope.record(IDS, "layers.0.attn.z")["layers.0.attn.z"], atol=1e-5)
    del sys.modules[name]


def test_a_forgotten_save_is_no_stale_variable(scope):
    logits = "of the cell before"
    with scope.trace(IDS):
        logits = scope.logits
        doubled = 2 * logits
    assert torch.allclose(doubled, 2 * scope.record(IDS, "logits")["logits"], atol=1e-5)


@WAYS
def test_no_grad_around_a_read_is_the_blocks_own(scope, read):
    """The model keeps its gradients, and the block its mode."""

    def look(s):
        with torch.no_grad():
            z = s.layers[0].attn.z
            doubled = 2 * z
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled() and not doubled.requires_grad
        logits = s.logits
        logits.square().mean().backward()
        return z.grad

    if read is by_run:
        found = scope.run(look, IDS)
    else:
        with scope.trace(IDS):
            found = look(scope)
    with scope.trace(IDS):
        z = scope.layers[0].attn.z
        scope.logits.square().mean().backward()
    assert torch.equal(found, z.grad) and found.abs().max() > 0


def test_autocast_around_a_read_is_the_blocks_own(scope):
    clean = scope.record(IDS, "logits")["logits"]
    with scope.trace(IDS):
        with torch.autocast("cpu", torch.bfloat16):
            z = scope.layers[0].attn.z
            assert (z[:, :, 0] @ z[:, :, 0].transpose(1, 2)).dtype == torch.bfloat16
        logits = scope.logits
    assert torch.allclose(logits, clean, atol=1e-5)


def test_inference_mode_around_a_read_is_refused(scope):
    for way in (by_trace, by_run):
        with pytest.raises(ValueError, match=r"a trace was opened inside torch\.inference_mode"), torch.inference_mode():
            way(scope, "logits")
    with (
        pytest.raises(ValueError, match=r"logits was asked for inside torch\.inference_mode"),
        scope.trace(IDS),
        torch.inference_mode(),
    ):
        scope.logits


def test_exec_and_a_body_that_starts_with_try(scope):
    expected = scope.record(IDS, "logits")["logits"]
    names = {"scope": scope, "ids": IDS}
    exec("with scope.trace(ids):\n    try:\n        x = scope.logits\n    finally:\n        done = True\n", names)
    assert names["done"] and torch.allclose(names["x"], expected, atol=1e-5)
    exec("with scope.trace(ids): y = scope.logits", names)  # on one line
    assert torch.allclose(names["y"], expected, atol=1e-5)
    exec("z = scope.run(lambda s: s.logits, ids)", names)
    assert torch.allclose(names["z"], expected, atol=1e-5)


def test_exec_of_a_backward_block(scope):
    source = (
        "with scope.trace(ids):\n    z = scope.layers[0].attn.z\n    with scope.logits.sum().backward():\n        g = z.grad\n"
    )
    names = {"scope": scope, "ids": IDS}
    exec(source, names)
    with scope.trace(IDS):
        z = scope.layers[0].attn.z
        scope.logits.sum().backward()
    assert torch.equal(names["g"], z.grad)


@WAYS
def test_tensor_grad_stays_what_it_is_for_other_threads(scope, read):
    """nnsight replaces torch.Tensor.grad while its backward blocks run."""
    own, reading, wrong = torch.Tensor.grad, threading.Event(), []
    leaf = torch.ones(3, requires_grad=True)
    leaf.sum().backward()
    expected = leaf.grad.clone()

    def elsewhere():
        while not reading.is_set():
            if not torch.equal(leaf.grad, expected):
                wrong.append(leaf.grad)

    def look(s):
        z = s.layers[0].attn.z
        with s.logits.sum().backward():
            assert torch.Tensor.grad is own
            return z.grad

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        for _ in range(5):
            if read is by_run:
                scope.run(look, IDS)
            else:
                with scope.trace(IDS):
                    look(scope)
    finally:
        reading.set()
        thread.join()
    assert not wrong and torch.Tensor.grad is own


def test_an_error_in_a_backward_block_leaves_tensor_grad_alone(scope):
    own = torch.Tensor.grad
    with pytest.raises(RuntimeError, match="mine"), scope.trace(IDS), scope.logits.sum().backward():
        raise RuntimeError("mine")
    assert torch.Tensor.grad is own


def test_nnsight_elsewhere_is_untouched(scope):
    import nnsight

    model = random_gpt2(seed=3)
    by_trace(scope, "logits")
    with nnsight.NNsight(model).trace(IDS) as tracer:
        stream = tracer.envoy.transformer.h[0].output
        logits = tracer.envoy.output.logits.save()
        with logits.sum().backward():
            gradient = stream.grad.save()
    assert gradient.shape == (3, 12, 24) and torch.allclose(logits, model(IDS).logits, atol=1e-5)


def test_a_model_that_nnsight_wraps_is_traced_all_the_same():
    import nnsight

    model = random_gpt2()
    wrapped, scope = nnsight.NNsight(model), ts.Scope(model)
    with scope.trace(IDS):
        scope.layers[0].attn.z = 0
        edited = scope.logits
    assert torch.allclose(
        edited, ts.Scope(random_gpt2()).record(IDS, "logits", edits={"layers.0.attn.z": lambda z: z * 0})["logits"], atol=1e-5
    )
    with wrapped.trace(IDS):
        logits = wrapped.output.logits.save()
    assert torch.allclose(logits, model(IDS).logits, atol=1e-5)


@pytest.mark.parametrize("outer", ["trace", "run"])
@WAYS
def test_a_trace_inside_a_trace_of_the_same_model_is_refused(scope, read, outer):
    with pytest.raises(ValueError, match="the model is in the middle of a run"):
        if outer == "run":
            scope.run(lambda s: read(ts.Scope(s.model), "logits"), IDS)
        else:
            with scope.trace(IDS):
                read(scope, "logits")
    assert torch.allclose(read(scope, "logits"), scope.record(IDS, "logits")["logits"], atol=1e-5)


def test_a_trace_inside_a_trace_of_another_model(scope):
    other = ts.Scope(random_gpt2(seed=5))
    with scope.trace(IDS):
        stream = scope.layers[0].resid_post
        with other.trace(IDS):
            other.layers[0].resid_post = stream
            mixed = other.logits
        own = scope.logits
    edits = {"layers.0.resid_post": lambda x: stream.detach()}
    assert torch.allclose(mixed, other.record(IDS, "logits", edits=edits)["logits"], atol=1e-5)
    assert torch.allclose(own, scope.record(IDS, "logits")["logits"], atol=1e-5)


def test_a_trace_of_a_part_inside_a_trace_of_the_whole(scope):
    inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    whole, part, x = (
        ts.Scope(torch.nn.Sequential(inner, torch.nn.Linear(4, 2))),
        ts.Scope(inner),
        ts.Samples.tensors(torch.ones(2, 4)),
    )
    with whole.trace(x):
        with part.trace(x):
            part.write("0", part.live("0") * 2)
            changed = part.live("1")
        own = whole.live("0.1")
    assert torch.allclose(changed, torch.tanh(2 * inner[0](torch.ones(2, 4)))) and torch.allclose(own, inner(torch.ones(2, 4)))
    body = ts.Scope(scope.model.transformer)
    with pytest.raises(ValueError, match="parts of the model are in the middle of a run of another model"), scope.trace(IDS):
        by_trace(body, "layers.0.attn.z")
    assert torch.allclose(by_trace(scope, "logits"), scope.record(IDS, "logits")["logits"], atol=1e-5)


def test_threads_take_turns(scope):
    expected = {k: scope.losses(IDS, edits={"layers.0.attn.z": lambda z, k=k: z * k}) for k in (0.0, 0.5, 2.0)}
    wrong = []

    def work(k, way):
        def edit(s):
            s.layers[0].attn.z *= k
            return s.logits.detach()

        for _ in range(8):
            if way is by_run:
                logits = scope.run(edit, IDS)
            else:
                with scope.trace(IDS):
                    logits = edit(scope)
            losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none").mean(1)
            wrong.append(not torch.allclose(losses, expected[k], atol=1e-5))

    threads = [threading.Thread(target=work, args=(k, way)) for k in expected for way in (by_trace, by_run)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 48 and not any(wrong)


def test_a_site_is_not_live_in_another_thread(scope):
    said = []

    def look():
        try:
            scope.logits
        except ValueError as error:
            said.append(str(error))

    with scope.trace(IDS):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert said and "logits is live only inside" in said[0]


class Holder:
    def __init__(self, scope):
        self.scope = scope

    def method(self):
        with self.scope.trace(IDS):
            self.found = self.scope.logits
        return self.found

    def generator(self):
        with self.scope.trace(IDS):
            yield self.scope.layers[0].attn.z
            yield self.scope.logits


def test_in_functions_loops_methods_comprehensions_and_generators(scope):
    sites = ["layers.0.attn.z", "layers.1.mlp.out", "logits"]
    expected = scope.record(IDS, sites)
    found = {}
    for site in sites:
        with scope.trace(IDS):
            found[site] = scope.live(site)
    for values in (found, {s: by_trace(scope, s) for s in sites}, {s: by_run(scope, s) for s in sites}):
        assert all(torch.allclose(values[s], expected[s], atol=1e-5) for s in sites)
    holder = Holder(scope)
    assert torch.allclose(holder.method(), expected["logits"], atol=1e-5)
    z, logits = holder.generator()
    assert torch.allclose(z, expected["layers.0.attn.z"], atol=1e-5) and torch.allclose(logits, expected["logits"], atol=1e-5)
    with (
        scope.trace(
            IDS,
        ),
        torch.no_grad(),
    ):
        assert torch.allclose(scope.logits, expected["logits"], atol=1e-5)


def test_a_generator_that_is_given_up_frees_the_model(scope):
    walk = Holder(scope).generator()
    next(walk)
    walk.close()
    assert scope.losses(IDS).isfinite().all()


START = """
import sys; sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
import tensorscope_nb as ts
from tiny_models import random_gpt2
IDS = torch.arange(12)[None]
scope = ts.Scope(random_gpt2())
expected = scope.record(IDS, ["layers.0.attn.z", "logits"])
def right(x, site="logits"): assert torch.allclose(x, expected[site], atol=1e-5), site
"""
CELLS = [
    "%%time\nwith scope.trace(IDS):\n    timed = scope.logits",
    "right(timed); value = scope.run(lambda s: s.logits, IDS); right(value)",
    "%%capture shown\nwith scope.trace(IDS):\n    x = scope.logits\nprint('ok')",
    "right(x); x = 'stale'",
    "with scope.trace(IDS):\n    x = scope.layers[0].attn.z",
    "right(x, 'layers.0.attn.z')",
    "%timeit -n1 -r1 scope.run(lambda s: s.logits, IDS)",
    "%load_ext autoreload\n%autoreload 2",
    "open(folder + '/cells.py', 'w').write('def f(scope, ids):\\n    with scope.trace(ids):\\n        x = scope.logits\\n    return x\\n')\nimport cells\nright(cells.f(scope, IDS))",
    # two functions change places: where a block is found by its line, each now runs the other's
    "import time, os; open(folder + '/cells.py', 'w').write('def g(scope, ids):\\n    with scope.trace(ids):\\n        x = scope.logits\\n    return x\\n\\ndef f(scope, ids):\\n    with scope.trace(ids):\\n        x = scope.layers[0].attn.z\\n    return x\\n'); os.utime(folder + '/cells.py', (time.time() + 5,) * 2)",
    "right(cells.f(scope, IDS), 'layers.0.attn.z'); right(cells.g(scope, IDS))",
    "with scope.trace(IDS):\n    with scope.logits.sum().backward():\n        pass",
]


def python(*arguments, text, cwd):
    done = subprocess.run([sys.executable, *arguments], input=text, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_in_ipython_cells(tmp_path):
    code = START.format(tests=str(TESTS)) + (
        f"from IPython.core.interactiveshell import InteractiveShell\n"
        f"shell = InteractiveShell.instance(); folder = {str(tmp_path)!r}; sys.path.insert(0, folder)\n"
        f"shell.push(dict(scope=scope, IDS=IDS, right=right, folder=folder, torch=torch))\n"
        f"for cell in {CELLS!r}:\n"
        f"    result = shell.run_cell(cell, store_history=True)\n"
        f"    assert result.success, (cell, result.error_before_exec, result.error_in_exec)\n"
        f"print('all', len({CELLS!r}))\n"
    )
    path = tmp_path / "cells_of_a_notebook.py"
    path.write_text(code)
    assert f"all {len(CELLS)}" in python(str(path), text="", cwd=TESTS.parent)


@pytest.mark.parametrize("how", ["script", "stdin"])
def test_in_a_plain_script(how, tmp_path):
    code = START.format(tests=str(TESTS)) + (
        "with scope.trace(IDS):\n    z = scope.layers[0].attn.z.save()\nright(z, 'layers.0.attn.z')\n"
        "right(scope.run(lambda s: s.logits, IDS))\nprint('done')\n"
    )
    path = tmp_path / "script.py"
    path.write_text(code)
    assert "done" in (
        python(str(path), text="", cwd=TESTS.parent) if how == "script" else python("-", text=code, cwd=TESTS.parent)
    )
