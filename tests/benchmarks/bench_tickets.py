"""Iterative magnitude pruning beside a plain loop that trains as often, with no mask and nothing looked at."""

import copy
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import tensorscope_nb as ts
from tensorscope_nb.numerics.schedule import kept_counts
from tensorscope_nb.recipes.training import Batches

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

SPARSITIES = (0.36,)  # two rounds


def classes(model, part):
    return cross_entropy(model(part["x"]), part["y"])


def language(model, part):
    logits = model(input_ids=part["x"], use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), part["x"][:, 1:].flatten())


def parts(samples, seed):
    """The batches of each step, as they are cut for the default."""
    batches = Batches(samples, torch.ones(len(samples)), 32, seed)

    def at(step):
        part, _ = batches.at(step)
        return {"x": part.inputs["input_ids" if part.has_tokens else "x"], "y": part.labels}

    return at


def plain(scope, samples, loss_of, steps, optimizer):
    """As many trainings as there are rounds; the order of the samples is ours, and costs what an order costs."""
    weights = sum(p.nelement() for p in scope.model.parameters() if p.ndim >= 2)
    n = len(kept_counts(weights, SPARSITIES, 0.2)[0])

    def run():
        for _ in range(n):
            model = copy.deepcopy(scope.model).train()
            made, at = optimizer(model.parameters()), parts(samples, 0)
            for step in range(steps):
                loss = loss_of(model, at(step))
                made.zero_grad()
                loss.backward()
                made.step()

    return run


def beside(name, scope, samples, test, loss_of, steps, rounds):
    adam = partial(torch.optim.Adam, lr=2e-3)
    options = {"sparsities": SPARSITIES, "train_steps": steps, "test": test, "controls": False}
    ours = partial(ts.recipes.iterative_magnitude_pruning, scope, samples, **options)

    def train_fn(copy_of, train, which, seed):
        made, at = adam(copy_of.model.parameters()), parts(train, seed)
        for step in which:
            loss = loss_of(copy_of.model, at(step))
            made.zero_grad()
            loss.backward()
            made.step()

    calls = {
        "the default": ours,
        "optimizer=torch.optim.Adam, as the loop": partial(ours, optimizer=adam),
        "train_fn= with the loop": partial(ours, train_fn=train_fn),
        "a plain loop with a fused Adam": plain(scope, samples, loss_of, steps, partial(adam, fused=True)),
    }
    for what, value in ratios(plain(scope, samples, loss_of, steps, adam), calls, rounds, time.process_time).items():
        print(line(f"{name}: {what} / loop", value, "-" if "plain" in what else "<= 1.1"), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    with ts.options(progress=False):
        digits, tiny = ts.load("digits", checkpoint=0), ts.load("tiny", checkpoint=0)
        images = ts.datasets.digits(split="train"), ts.datasets.digits(split="test")
        beside("digits, 1000 steps", digits, *images, classes, 1000, 5)
        prose = (ts.datasets.shakespeare(tiny, n=n, length=64, split=split) for n, split in ((64, "train"), (2, "test")))
        beside("tiny, 10 steps of 32 x 64", tiny, *prose, language, 10, 3)


if __name__ == "__main__":
    main()
