"""Eigenvalues of the loss's curvature against dense truth, closed forms, and what is said of those that are not there yet."""

import copy
import json
import signal
import warnings

import numpy as np
import pytest
import torch
from curved_models import dense, perceptron, quadratic, with_spectrum
from model_zoo import CAUSAL
from tiny_models import random_gpt2
from torch import nn

import tensorscope_nb as ts
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.request import Unfinished

hessian, fisher = ts.recipes.hessian_eigenvalues, ts.recipes.fisher_eigenvalues


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def said(ds):
    return json.loads(ds.attrs["tensorscope"])


def language(n=6, **changes):
    model = random_gpt2(vocab_size=20, n_embd=12, n_layer=2, n_head=2, n_positions=10, **changes)
    ids = torch.randint(1, 20, (n, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return ts.Scope(model.double()), ts.Samples.tokens(ids, mask)


MLP = "*.h.1.mlp.*"  # a block that is small enough for a dense matrix
INDEFINITE = [9.0, 7.5, 4.0, 1.0, 0.3, 0.0, -0.2, -1.5, -6.0, -8.0]


@pytest.mark.parametrize(
    "which, expected", [("LA", [9, 7.5, 4]), ("SA", [-1.5, -6, -8]), ("BE", [9, 7.5, -8]), ("LM", [9, 7.5, -8])]
)
def test_an_indefinite_quadratic_has_the_eigenvalues_that_it_was_made_of(which, expected):
    found = hessian(*quadratic(with_spectrum(INDEFINITE)), k=3, which=which)
    np.testing.assert_allclose(found["eigenvalue"], expected, atol=1e-7)
    assert found["converged"].all() and float(found["lowest"]) == pytest.approx(-8, abs=1e-6)


def test_a_repeated_eigenvalue_is_found_as_often_as_it_is_there():
    found = hessian(*quadratic(with_spectrum([3, 3, 1, 0])), k=4)
    np.testing.assert_allclose(found["eigenvalue"], [3, 3, 1, 0], atol=1e-9)
    rest = np.linspace(2.9, 0, 58)
    found = hessian(*quadratic(with_spectrum([3, 3, *rest])), k=2)
    np.testing.assert_allclose(found["eigenvalue"], [3, 3], atol=1e-3)


def test_rank_one_has_one_eigenvalue_and_zeros():
    found = hessian(*quadratic(with_spectrum([5, 0, 0, 0, 0, 0])), k=4)
    np.testing.assert_allclose(found["eigenvalue"], [5, 0, 0, 0], atol=1e-9)
    assert found["converged"].all()


def test_no_curvature_at_all_is_zeros_that_converged():
    found = hessian(*quadratic(torch.zeros(4, 4, dtype=torch.float64)), k=2)
    assert not found["eigenvalue"].any() and found["converged"].all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_of_a_language_model_they_are_those_of_the_dense_matrix(reduction):
    scope, samples = language()
    with ts.options(seed=3):
        found = hessian(scope, samples, k=8, which="BE", reduction=reduction, vectors=True, per_sample=True)
    modules = "*.h.1.mlp.*"  # a block that is small enough
    block = hessian(scope, samples, k=5, modules=modules, reduction=reduction)
    truth = torch.linalg.eigvalsh(
        dense(Curvature(Objective(scope, samples, modules=modules, reduction=reduction), "hessian"))
    ).flip(0)
    np.testing.assert_allclose(block["eigenvalue"], truth[:5], atol=1e-4 * float(truth[0]))
    operator = Curvature(Objective(scope, samples, reduction=reduction), "hessian")
    scale = float(abs(found["eigenvalue"]).max())
    for value, residual, v in zip(found["eigenvalue"].values, found["residual"].values, found["eigenvector"].values, strict=True):
        v = torch.as_tensor(v)
        assert float(v.norm()) == pytest.approx(1, abs=1e-9)
        assert float((operator(v) - value * v).norm()) <= 1.01 * residual <= 1.01e-4 * scale
    np.testing.assert_allclose(found["curvature_by_sample"].mean("sample"), found["eigenvalue"], atol=1e-6 * scale)


@pytest.mark.parametrize("kind, matrix", [("ggn", "ggn"), ("empirical", "fisher")])
@pytest.mark.parametrize("method", [None, "lanczos"])
def test_fishers_have_the_eigenvalues_of_the_dense_matrix(kind, matrix, method):
    scope, samples = perceptron()
    found = fisher(scope, samples, k=6, kind=kind, method=method, vectors=True, per_sample=True)
    whole = dense(Curvature(Objective(scope, samples), matrix))
    values, vectors = torch.linalg.eigh(whole)
    np.testing.assert_allclose(found["eigenvalue"], values.flip(0)[:6], atol=1e-4 * float(values[-1]))
    top = torch.as_tensor(found["eigenvector"].values[0]).double()
    assert abs(float(top @ vectors[:, -1])) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found["curvature_by_sample"].mean("sample"), found["eigenvalue"], atol=2e-4 * float(values[-1]))
    assert found.attrs["method"].startswith("gram: exact" if kind == "empirical" and method is None else "Lanczos")


@pytest.mark.parametrize("kind", ["empirical", "mc"])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"sample_unit": "token"}])
def test_inner_products_and_lanczos_agree_with_each_other_and_with_the_spectrum(kind, options):
    scope, samples = language()
    gram, lanczos = (fisher(scope, samples, k=4, kind=kind, method=m, **options) for m in ("gram", "lanczos"))
    scale = float(gram["eigenvalue"].max())
    np.testing.assert_allclose(lanczos["eigenvalue"], gram["eigenvalue"], atol=1e-4 * scale)
    spectrum = ts.recipes.fisher_spectrum(scope, samples, kind=kind, **options)
    np.testing.assert_allclose(gram["eigenvalue"], spectrum["eigenvalue"][:4], rtol=1e-9)


def test_beyond_the_rank_there_are_zeros_whose_vectors_no_gradient_has():
    scope, samples = language(n=3)
    found = fisher(scope, samples, k=6, kind="empirical", vectors=True, per_sample=True)
    assert (found["eigenvalue"][:3] > 0).all() and not found["eigenvalue"][3:].any() and found["converged"].all()
    rows = torch.as_tensor(found["eigenvector"].values)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6).to(rows), atol=2e-5, rtol=0)
    g = torch.cat([row.flatten(1) for row in scope.per_sample_gradients(samples).values()], 1).to(rows)
    assert float((g @ rows[3:].T).abs().max()) < 1e-4 * float(g.norm(dim=1).max())


def test_a_result_says_of_how_many_samples_and_weights_it_is():
    scope, samples = language()
    n = sum(p.nelement() for p in scope.model.parameters())
    tokens = int(scope.rule.n_terms(samples).sum())
    for options in (
        {},
        {"kind": "empirical"},
        {"kind": "mc", "sample_unit": "token"},
        {"kind": "mc", "sample_unit": "token", "method": "lanczos"},
    ):
        told = said(fisher(scope, samples, k=1, **options))
        assert (told["n_used"], told["n_available"], told["n_weights"]) == (6, 6, n)
        assert told.get("n_units") == (tokens if "sample_unit" in options else None)
    told = said(hessian(scope, samples, k=1, layer="each"))
    assert told["n_weights"] == sum(p.nelement() for p in scope.model.transformer.h.parameters())
    by_token = fisher(scope, samples, k=2, kind="mc", sample_unit="token", per_sample=True)
    assert by_token["curvature_by_sample"].shape == (6, 2)
    np.testing.assert_allclose(by_token["curvature_by_sample"].mean("sample"), by_token["eigenvalue"], rtol=1e-6)
    with pytest.raises(ValueError, match="method='gram'"):
        fisher(scope, samples, k=2, kind="mc", sample_unit="token", per_sample=True, method="lanczos")


def test_as_many_eigenvalues_as_weights_and_no_more():
    scope, samples = quadratic(with_spectrum([2, 1, -1]))
    np.testing.assert_allclose(hessian(scope, samples, k=3)["eigenvalue"], [2, 1, -1], atol=1e-9)
    for recipe, options in ((hessian, {}), (fisher, {"kind": "empirical"}), (fisher, {})):
        with pytest.raises(ValueError, match="k is 4 and there are 3 weights"):
            recipe(scope, samples, k=4, **options)


def test_each_layer_has_the_eigenvalues_of_its_own_block():
    scope, samples = language()
    each = hessian(scope, samples, k=2, layer="each")
    for layer in range(2):
        alone = hessian(scope, samples, k=2, layer=layer)
        np.testing.assert_allclose(each["eigenvalue"].sel(layer=layer), alone["eigenvalue"], rtol=1e-3)
    np.testing.assert_allclose(each["top_eigenvalue"], each["eigenvalue"].max("component"))
    study = ts.Study(scope, samples).run(hessian.using(k=1, layer="each"), ts.recipes.fisher_spectrum)
    columns = list(study.frame("layer"))
    assert sum("top_eigenvalue" in column for column in columns) == 2, columns
    with pytest.raises(ValueError, match="layer is 2"):
        hessian(scope, samples, layer=2)
    with pytest.raises(ValueError, match="layer= and modules="):
        hessian(scope, samples, layer=1, modules="*")
    with pytest.raises(ValueError, match='layer="each" gives eigenvalues only'):
        hessian(scope, samples, layer="each", vectors=True)


def test_vectors_come_back_as_parameters():
    scope, samples = perceptron()
    found = hessian(scope, samples, k=1, vectors=True, modules="3")
    pieces = ts.unflatten(found["eigenvector"].sel(component=0), scope)
    assert {name: tuple(piece.shape) for name, piece in pieces.items()} == {"3.weight": (5, 8), "3.bias": (5,)}
    np.testing.assert_array_equal(np.concatenate([p.flatten() for p in pieces.values()]), found["eigenvector"][0])
    tied = ts.Scope(CAUSAL["llama tied"]())
    flat = torch.cat([p.detach().flatten() for p in tied.model.parameters()])
    again = ts.unflatten(flat, tied)
    assert again.keys() == dict(tied.model.named_parameters()).keys()
    assert all(torch.equal(again[name], p.detach()) for name, p in tied.model.named_parameters())


@pytest.mark.parametrize(
    "vector, words",
    [
        (lambda ds: ds["eigenvector"], "shape"),
        (lambda ds: np.zeros(7), "7 values and Sequential"),
        (lambda ds: ds["eigenvector"][0, :20], "covers 20 of the 40 weights of 3.weight"),
        (lambda ds: ds["eigenvector"][0].assign_coords(parameter=ds["parameter"] + 10**6), "of another model"),
    ],
)
def test_what_is_no_vector_of_the_model_is_refused(vector, words):
    scope, samples = perceptron()
    found = hessian(scope, samples, k=2, vectors=True, modules="3")
    with pytest.raises(ValueError, match=words):
        ts.unflatten(vector(found), scope)


def test_what_has_not_converged_says_so():
    scope, samples = language()
    with pytest.warns(
        UserWarning, match=r"\d of 6 eigenvalues have not converged in 9 products: ask for fewer, raise max_products"
    ):
        found = hessian(scope, samples, k=6, max_products=9, modules=MLP)
    assert found.attrs["n_products"] == 9 and not found["converged"].all()
    truth = torch.linalg.eigvalsh(dense(Curvature(Objective(scope, samples, modules=MLP), "hessian"))).numpy()
    for value, residual in zip(found["eigenvalue"].values, found["residual"].values, strict=True):
        assert min(abs(truth - value)) <= residual  # some eigenvalue is that near


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_residuals_of_inner_products_are_bounds(precision):
    scope = ts.load("tiny")
    double = ts.Scope(copy.deepcopy(scope.model).double())
    samples = ts.datasets.shakespeare(scope, n=8, length=32)
    found = fisher(scope if precision == "float32" else double, samples, k=8, kind="empirical", vectors=True)
    operator = Curvature(Objective(double, samples), "fisher")
    for value, residual, v in zip(found["eigenvalue"].values, found["residual"].values, found["eigenvector"].values, strict=True):
        v = torch.as_tensor(v).double()
        assert float((operator(v) - value * v).norm()) <= residual


def test_few_products_leave_gaps_and_not_zeros():
    scope, samples = language()
    with pytest.warns(UserWarning, match="have not converged"):
        found = hessian(scope, samples, k=6, max_products=2)
    assert np.isnan(found["eigenvalue"]).sum() == 4 and not found["converged"].any()
    with pytest.warns(UserWarning, match="have not converged"):
        found = hessian(scope, samples, k=6, max_products=2, per_sample=True)
    assert np.isfinite(found["curvature_by_sample"][:, :2]).all() and np.isnan(found["curvature_by_sample"][:, 2:]).all()


@pytest.mark.parametrize("k", [0, -3, 2.5, True])
@pytest.mark.parametrize("kind", ["ggn", "empirical"])
def test_a_k_that_is_no_number_of_eigenvalues_is_refused(k, kind):
    with pytest.raises(ValueError, match=f"k is {k}: ask for at least 1"):
        fisher(*perceptron(), k=k, kind=kind)


class Interrupted(nn.Module):
    """A linear model that is interrupted in a forward."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.calls, self.at = 0, None

    def forward(self, x):
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return self.linear(x)


def interrupted(at):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scope = ts.Scope(Interrupted())
        samples = ts.Samples.tensors(torch.randn(64, 6), torch.randint(4, (64,)))
    scope.model.calls, scope.model.at = 0, at
    return scope, samples


def test_an_interrupt_leaves_the_best_pairs_so_far():
    scope, samples = interrupted(None)
    whole = hessian(scope, samples, k=3)
    with ts.options(memory=1300):  # graphs are made again for each product, so that a forward can be interrupted
        scope.model.calls = 0
        again = hessian(scope, samples, k=3, chunk=64)
        n = scope.model.calls
        assert n > again.attrs["n_products"] > 6
        scope.model.calls, scope.model.at = 0, n - 2
        with pytest.raises(Unfinished) as ended:
            hessian(scope, samples, k=3, chunk=64)
        part = ended.value.results[0]
        assert said(part)["partial"] and 0 < part.attrs["n_products"] < again.attrs["n_products"]
        assert float(part["eigenvalue"][0]) == pytest.approx(float(whole["eigenvalue"][0]), rel=1e-3)
        study = ts.Study(scope, samples)
        scope.model.calls = 0
        with pytest.raises(KeyboardInterrupt):
            study.run(hessian.using(k=3, chunk=64))
        assert said(study["hessian_eigenvalues"])["partial"]


def test_an_interrupted_search_by_layer_keeps_the_layers_that_are_done():
    scope, samples = language()
    seen = []

    def stop(label, done, total):
        seen.append(label)
        if label == "hessian products, layer 1" and done >= 2:
            raise KeyboardInterrupt

    from tensorscope_nb.sweep.progress import listened

    with listened(stop), pytest.raises(Unfinished) as ended:
        hessian(scope, samples, k=2, layer="each")
    part = ended.value.results[0]
    assert said(part)["partial"] and part["converged"].sel(layer=0).all()
    assert not part["converged"].sel(layer=1).all()


def test_results_come_while_it_runs():
    scope, samples = language()
    shown = []

    class Audience:
        def progress(self, done, text): ...
        def show(self, results):
            shown.append(results["hessian_eigenvalues"])

    from tensorscope_nb.study.members import Members
    from tensorscope_nb.study.run import run_recipes

    run_recipes(
        Members.of(scope),
        samples,
        [hessian.using(k=3)],
        None,
        Audience(),
        lambda results: shown.append(results["hessian_eigenvalues"]),
    )
    assert len(shown) > 1 and said(shown[0])["partial"] and "partial" not in said(shown[-1])
    assert shown[-1]["converged"].all() and not shown[0]["converged"].all()


def test_the_density_has_the_moments_of_the_dense_matrix():
    scope, samples = language()
    found = hessian(scope, samples, k=1, modules=MLP, density=20)
    truth = torch.linalg.eigvalsh(dense(Curvature(Objective(scope, samples, modules=MLP), "hessian"))).numpy()
    assert float(found["trace_ci_low"]) <= truth.sum() <= float(found["trace_ci_high"])
    grid, density = found["curvature"].values, found["density"].values
    step = grid[1] - grid[0]
    assert density.sum() * step == pytest.approx(1, abs=0.01)
    error = (found["density_ci_high"] - found["density_ci_low"]).values
    assert (density * grid).sum() * step == pytest.approx(
        truth.mean(), abs=3 * float(found["trace_ci_high"] - found["trace"]) / len(truth)
    )
    width = (truth.max() - truth.min()) / 100
    smooth = np.exp(-(((grid[:, None] - truth) / width) ** 2) / 2).sum(1) / len(truth) / width / np.sqrt(2 * np.pi)
    assert (abs(density - smooth) < error + 0.02 * smooth.max()).mean() > 0.9
    fixed = hessian(scope, samples, k=1, modules=MLP, density=2, density_range=(-5, 5))
    assert (fixed["curvature"][0], fixed["curvature"][-1]) == (-5, 5)
    with pytest.raises(ValueError, match="density is -1"):
        hessian(scope, samples, density=-1)
    for ends in ((3, 1), 5, "ab", (-np.inf, 1)):
        with pytest.raises(ValueError, match="density_range is"):
            hessian(scope, samples, density=2, density_range=ends)


def test_an_interrupt_after_the_search_keeps_its_pairs():
    scope, samples = language()
    whole = hessian(scope, samples, k=2, chunk=2, density=2, per_sample=True)

    def stop(label, done, total):
        if label == where:
            raise KeyboardInterrupt

    from tensorscope_nb.sweep.progress import listened

    for where in ("hessian by sample", "hessian density"):
        with listened(stop), pytest.raises(Unfinished) as ended:
            hessian(scope, samples, k=2, chunk=2, density=2, per_sample=True)
        part = ended.value.results[0]
        assert said(part)["partial"] and part["converged"].all() and "density" not in part
        np.testing.assert_array_equal(part["eigenvalue"], whole["eigenvalue"])
        assert int(np.isfinite(part["curvature_by_sample"][:, 0]).sum()) == (2 if where == "hessian by sample" else len(samples))


def test_a_basis_that_does_not_fit_is_refused_with_what_would():
    scope, samples = language()
    with ts.options(memory=200_000), pytest.raises(ValueError, match=r"memory option.*ts.options\(memory=\d+\).*modules="):
        hessian(scope, samples, k=20)


def test_a_small_basis_finds_the_same():
    scope, samples = language()
    whole = hessian(scope, samples, k=4, which="BE")
    size = sum(p.nelement() for p in scope.model.parameters())
    with ts.options(memory=8 * size * 13):
        small = hessian(scope, samples, k=4, which="BE", chunk=2)
    np.testing.assert_allclose(small["eigenvalue"], whole["eigenvalue"], atol=1e-4 * float(abs(whole["eigenvalue"]).max()))
    assert small["converged"].all()


def test_seeds_and_precisions_agree():
    scope, samples = language()
    double = hessian(scope, samples, k=4)
    other = hessian(scope, samples, k=4, seed=7)
    scale = float(double["eigenvalue"].max())
    np.testing.assert_allclose(other["eigenvalue"], double["eigenvalue"], atol=1e-4 * scale)
    assert np.array_equal(hessian(scope, samples, k=4)["eigenvalue"], double["eigenvalue"])
    scope.model.float()
    np.testing.assert_allclose(hessian(scope, samples, k=4)["eigenvalue"], double["eigenvalue"], atol=3e-4 * scale)


def test_a_relu_model_is_told_what_its_hessian_is():
    assert "piecewise linear" in said(hessian(*perceptron(nn.ReLU), k=1))["notes"][0]
    assert said(hessian(*perceptron(), k=1))["notes"] == []


@pytest.mark.parametrize(
    "recipe, options, words",
    [
        (hessian, {"k": 0}, "k is 0: ask for at least 1"),
        (hessian, {"k": 2.5}, "k is 2.5"),
        (hessian, {"which": "top"}, "which is 'top': choose 'LA'"),
        (hessian, {"tolerance": 0}, "tolerance is 0"),
        (hessian, {"max_products": 0}, "max_products is 0"),
        (hessian, {"reduction": "max"}, "reduction is 'max'"),
        (fisher, {"kind": "true"}, "kind is 'true': choose among ggn, empirical, mc"),
        (fisher, {"kind": "ggn", "method": "gram"}, "kind='ggn' is made of none"),
        (fisher, {"method": "qr"}, "method is 'qr'"),
        (fisher, {"kind": "ggn", "sample_unit": "token"}, "sample_unit='token'"),
    ],
)
def test_bad_options_get_one_clear_line(recipe, options, words):
    scope, samples = language()
    with warnings.catch_warnings(), pytest.raises(ValueError, match=words) as error:
        warnings.simplefilter("error")
        recipe(scope, samples, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_vectors_of_inner_products_are_eigenvectors_of_the_dense_fisher(reduction):
    scope, samples = language()
    found = fisher(scope, samples, k=4, kind="empirical", vectors=True, reduction=reduction)
    truth = Curvature(Objective(scope, samples, reduction=reduction), "fisher")
    for value, v in zip(found["eigenvalue"].values, torch.as_tensor(found["eigenvector"].values), strict=True):
        assert float(v.norm()) == pytest.approx(1, abs=1e-9)
        assert float((truth(v) - value * v).norm()) < 1e-9 * float(found["eigenvalue"][0])
