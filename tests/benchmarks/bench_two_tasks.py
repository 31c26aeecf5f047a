"""Everything about two tasks in one sweep, against each recipe alone, one bare pass, and the heatmap as a Python loop."""

import sys
import warnings
from pathlib import Path

import torch

import tensorscope_nb as ts
from tensorscope_nb.scope.forward import inputs

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

R = ts.recipes
ALL = [R.gradient_conflict, R.gradient_alignment, R.fisher_overlap, R.sample_conflicts, R.qkov_interference]


def bare_pass(scope, samples):
    parts = [samples[start : start + 64] for start in range(0, len(samples), 64)]
    batches = [inputs(part, scope.anatomy, "cpu", torch.float32) for part in parts]
    parameters = list(scope.model.parameters())

    def run():
        for part, batch in zip(parts, batches, strict=True):
            losses = scope.rule.per_sample(scope.model(**batch).logits, part)
            torch.autograd.grad(losses.sum(), parameters)

    return run


def together(scope, samples, recipes=ALL):
    return lambda: ts.Study(scope, samples).run(*recipes)


def heatmap_loop(scope, a, b):
    """For every two samples, layer, head and block: C_i / (max(Î, ε) + λ) · |g_j|, from cached gradients."""
    g_a, g_b = scope.per_sample_gradients(a), scope.per_sample_gradients(b)
    squares = {name: g**2 for name, g in g_a.items()}
    fisher = {name: c.mean(0).clamp(min=1e-10) + 1e-8 for name, c in squares.items()}
    scores = torch.zeros(4, scope.anatomy.n_layers, scope.anatomy.n_heads, len(a), len(b))
    for k, block in enumerate("QKVO"):
        for layer in range(scope.anatomy.n_layers):
            for head in range(scope.anatomy.n_heads):
                piece = scope.anatomy.slice(layer, block, head)
                for i in range(len(a)):
                    for j in range(len(b)):
                        whitened = piece.of(squares[piece.parameter][i]) / piece.of(fisher[piece.parameter])
                        scores[k, layer, head, i, j] = (whitened * piece.of(g_b[piece.parameter][j]).abs()).sum()
    return scores


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scope = ts.load("tiny")
    a, b = ts.datasets.shakespeare(scope, n=64), ts.datasets.code(scope, n=64)
    both = a + b
    with ts.options(progress=False):

        def alone():
            for recipe in ALL:
                recipe(scope, a, b)

        shared = ratios(alone, {"shared": together(scope, both)}, 9)["shared"]
        print(line("tiny, 64 + 64 x 64: five recipes in one sweep / the five alone", shared, "<= 0.3"), flush=True)
        without = [recipe.using(tokens=0) if recipe is R.sample_conflicts else recipe for recipe in ALL]
        calls = {"all": together(scope, both), "all but tokens": together(scope, both, without)}
        for what, value in ratios(bare_pass(scope, both), calls, 9).items():
            print(line(f"tiny, 64 + 64 x 64: {what} / forward and backward", value, "<= 2"), flush=True)

        def ours():
            return R.qkov_interference(scope, a[:32], b[:32], mode="magnitude")

        loop = heatmap_loop(scope, a[:32], b[:32])
        assert torch.allclose(loop.double(), torch.tensor(ours()["pair_score"].values), rtol=1e-3)
        value = ratios(ours, {"loop": lambda: heatmap_loop(scope, a[:32], b[:32])}, 5)["loop"]
        print(line("tiny, 32 x 32 samples: the heatmap as a Python loop / ours", value, "-"), flush=True)


if __name__ == "__main__":
    main()
