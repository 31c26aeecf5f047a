"""The gradient sweep against one bare forward and backward of the same samples, and six recipes shared against alone."""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.recipes.groups import ByHead, ByModule
from tensorscope_nb.scope.forward import inputs
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.reducers import Diagonal, Gram, Masses

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios


def _report(name, scope, samples, rounds, goals):
    n, batch = len(samples), inputs(samples, scope.anatomy, "cpu", torch.float32)
    parameters = list(scope.model.parameters())

    def bare():
        losses = scope.rule.per_sample(scope.model(**batch).logits, samples)
        torch.autograd.grad(losses.sum(), parameters)

    def sweep(*reducers):
        gradient_sweep(scope, samples, reducers, chunk=n, progress=False)

    calls = {
        "masses by module and head": lambda: sweep(Masses(n, ByModule(scope).of), Masses(n, ByHead(scope).of)),
        "diagonal": lambda: sweep(Diagonal()),
        "Gram": lambda: sweep(Gram()),
    }
    if rounds > 5:
        calls["one backward per sample"] = lambda: scope.per_sample_gradients(samples)
    for what, value in ratios(bare, calls, rounds).items():
        print(line(f"{name}: {what} / forward and backward", value, goals.get(what, "-")))


def main() -> None:
    torch.set_num_threads(1)
    tiny = ts.load("tiny")
    goals = {"masses by module and head": "<= 1.2", "diagonal": "<= 1.2", "Gram": "<= 1.4"}
    _report("tiny, 32 x 128", tiny, ts.datasets.shakespeare(tiny, n=32, length=128), 11, goals)
    samples = ts.datasets.shakespeare(tiny, n=32, length=64)
    r = ts.recipes
    six = [
        r.grouped_fisher,
        r.grouped_fisher.using(granularity="head", name="heads"),
        r.grouped_fisher.using(granularity="layer", name="layers"),
    ]
    six += [r.fisher_spectrum, r.gradient_health, r.grouped_fisher.using(granularity="channel", name="channels")]
    shared = ratios(lambda: [recipe(tiny, samples) for recipe in six], {"shared": lambda: ts.Study(tiny, samples).run(*six)}, 7)
    print(line("tiny: six recipes in one Study / the six alone", shared["shared"], "<= 0.28"))
    model = GPT2LMHeadModel(GPT2Config()).eval()
    ids = torch.randint(50257, (32, 64), generator=torch.Generator().manual_seed(0))
    large = {"masses by module and head": "<= 0.85", "diagonal": "<= 1.2", "Gram": "<= 1.4"}
    _report("124M, 32 x 64", ts.Scope(model), ts.Samples.tokens(ids), 2, large)
