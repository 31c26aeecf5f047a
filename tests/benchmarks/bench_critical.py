"""Ranking the weights of a 124M-shaped model against one bare forward and backward of the same samples."""

import sys
import time
from functools import partial
from pathlib import Path

import torch
from bench_gradients import bare_pass
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.numerics.ranked import Largest
from tensorscope_nb.recipes.sensitivity import BLOCK

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

TOP = 500


def scan(scope):
    """Seconds of one pass through the weights, with gradients that are there."""
    weights = [p.detach().flatten() for p in scope.model.parameters()]
    gradients = [torch.randn_like(w) for w in weights]
    start = time.process_time()
    top, first = Largest(TOP), 0
    for w, g in zip(weights, gradients, strict=True):
        for at in range(0, len(w), BLOCK):
            scores = (w[at : at + BLOCK] * g[at : at + BLOCK]).abs()
            if float(scores.amax()) > top.bound:
                top.add(scores, first + at)
        first += len(w)
    return time.process_time() - start


def main(n=32, rounds=5):
    torch.manual_seed(0)
    scope = ts.Scope(GPT2LMHeadModel(GPT2Config()).eval())
    samples = ts.Samples.tokens(torch.randint(0, 50257, (n, 64)))
    print(f"124M, top {TOP}: one pass through the weights, seconds {scan(scope):.2f}", flush=True)
    rank = partial(ts.recipes.critical_weights, scope, samples, top=TOP, chunk=n, progress=False)
    with ts.options(memory=8 * 2**30):
        calls = {"without intervals": partial(rank, intervals=False), "with 14 halves": partial(rank, intervals=True)}
        found = ratios(bare_pass(scope, samples), calls, rounds, clock=time.process_time)
    for what, value in found.items():
        goal = "<= 1.1" if what == "without intervals" else "-"
        print(line(f"124M, {n} x 64 tokens: ranking {what} / forward and backward, CPU", value, goal), flush=True)


if __name__ == "__main__":
    main()
