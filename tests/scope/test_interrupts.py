"""Ctrl-C at random moments: a real signal, in a process of its own, while the model is prepared, run, differentiated, restored."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
CODE = """
import os, random, signal, sys, threading, time, traceback
sys.path[:0] = [{tests!r}, {here!r}]
import pandas, torch; torch.set_num_threads(1)
import tensorscope_nb as ts
from test_state import IDS, equal, snapshot
from tiny_models import random_gpt2

sys.setswitchinterval(1e-5)
model = random_gpt2(resid_pdrop=0.1).train()
model.transformer.h[0].eval()
model(IDS, labels=IDS).loss.backward()
model.transformer.wpe.weight.requires_grad_(False)
model.generation_config.eos_token_id = None
scope = ts.Scope(model)
listed = pandas.DataFrame(dict(layer=["transformer.h.0.attn.c_attn"], indices=["(3, 7)"]))

def look(s):
    z = s.layers[0].attn.z
    s.layers[1].attn.pattern[:] = 0.1
    with s.logits.sum().backward():
        return z.grad

def trace():
    with scope.trace(IDS):
        look(scope)

def invokes():
    with scope.trace() as tracer:
        with tracer.invoke(IDS):
            scope.layers[0].attn.z
        with tracer.invoke(IDS):
            look(scope)

def generation():
    with scope.trace(IDS, max_new_tokens=3) as tracer:
        for step in tracer.iter[:]:
            scope.layers[0].attn.pattern

CALLS = dict(
    trace=trace, invokes=invokes, generation=generation, run=lambda: scope.run(look, IDS),
    record=lambda: scope.record(IDS, ["layers.*.attn.pattern", "layers.*.resid_post"], gradients=True, chunk=1),
    losses=lambda: scope.losses(IDS, chunk=1), ablation=lambda: ts.recipes.ablation(scope, IDS, progress=False),
    landscape=lambda: ts.recipes.loss_landscape(scope, IDS, n_points=3, normalize="none", progress=False),
    perturbation=lambda: ts.recipes.perturbation(scope, IDS, listed, controls=("random",), n_seeds=3, progress=False),
    sharpness=lambda: ts.recipes.sam_sharpness(scope, IDS, ascent_steps=3, progress=False),
)
rng, stopped = random.Random(0), 0
for name in sys.argv[1:]:
    call = CALLS[name]
    call(); start = time.perf_counter(); call(); seconds = time.perf_counter() - start
    for i in range(50):
        before = snapshot(model)
        delay = rng.random() * seconds
        thread = threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGINT)))
        try:
            thread.start()
            call()
            thread.join()
            time.sleep(0.01)
        except KeyboardInterrupt as interrupt:
            kept = interrupt  # with its frames: restoring must not wait for them to go
            files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(kept.__traceback__)]
            stopped += any("tensorscope_nb" in file for file in files)
        thread.join()
        after = snapshot(model)
        wrong = [part for part in before if part != "random" and not equal(before[part], after[part])]
        assert not wrong and scope.tracer is None, (name, i, wrong)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        other = threading.Thread(target=lambda: scope.losses(IDS))  # the lock is free
        other.start(); other.join(10)
        assert not other.is_alive(), (name, i)
    call()
print("stopped", stopped)
"""


def test_fifty_interrupts_leave_the_model_as_it_was():
    names = ["trace", "invokes", "generation", "run", "record", "losses", "ablation", "landscape", "sharpness", "perturbation"]
    code = CODE.format(tests=str(TESTS), here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=TESTS.parent, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 250  # half of 50 for each of them, at the least, came while it ran
