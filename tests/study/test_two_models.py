"""Recipes that take a second model, in a study: it is fixed by an option, and each member is the first."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

cka, similarity = ts.recipes.linear_cka, ts.recipes.representational_similarity
SAMPLES = ts.Samples.tokens(torch.randint(1, 50, (7, 9), generator=torch.Generator().manual_seed(1)))


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


@pytest.fixture(scope="module")
def scopes():
    return {name: ts.Scope(random_gpt2(seed), name=name) for name, seed in (("one", 0), ("other", 1), ("reference", 2))}


def said(result):
    return json.loads(result.attrs["tensorscope"])


@pytest.mark.parametrize("recipe, measure", [(cka, "cka"), (similarity, "similarity")])
def test_each_model_is_compared_with_the_reference_and_without_one_with_itself(scopes, recipe, measure):
    members = {name: scopes[name] for name in ("one", "other")}
    study = ts.Study(members, SAMPLES).run(recipe, recipe.using(scope_b=scopes["reference"], name="against"))
    assert study["against"][measure].dims == study[recipe.name][measure].dims == ("model", "layer_a", "layer_b")
    for name, scope in members.items():
        expected = recipe(scope, scopes["reference"], SAMPLES)
        assert study["against"].sel(model=name).drop_vars("model").equals(expected)
        assert study[recipe.name].sel(model=name).drop_vars("model").equals(recipe(scope, samples=SAMPLES))
    found, reference = said(study["against"]), said(recipe(scopes["reference"], samples=SAMPLES))
    assert (found["model_b"], found["weights_b"]) == ("reference", reference["weights"])
    assert {name: member["weights"] for name, member in found["members"].items()} == {
        name: said(recipe(scope, samples=SAMPLES))["weights"] for name, scope in members.items()
    }


def test_checkpoints_come_nearer_to_the_last():
    history, final = ts.checkpoints("tiny"), ts.load("tiny")
    study = ts.Study(history, ts.datasets.shakespeare(final, n=8)).run(cka.using(scope_b=final))
    found = study["linear_cka"]["cka"]
    assert found.dims == ("checkpoint", "layer_a", "layer_b")
    assert np.allclose(np.diag(found.sel(checkpoint=3000).values), 1)
    steps = [np.diag(found.sel(checkpoint=step).values).mean() for step in (0, 600, 1800, 3000)]
    assert steps == sorted(steps) and steps[0] < 0.7


def test_texts_are_read_by_each_tokenizer(scopes):
    """The reference reads by itself what the study reads with the tokenizer of its member."""
    tiny = ts.load("tiny")
    study = ts.Study({"tiny": tiny}, ["to be or", "not to be", "that is", "the question", "or is it"])
    study.run(cka.using(scope_b=ts.load("tiny", seed=1), tokens="mean"))
    assert np.isfinite(study["linear_cka"]["cka"]).all()


def test_one_model_plans_frames_reports_and_saves(scopes, tmp_path):
    recipe = cka.using(scope_b=scopes["reference"])
    study = ts.Study(scopes["one"], SAMPLES)
    plan = study.plan(recipe, ts.recipes.gradient_health)
    assert plan["recipes"].tolist() == ["gradient_health", "linear_cka"]
    study.run(recipe, ts.recipes.gradient_health)
    assert study["linear_cka"].equals(cka(scopes["one"], scopes["reference"], SAMPLES))
    columns = study.frame("layer").columns
    assert "backward_rms" in columns and not any("cka" in name for name in columns), "layer_a and layer_b are no layer"
    assert study.frame("layer_a", "layer_b")["cka"].shape == (4,)
    weights = said(study["linear_cka"])["weights_b"]
    assert f"compared with reference (weights {weights})" in study.report(tmp_path / "report.md").read_text()
    study.save(tmp_path / "saved")
    assert ts.Study.open(tmp_path / "saved")["linear_cka"].identical(study["linear_cka"])


def test_what_is_undefined_is_said_of_each_member(scopes):
    broken = random_gpt2(0)
    for parameter in broken.transformer.parameters():
        parameter.data.zero_()
    study = ts.Study({"one": scopes["one"], "broken": ts.Scope(broken)}, SAMPLES).run(cka)
    members = said(study["linear_cka"])["members"]
    assert "undefined" not in members["one"] and "layer_a 0" in members["broken"]["undefined"]
    assert study["linear_cka"]["cka"].sel(model="broken").isnull().all()


def test_a_recipe_with_and_without_a_reference_can_be_pickled(scopes):
    plain = pickle.loads(pickle.dumps(cka.using(tokens="mean")))
    assert plain(scopes["one"], samples=SAMPLES).equals(cka(scopes["one"], samples=SAMPLES, tokens="mean"))
    sent = pickle.loads(pickle.dumps(cka.using(scope_b=scopes["reference"])))
    assert sent(scopes["one"], samples=SAMPLES).equals(cka(scopes["one"], scopes["reference"], SAMPLES))


def test_members_may_be_looked_at_elsewhere(scopes):
    members = {name: scopes[name] for name in ("one", "other")}
    recipe = cka.using(scope_b=scopes["reference"])
    here = ts.Study(members, SAMPLES).run(recipe)
    with ThreadPoolExecutor(2) as executor:
        there = ts.Study(members, SAMPLES).run(recipe, executor=executor)
    assert there["linear_cka"].equals(here["linear_cka"])
