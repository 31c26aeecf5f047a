"""Similarities of layers as three other libraries find them."""

import numpy as np
import pytest
import second_representations
from other_libraries import found_by
from second_representations import LIBRARIES, given, models

import tensorscope_nb as ts

cka, similarity = ts.recipes.linear_cka, ts.recipes.representational_similarity


@pytest.fixture(scope="module")
def others():
    return found_by(second_representations, LIBRARIES)


def ours(recipe, name, **options):
    scopes = [ts.Scope(model) for model in models()[name]]
    samples = ts.Samples.tensors(given(name)) if name == "perceptrons" else ts.Samples.tokens(given(name))
    with ts.options(progress=False):
        return next(iter(recipe(*scopes, samples, tokens="mean", **options).data_vars.values())).values


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perceptrons", "language models"])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_repsim_finds_the_same_cka_of_rows(others, name, estimator):
    assert np.allclose(ours(cka, name, estimator=estimator), others[f"repsim: {name}: {estimator}"], atol=1e-6)


@pytest.mark.slow
def test_pytorch_cka_finds_the_same_from_the_models_themselves(others):
    """In one batch of all samples, and with values below 0 shown as 0."""
    theirs = np.array(others["pytorch-cka: perceptrons: unbiased"])
    assert (theirs > 0.05).all()
    assert np.allclose(ours(cka, "perceptrons"), theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perceptrons", "language models"])
def test_rsatoolbox_finds_the_same_similarities(others, name):
    for distance in ("correlation", "euclidean"):  # theirs are squared, which ranks do not see
        assert np.allclose(ours(similarity, name, distance=distance), others[f"rsatoolbox: {name}: {distance}"], atol=1e-5)
    assert np.allclose(ours(similarity, name, compare="pearson"), others[f"rsatoolbox: {name}: pearson"], atol=1e-6)
