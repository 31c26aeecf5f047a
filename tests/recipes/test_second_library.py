"""Eigenvalues of the loss's curvature as two other libraries find them, and a dense matrix where those differ."""

import numpy as np
import pytest
import second_library
import torch
from curved_models import at_weights, flat_weights
from other_libraries import found_by
from second_library import ENDS, MODELS, K
from torch.func import functional_call

import tensorscope_nb as ts

AGREEMENT = 1e-4  # relative
LIBRARIES = ("curvlinops", "hessian_eigenthings")


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def by_others(*names):
    """What they find for these models, by matrix and end."""
    return found_by(second_library, LIBRARIES, *names)


def ours(name, matrix, which, **options):
    """All losses count alike per token, as CrossEntropyLoss has them."""
    options = {"k": K, "tolerance": 1e-6, "reduction": "sum"} | options
    scope, samples = MODELS[name]()
    if matrix == "hessian":
        return ts.recipes.hessian_eigenvalues(scope, samples, which=which, **options)["eigenvalue"].values
    kind = {"ggn": "ggn", "fisher": "empirical"}[matrix]
    return ts.recipes.fisher_eigenvalues(scope, samples, kind=kind, **options)["eigenvalue"].values


def off(found, truth):
    return float(abs(np.array(found) / truth - 1).max())


@pytest.mark.slow
def test_two_other_libraries_find_the_same_eigenvalues():
    others = by_others(*MODELS)
    for name in MODELS:
        for matrix, which in ENDS:
            found, language = others[f"{name}: {matrix} {which}"], "language" in name
            for library in LIBRARIES:
                if library == "curvlinops" and matrix == "hessian" and "LayerNorm" in name:
                    continue  # see below
                options = {}
                if matrix == "fisher" and language:  # one takes gradients of tokens, the other of mean losses of sequences
                    options = {"sample_unit": "token"} if library == "curvlinops" else {"reduction": "mean"}
                assert off(found[library], ours(name, matrix, which, **options)) < AGREEMENT, (name, matrix, which, library)


def test_where_they_differ_the_dense_matrix_is_ours():
    """The dense one by differences of gradients in double precision, which need no second derivative of anyone.

    curvlinops puts forward mode into a reverse pass, and torch's second derivatives of LayerNorm are wrong that way.
    """
    name = "perceptron with LayerNorm"
    scope, samples = MODELS[name]()
    at, step = flat_weights(scope), 1e-5

    def gradient(weights):
        weights = weights.clone().requires_grad_()
        outputs = functional_call(scope.model, at_weights(scope, weights), (samples.inputs["x"],))
        return torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, samples.labels), weights)[0]

    rows = [(gradient(at + step * e) - gradient(at - step * e)) / (2 * step) for e in torch.eye(len(at), dtype=at.dtype)]
    dense = torch.stack(rows)
    assert float((dense - dense.T).abs().max()) < 1e-8
    values = torch.linalg.eigvalsh(dense).flip(0).numpy()
    others = by_others(name)
    for which, truth in (("LA", values[:K]), ("SA", values[-K:])):
        found = others[f"{name}: hessian {which}"]
        assert off(ours(name, "hessian", which), truth) < 1e-6
        assert off(found["hessian_eigenthings"], truth) < 1e-6
        assert off(found["curvlinops"], truth) > AGREEMENT, "right by now: compare it like the others"
