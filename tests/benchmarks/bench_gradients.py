"""The gradient sweep against one bare forward and backward of the same samples, and six recipes shared against alone."""

import copy
import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.recipes.groups import ByHead, ByModule
from tensorscope_nb.scope.forward import inputs
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.reducers import Gram, Masses, Sums

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

recipes = ts.recipes
SIX = [
    recipes.gradient_health,
    recipes.grouped_fisher,
    recipes.grouped_fisher.using(granularity="head", name="heads"),
    recipes.fisher_spectrum,
    recipes.fisher_importance,
    recipes.taylor_importance,
]


def bare_pass(scope, samples):
    batch, parameters = inputs(samples, scope.anatomy, "cpu", torch.float32), list(scope.model.parameters())

    def run():
        losses = scope.rule.per_sample(scope.model(**batch).logits, samples)
        torch.autograd.grad(losses.sum(), parameters)

    return run


def sweep(scope, samples, make):
    return lambda: gradient_sweep(scope, samples, make(scope), chunk=len(samples), progress=False)


SWEEPS = {
    "masses by module and head": lambda scope: [Masses(ByModule(scope)), Masses(ByHead(scope))],
    "diagonal": lambda scope: [Sums("squares")],
    "Gram": lambda scope: [Gram()],
    "all of these": lambda scope: [Masses(ByModule(scope)), Masses(ByHead(scope)), Sums("squares"), Sums(), Gram()],
}


def squares_by_loop(scope, samples):
    """The diagonal by one backward per sample."""
    parameters = list(scope.model.parameters())

    def run():
        total = [torch.zeros_like(p) for p in parameters]
        for i in range(len(samples)):
            batch = inputs(samples[i], scope.anatomy, "cpu", torch.float32)
            loss = scope.rule.per_sample(scope.model(**batch).logits, samples[i]).sum()
            for t, g in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                t.addcmul_(g, g)
        return total

    return run


def squares_by_vmap(scope, samples):
    model = copy.deepcopy(scope.model)
    model.config.pad_token_id = None  # a warning about it would look at the tokens, which vmap does not allow
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p, ids):
        logits = functional_call(model, p, (ids[None],), {"use_cache": False}).logits[0, :-1]
        return torch.nn.functional.cross_entropy(logits, ids[1:])

    def run():
        with sdpa_kernel(SDPBackend.MATH):
            found = vmap(grad(loss), (None, 0))(parameters, samples.input_ids)
        return [(g**2).sum(0) for g in found.values()]

    return run


def against_bare(name, scope, samples, rounds, goals):
    calls = {what: sweep(scope, samples, make) for what, make in SWEEPS.items()}
    for what, value in ratios(bare_pass(scope, samples), calls, rounds).items():
        print(line(f"{name}: {what} / forward and backward", value, goals.get(what, "-")), flush=True)


def against_others(name, scope, samples, rounds, goal):
    """Other ways to the same diagonal, over the sweep."""
    calls = {"loop": squares_by_loop(scope, samples), "vmap(grad)": squares_by_vmap(scope, samples)}
    for what, value in ratios(sweep(scope, samples, SWEEPS["diagonal"]), calls, rounds).items():
        print(line(f"{name}: diagonal, {what} / sweep", value, goal if what == "loop" else ">= 1"), flush=True)


def squares_by_opacus(scope, samples):
    """Opacus captures in training mode only; without dropout that is the same function."""
    from opacus import GradSampleModule

    model = copy.deepcopy(scope.model)
    for module in model.modules():
        module.training = True
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    wrapped, batch = GradSampleModule(model, loss_reduction="sum"), inputs(samples, scope.anatomy, "cpu", torch.float32)

    def run():
        wrapped.zero_grad(set_to_none=True)
        scope.rule.per_sample(wrapped(**batch).logits, samples).sum().backward()
        return {n.removeprefix("_module."): (p.grad_sample**2).sum(0) for n, p in wrapped.named_parameters()}

    return run


def squares_by_backpack(scope, samples):
    """BackPACK extends sequences of the modules it knows; of a GPT-2 it would skip Conv1D and LayerNorm without a word."""
    import backpack

    model = backpack.extend(copy.deepcopy(scope.model))
    loss = backpack.extend(torch.nn.CrossEntropyLoss(reduction="sum"))

    def run():
        with backpack.backpack(backpack.extensions.SumGradSquared()):
            loss(model(samples.inputs["x"]), samples.labels).backward()
        found = {n: p.sum_grad_squared.clone() for n, p in model.named_parameters()}
        model.zero_grad()
        return found

    return run


def against_library(name, package, squares, scope, samples, rounds):
    """Another library's squares over the sweep's, and whether they are right."""
    if importlib.util.find_spec(package) is None:
        print(f"{name}: {package} is not installed")
        return
    run = squares(scope, samples)
    truth = {n: (g**2).sum(0) for n, g in scope.per_sample_gradients(samples).items()}
    found = run()
    wrong = [n for n, value in truth.items() if n not in found or not torch.allclose(found[n], value, rtol=1e-3, atol=1e-8)]
    said = f"wrong or missing: {', '.join(wrong)}" if wrong else "its numbers are right"
    value = ratios(sweep(scope, samples, SWEEPS["diagonal"]), {package: run}, rounds)[package]
    print(line(f"{name}: diagonal, {package} / sweep", value, ">= 1"), said, flush=True)


def perceptron():
    layers = [torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)]
    generator = torch.Generator().manual_seed(0)
    samples = ts.Samples.tensors(torch.rand(512, 64, generator=generator), torch.randint(10, (512,), generator=generator))
    return ts.Scope(torch.nn.Sequential(*layers)), samples


def six_shared(name, scope, samples, rounds, goal):
    def alone():
        for recipe in SIX:
            recipe(scope, samples, chunk=len(samples), progress=False)

    def shared():
        with ts.options(progress=False):
            ts.Study(scope, samples).run(*(recipe.using(chunk=len(samples)) for recipe in SIX))

    print(
        line(f"{name}: six recipes in one Study / the six alone", ratios(alone, {"shared": shared}, rounds)["shared"], goal),
        flush=True,
    )


def large():
    scope = ts.Scope(GPT2LMHeadModel(GPT2Config()).eval())
    return scope, ts.Samples.tokens(torch.randint(50257, (32, 64), generator=torch.Generator().manual_seed(0)))


def peak(what):
    """The most memory that a process of its own takes (MB)."""
    return int(subprocess.run([sys.executable, __file__, what], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    torch.set_num_threads(1)
    tiny = ts.load("tiny")
    goals = {"masses by module and head": "<= 1.2", "diagonal": "<= 1.2", "Gram": "<= 1.4"}
    against_bare("tiny, 32 x 128", tiny, ts.datasets.shakespeare(tiny, n=32, length=128), 15, goals)
    for length, goal in ((128, ">= 1.2"), (32, ">= 2.3"), (16, ">= 3")):
        against_others(f"tiny, 32 x {length}", tiny, ts.datasets.shakespeare(tiny, n=32, length=length), 9, goal)
    passages = ts.datasets.shakespeare(tiny, n=32, length=128)
    against_library("tiny, 32 x 128", "opacus", squares_by_opacus, tiny, passages, 7)
    against_library("MLP 64-256-256-10, 512 samples", "backpack", squares_by_backpack, *perceptron(), 7)
    six_shared("tiny, 32 x 64", tiny, ts.datasets.shakespeare(tiny, n=32, length=64), 9, "<= 0.28")
    scope, samples = large()
    goals = {"masses by module and head": "<= 0.85", "diagonal": "<= 1.2", "Gram": "<= 1.4"}
    against_bare("124M, 32 x 64", scope, samples, 2, goals)
    six_shared("124M, 32 x 64", scope, samples, 1, "<= 0.33")
    base = peak("bare")
    for what in SWEEPS:
        print(line(f"124M, 32 x 64: {what}, peak memory beyond the bare pass, MB", peak(what) - base, "<= 100"), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    scope, samples = large()
    (bare_pass(scope, samples) if sys.argv[1] == "bare" else sweep(scope, samples, SWEEPS[sys.argv[1]]))()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
