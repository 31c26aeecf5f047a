"""Singularities of a large vocabulary against a bare pass over its distances, and the cost of superposition."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.numerics.neighbours import COPIES, MOST_ROWS
from tensorscope_nb.numerics.spacings import nulls

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line

MB = 2**20
MEMORY = 256 * MB


def rows_of(n, d):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def seconds(call):
    """Of CPU time, with one thread: what else the machine does is left out."""
    start = time.process_time()
    call()
    return time.process_time() - start


def bare_pass(points, block):
    """All distances in blocks, and nothing kept of them but the smallest."""
    squares = points.square().sum(1)
    for part in points.split(block):
        torch.addmm(squares, part, points.T, alpha=-2).amin(1)


def singularities(n, d):
    """In a process of its own: its peak memory is that of this."""
    points = rows_of(n, d)
    block = min(MOST_ROWS, MEMORY // (COPIES * 4 * n))
    window = {"k_min": 10, "k_max": 100}
    nulls(90)
    with ts.options(memory=MEMORY, progress=False):
        ts.recipes.fiber_bundle_test(points[:1000], surrogate=False, **window)
        before = peak()
        floor = seconds(lambda: bare_pass(points, block))
        bare = peak() - before
        taken = seconds(lambda: ts.recipes.fiber_bundle_test(points, surrogate=False, **window))
    held = points.nbytes / MB
    what = f"{n:,} x {d}: singularities / bare pass of distances"
    print(
        line(what, taken / floor, "<= 1.6" if n == 50_000 and d == 768 else "-"), f"  {taken:.1f} s / {floor:.1f} s", flush=True
    )
    print(
        f"    memory option {MEMORY / MB:.0f} MB, points {held:.0f} MB: peak {peak() - before:.0f} MB above them "
        f"(bare pass {bare:.0f} MB), {4 * n * 100 / MB:.0f} MB of it neighbours",
        flush=True,
    )


def superposition():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scope = ts.Scope(GPT2LMHeadModel(GPT2Config()).eval())
    samples = ts.Samples.tokens(torch.randint(50257, (8, 64), generator=torch.Generator().manual_seed(0)))
    with ts.options(progress=False):
        weights = seconds(lambda: ts.recipes.superposition(scope))
        forward = seconds(lambda: scope.record(samples, "layers.*.mlp.post"))
        both = seconds(lambda: ts.recipes.superposition(scope, samples))
    print(f"superposition of 124M: weights {weights:.1f} s; with 8 x 64 tokens {both:.1f} s, a forward of them {forward:.1f} s")


def main() -> None:
    torch.set_num_threads(1)
    superposition()
    for n, d in ((6_000, 768), (12_500, 768), (25_000, 768), (50_000, 96), (50_000, 384), (50_000, 768)):
        subprocess.run([sys.executable, __file__, str(n), str(d)], check=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    singularities(*map(int, sys.argv[1:3]))
