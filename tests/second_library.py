"""Eigenvalues of curvature by other libraries: run as a program, it prints those of the models that it is told as JSON.

They run in a process of their own: what they bring along is noticed by torch and transformers, which then work differently.
"""

import json
import sys

import torch
from curved_models import perceptron
from scipy.sparse.linalg import eigsh
from tiny_models import Logits, random_gpt2
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import tensorscope_nb as ts

K = 3
TOLERANCE = 1e-5  # of a residual: an eigenvalue is off by about its square
STEPS = 45  # of Lanczos without restarts: enough for these models
ENDS = (("hessian", "LA"), ("hessian", "SA"), ("ggn", "LA"), ("fisher", "LA"))


def language(norm=True):
    model = random_gpt2(vocab_size=20, n_embd=12, n_layer=2, n_head=2, n_positions=10)
    model.config.pad_token_id = None  # a warning about it would look at the tokens, which vmap does not allow
    if not norm:
        for block in model.transformer.h:
            block.ln_1 = block.ln_2 = nn.Identity()
        model.transformer.ln_f = nn.Identity()
    ids = torch.randint(1, 20, (6, 9), generator=torch.Generator().manual_seed(0))
    return ts.Scope(model.double()), ts.Samples.tokens(ids)


MODELS = {
    "perceptron": lambda: perceptron(norm=False),
    "perceptron with LayerNorm": perceptron,
    "language model": lambda: language(norm=False),
    "language model with LayerNorm": language,
}


def supervised(scope, samples):
    """The model, its inputs, and the classes that it is to name."""
    if samples.has_tokens:
        return Logits(scope.model), samples.input_ids, samples.input_ids[:, 1:]
    return scope.model, samples.inputs["x"], samples.labels


def curvlinops_operator(matrix, model, x, y):
    """Its empirical Fisher is that of single tokens."""
    import curvlinops

    kinds = {"hessian": "HessianLinearOperator", "ggn": "GGNLinearOperator", "fisher": "EFLinearOperator"}
    of = getattr(curvlinops, kinds[matrix])
    return of(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], check_deterministic=False)


def eigenthings_operator(matrix, model, x, y):
    """Its empirical Fisher is that of sequences."""
    import hessian_eigenthings as other

    loss = nn.CrossEntropyLoss()
    if matrix == "hessian":
        return other.HessianOperator(model, [(x, y)], other.supervised_loss(loss))
    if matrix == "ggn":
        return other.GGNOperator(model, [(x, y)], other.supervised_forward, other.supervised_loss_of_output(loss))
    return other.EmpiricalFisherOperator(model, [(x, y)], lambda m, sample: loss(m(sample[0][None]), sample[1][None]))


def by_scipy(operator, k, which, tolerance):
    """Eigenvalues, descending, and their vectors as rows; of an operator that is not symmetric they depend on the start."""
    start = torch.randn(operator.shape[0], dtype=operator.dtype, generator=torch.Generator().manual_seed(0)).numpy()
    values, vectors = eigsh(operator.to_scipy(start.dtype), k, which=which, tol=tolerance, v0=start)
    order = values.argsort()[::-1]
    return values[order], vectors.T[order]


def by_eigenthings(operator, k, which, steps, **options):
    """The same; without restarts, it takes all the steps that it is given."""
    from hessian_eigenthings import lanczos

    found = lanczos(operator, k=k, max_iter=min(steps, operator.size), which=which, seed=0, **options)
    order = found.eigenvalues.argsort(descending=True)
    return found.eigenvalues[order].detach().numpy(), found.eigenvectors[order].detach().numpy()


def main(*names):
    found = {}
    for name in names:
        given = supervised(*MODELS[name]())
        for matrix, which in ENDS:
            with sdpa_kernel(SDPBackend.MATH):
                scipy = by_scipy(curvlinops_operator(matrix, *given), K, which, TOLERANCE)
                eigenthings = by_eigenthings(eigenthings_operator(matrix, *given), K, which, STEPS, reorthogonalize=True)
            found[f"{name}: {matrix} {which}"] = {"curvlinops": scipy[0].tolist(), "hessian_eigenthings": eigenthings[0].tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
