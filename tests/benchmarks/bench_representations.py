"""The matrix of all layers against all, beside a loop over pairs of layers, and beside bare forwards of both models."""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.scope.forward import inputs

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

LAYERS, WIDTH, VOCABULARY = 12, 192, 500


def model(seed):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=LAYERS, n_head=8, bos_token_id=0, eos_token_id=0
    )
    return ts.Scope(GPT2LMHeadModel(config).eval())


def forwards(scopes, samples):
    batches = [[inputs(samples[i : i + 64], s.anatomy, "cpu", torch.float32) for i in range(0, len(samples), 64)] for s in scopes]

    def run():
        with torch.no_grad():
            for scope, parts in zip(scopes, batches, strict=True):
                for part in parts:
                    scope.model(**part)

    return run


def loop(scopes, samples):
    """For every two layers: both models again, the two kernels, and the unbiased HSIC of all rows three times."""

    def hsic(k, l):
        n = len(k)
        k, l = k - torch.diag(k.diagonal()), l - torch.diag(l.diagonal())
        inner = (k * l).sum() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(1) @ l.sum(1) / (n - 2)
        return inner / (n * (n - 3))

    def run():
        found = np.zeros((LAYERS, LAYERS))
        for i in range(LAYERS):
            for j in range(LAYERS):
                sites = (f"layers.{i}.resid_post", f"layers.{j}.resid_post")
                x, y = (s.record(samples, site)[site].double().flatten(0, 1) for s, site in zip(scopes, sites, strict=True))
                k, l = x @ x.T, y @ y.T
                found[i, j] = hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
        return found

    return run


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scopes = model(0), model(1)
    few, many = (
        ts.Samples.tokens(torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(0)))
        for shape in ((6, 32), (16, 64))
    )
    with ts.options(progress=False):
        value = ratios(lambda: ts.recipes.linear_cka(*scopes, few), {"loop": loop(scopes, few)}, 1)["loop"]
        print(line("12 x 12 layers, 6 x 32 tokens: a loop over pairs / ours", value, ">= 20"), flush=True)
        calls = {
            "tokens='all'": lambda: ts.recipes.linear_cka(*scopes, many),
            "tokens='mean'": lambda: ts.recipes.linear_cka(*scopes, many, tokens="mean"),
            "similarity": lambda: ts.recipes.representational_similarity(*scopes, many),
        }
        for what, value in ratios(forwards(scopes, many), calls, 3).items():
            print(
                line(f"12 x 12 layers, 16 x 64 tokens: {what} / forwards of both", value, "<= 4" if "all" in what else "<= 2"),
                flush=True,
            )


if __name__ == "__main__":
    main()
