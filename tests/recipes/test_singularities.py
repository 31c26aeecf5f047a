import json

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.sweep.progress import listened


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def said(found):
    return json.loads(found.attrs["tensorscope"])


def scope_of(rows, **options):
    """A model with this token embedding."""
    rows = torch.as_tensor(rows)
    model = random_gpt2(vocab_size=len(rows), n_embd=rows.shape[1], n_head=1, n_layer=1, **options)
    model.transformer.wte.weight.data = rows.float()
    return ts.Scope(model)


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def whiskered(n_line=60, n_ball=400):
    """A line that ends in a far larger ball."""
    rng = np.random.default_rng(0)
    line = np.zeros((n_line, 6))
    line[:, 0] = -rng.uniform(0, 1, n_line)
    return torch.as_tensor(np.concatenate([line, rng.normal(size=(n_ball, 6)) * 0.3 + [1, 0, 0, 0, 0, 0]]))


def test_it_is_the_test_of_the_rows_of_the_embedding():
    scope = scope_of(gaussian(200, 8))
    found = ts.recipes.embedding_singularities(scope)
    rows = scope.model.get_input_embeddings().weight.detach()
    other = ts.recipes.fiber_bundle_test(rows)
    assert found["token_id"].values.tolist() == list(range(200))
    for name in other.data_vars:
        assert np.array_equal(found[name].values, other[name].values, equal_nan=True), name
    assert said(found)["method"] == said(other)["method"] == found.attrs["method"] == "renyi"
    assert set(found.data_vars) == set(other.data_vars)


def test_the_unembedding_is_another_space_and_a_tied_one_the_same():
    tied, apart = scope_of(gaussian(200, 8)), scope_of(gaussian(200, 8), tie_word_embeddings=False)
    for scope, same in ((tied, True), (apart, False)):
        one, other = (ts.recipes.embedding_singularities(scope, space=space) for space in ("embedding", "unembedding"))
        assert np.allclose(one["dim"], other["dim"]) == same


def test_flags_density_and_rates_on_a_planted_vocabulary():
    found = ts.recipes.embedding_singularities(scope_of(whiskered()), k_max=120, alpha=0.01)
    line = found.isel(token_id=slice(0, 60))
    assert float(line["violates_fiber"].mean()) > 0.5 and float(found["violates_fiber"][60:].mean()) < 0.1
    assert float(line["density"].mean()) > 2 * float(found["density"][60:].mean())
    assert float(found["rate_fiber"]) > 0.05 and float(found["surrogate_rate_fiber"]) == 0
    assert np.median(line["dim_small"]) < 2 < 4 < np.median(line["dim_large"])


def test_samples_choose_what_is_reported_and_change_no_number():
    scope = scope_of(gaussian(200, 8))
    ids = torch.tensor([[5, 7, 7, 199], [5, 3, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    every = ts.recipes.embedding_singularities(scope)
    found = ts.recipes.embedding_singularities(scope, ts.Samples.tokens(ids, mask))
    assert found["token_id"].values.tolist() == [3, 5, 7, 199] and found["n_in_samples"].values.tolist() == [1, 2, 2, 1]
    for name in every.data_vars:
        expected = every[name].values[[3, 5, 7, 199]] if every[name].dims else every[name].values
        assert np.array_equal(found[name].values, expected, equal_nan=True), name


def test_tokens_choose_what_is_tested_among_all_neighbours():
    scope = scope_of(gaussian(200, 8))
    every = ts.recipes.embedding_singularities(scope)
    found = ts.recipes.embedding_singularities(scope, tokens=[9, 3, 9])
    assert found["token_id"].values.tolist() == [3, 9] and said(found)["n_used"] == 2
    assert np.array_equal(found["p_manifold"], every["p_manifold"][[3, 9]])
    assert np.allclose(found["p_manifold_adjusted"].min(), min(1, 2 * float(found["p_manifold"].min())))
    assert found["density"].isnull().all() and "density is NaN" in said(found)["notes"][0]
    both = ts.recipes.embedding_singularities(scope, ts.Samples.tokens(torch.tensor([[9, 11]])), tokens=[3, 9])
    assert both["token_id"].values.tolist() == [9]


def test_tokens_that_were_never_told_apart_are_one_place():
    rows = gaussian(200, 8)
    rows[150:] = rows[150]
    found = ts.recipes.embedding_singularities(scope_of(rows))
    assert said(found)["n_different"] == 151 and found["n_duplicates"].values[[0, 150, 199]].tolist() == [0, 49, 49]
    assert len(np.unique(found["dim"][150:])) == 1 and found["dim"].notnull().all()


def test_tokens_are_read_where_there_is_a_tokenizer_and_numbered_where_there_is_none():
    scope = ts.load("tiny")
    found = ts.recipes.embedding_singularities(scope)
    assert found["token"].values[0] == "<|endoftext|>" and " E" in found["token"].values and found.sizes["token_id"] == 512
    bare = ts.recipes.embedding_singularities(ts.Scope(scope.model))
    assert bare["token"].values[:3].tolist() == ["0", "1", "2"] and np.array_equal(bare["dim"], found["dim"])
    assert repr(ts.view(found)) == "SampleTable(dim) | Scatter(dim)"


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bert", "bert headless"])
def test_the_embedding_of_each_family_is_found(family):
    model = build(family)
    found = ts.recipes.embedding_singularities(ts.Scope(model), k_max=40)
    rows = model.get_input_embeddings().weight.detach()
    assert np.allclose(found["dim"], ts.recipes.fiber_bundle_test(rows, k_max=40)["dim"])


def test_what_is_missing_is_named():
    for family in ("vit", "mlp", "falcon"):
        with pytest.raises(ts.UnsupportedModel, match="no token embedding"):
            ts.recipes.embedding_singularities(ts.Scope(build(family)))
    with pytest.raises(ts.UnsupportedModel, match="no language-model head"):
        ts.recipes.embedding_singularities(ts.Scope(build("bert headless")), space="unembedding")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "output"}, "space is 'output': choose 'embedding' or 'unembedding'"),
        ({"tokens": [0, 200]}, "tokens has 200: there are 200 tokens in the vocabulary"),
        ({"tokens": [-1]}, "tokens has -1"),
        ({"tokens": ["the"]}, "give whole numbers"),
        ({"k_max": 200}, "there are 200 different tokens and the tests look at 200 neighbours of each: pass a k_max below 200"),
        ({"alpha": 2}, "alpha is 2"),
        ({"samples": ts.Samples.tokens(torch.tensor([[200]]))}, "the samples have token 200, and the model knows 200"),
        ({"samples": ts.Samples.tokens(torch.tensor([[1]])), "tokens": [2]}, "none of the tokens= occurs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ts.recipes.embedding_singularities(scope_of(gaussian(200, 8)), **options)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_said():
    scope = scope_of(gaussian(200, 8))
    scope.model.transformer.wte.weight.data[17, 3] = torch.nan
    with pytest.raises(ValueError, match="1 of 200 tokens have coordinates that are no finite numbers, the first is number 17"):
        ts.recipes.embedding_singularities(scope)


class _Stop:
    """Interrupts after so many steps."""

    def __init__(self, after):
        self.after = after

    def __call__(self, label, done, total):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("after", "done"), [(2, 80), (5, 200), (6, 200)])
def test_an_interrupt_keeps_the_tokens_that_are_done(after, done, monkeypatch):
    monkeypatch.setattr("tensorscope_nb.numerics.neighbours.MOST_ROWS", 40)
    monkeypatch.setattr("tensorscope_nb.sweep.progress.PER_SECOND", 1e9)
    scope = scope_of(gaussian(200, 8))
    whole = ts.recipes.embedding_singularities(scope)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(after)):
        ts.recipes.embedding_singularities(scope)
    (found,) = caught.value.results
    assert said(found)["partial"] and said(found)["n_used"] == done and "interrupted" in said(found)["notes"][-1]
    for name in ("dim", "p_manifold", "dim_large", "nearest"):
        assert np.array_equal(found[name][:done], whole[name][:done]) and found[name][done:].isnull().all(), name
    assert np.isnan(found["surrogate_rate_manifold"]) and (
        found["density"].notnull().all() if done == 200 else found["density"].isnull().all()
    )


def test_a_study_saves_it_and_has_a_frame_of_tokens(tmp_path):
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.shakespeare(scope, n=4))
    study.run(ts.recipes.embedding_singularities)
    study.save(tmp_path / "study")
    again = ts.Study.open(tmp_path / "study")["embedding_singularities"]
    one = study["embedding_singularities"]
    for name in one.variables:
        assert np.array_equal(one[name].values, again[name].values), name
    assert "dim" in study.frame("token_id")
