"""``scope.record`` of all residual streams, and of all patterns, against the bare forward of the same inputs."""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.scope.forward import inputs

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios


def _report(name, scope, samples, rounds, goal):
    chunk = len(samples)
    batch = inputs(samples, scope.anatomy, "cpu", torch.float32)

    def bare():
        with torch.no_grad():
            return scope.model(**batch).logits

    found = ratios(
        bare,
        {
            "again": bare,
            "streams": lambda: scope.record(samples, "layers.*.resid_post", chunk=chunk),
            "patterns": lambda: scope.record(samples, "layers.*.attn.pattern", chunk=chunk),
        },
        rounds,
    )
    print(line(f"{name}: the bare forward again (the noise)", found["again"], "1"))
    print(line(f"{name}: record all residual streams / bare forward", found["streams"], goal))
    print(line(f"{name}: record all attention patterns / bare forward (SDPA)", found["patterns"], "-"))


def main() -> None:
    torch.set_num_threads(1)
    tiny = ts.load("tiny")
    _report("tiny, 32 x 128", tiny, ts.datasets.shakespeare(tiny, n=32, length=128), 41, "<= 1.10")
    model = GPT2LMHeadModel(GPT2Config()).eval()  # 124M parameters
    ids = torch.randint(50257, (4, 128), generator=torch.Generator().manual_seed(0))
    _report("124M, 4 x 128", ts.Scope(model), ts.Samples.tokens(ids), 13, "<= 1.05")
