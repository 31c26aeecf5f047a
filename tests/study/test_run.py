"""What a study says before it runs, while it runs, and when it is stopped."""

import json
import sys
import threading
import time

import numpy as np
import pytest
import torch
import xarray as xr
from model_zoo import CAUSAL
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.study import plan as planning
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.reducers import Gram

IDS = torch.randint(50, (12, 9), generator=torch.Generator().manual_seed(1))
HEALTH = ts.recipes.gradient_health.using(chunk=2, per_sample=True)
MASSES = ts.recipes.grouped_fisher.using(chunk=2, granularity="head")
SPECTRUM = ts.recipes.fisher_spectrum.using(chunk=2)


@pytest.fixture(autouse=True)
def all_is_heard(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)


class Heard:
    """Stands in for a view that is open on the study."""

    def __init__(self, study, stop_at=None):
        self.texts, self.shown, self.ended, self.stop_at = [], [], [], stop_at
        self.study = study
        study._audience._views.add(self)

    def report(self, done, text):
        self.texts.append((done, text))
        if self.stop_at and self.stop_at in text:
            self.study._audience._stop.set()

    def show(self, results):
        self.shown.append({name: json.loads(r.attrs["tensorscope"]) for name, r in results.items()})

    def finish(self, state, text):
        self.ended.append((state, text))


def said(result):
    return json.loads(result.attrs["tensorscope"])


def test_an_interrupt_keeps_what_the_samples_so_far_say():
    scope = ts.Scope(random_gpt2())
    study = ts.Study(scope, IDS)
    Heard.keep = heard = Heard(study, stop_at="gradients: 6 of 12")
    with pytest.raises(KeyboardInterrupt):
        study.run(ts.recipes.ablation, HEALTH, MASSES)
    assert heard.ended == [("stopped", "stopped: the results are of what was done")]
    for recipe in (HEALTH, MASSES):
        found, alone = study[recipe.name], recipe(scope, ts.Samples.tokens(IDS)[:6])
        assert said(found)["partial"] and said(found)["n_used"] == 6 and said(found)["n_available"] == 12
        for name in alone.data_vars:
            assert np.allclose(found[name], alone[name], rtol=1e-4, atol=1e-6, equal_nan=True), name
    assert "partial" not in said(study["ablation"])  # it was done before
    heard.stop_at = None
    study.run(HEALTH)
    assert "partial" not in said(study[HEALTH.name]) and said(study[HEALTH.name])["n_used"] == 12


def test_pairs_of_the_samples_so_far():
    scope = ts.Scope(random_gpt2())
    study = ts.Study(scope, IDS)
    Heard.keep = Heard(study, stop_at="gradients: 4 of 12")
    with pytest.raises(KeyboardInterrupt):
        study.run(SPECTRUM)
    alone = SPECTRUM(scope, ts.Samples.tokens(IDS)[:4])
    assert np.allclose(study[SPECTRUM.name]["eigenvalue"], alone["eigenvalue"], atol=1e-5 * float(alone["eigenvalue"][0]))


def test_an_interrupt_between_models_keeps_those_that_are_done(tmp_path):
    scopes = {name: ts.Scope(random_gpt2(i)) for i, name in enumerate("abc")}
    study = ts.Study(scopes, IDS)
    Heard.keep = heard = Heard(study, stop_at="model c (3 of 3), gradients: 2 of 12")
    with pytest.raises(KeyboardInterrupt):
        study.run(MASSES)
    found = study[MASSES.name]
    assert found["model"].values.tolist() == ["a", "b"] and found["importance"].notnull().any()
    assert said(found) | {"partial": True, "n_done": 2, "n_members": 3} == said(found)
    assert 0 < heard.texts[0][0] < heard.texts[-1][0] < 1
    again = ts.Study.open(study.save(tmp_path / "study"))
    assert said(again[MASSES.name])["partial"]


def test_results_grow_while_a_study_runs():
    study = ts.Study(ts.Scope(random_gpt2()), IDS)
    Heard.keep = heard = Heard(study)
    study.run(HEALTH, MASSES)
    assert heard.ended == [("done", "")]
    partial = [shown for shown in heard.shown if shown[HEALTH.name].get("partial")]
    assert partial and partial[0][HEALTH.name]["n_used"] == 2 and "partial" not in heard.shown[-1][HEALTH.name]
    assert all(0 <= done <= 1 for done, _ in heard.texts) and any("s left" in text for _, text in heard.texts)


def test_a_study_along_checkpoints_shows_what_is_to_come():
    scopes = {name: ts.Scope(random_gpt2(i)) for i, name in enumerate("abc")}
    study, shown = ts.Study(scopes, IDS), []
    Heard.keep = heard = Heard(study)
    heard.show = lambda results: shown.append(results[MASSES.name]["importance"])
    study.run(MASSES)
    assert [int(values.notnull().any(("layer", "head", "block")).sum()) for values in shown] == [1, 2, 3, 3]
    assert all(values["model"].values.tolist() == list(scopes) for values in shown)


def test_a_run_from_a_view_has_a_thread_and_can_be_stopped():
    study = ts.Study(ts.Scope(random_gpt2()), IDS)
    live = study.view(HEALTH)
    began, go = threading.Event(), threading.Event()
    original = live.report

    def report(done, text):
        original(done, text)
        began.set()
        go.wait(10)

    live.report = report
    live._start()
    assert began.wait(20)
    with pytest.raises(ValueError, match="running already"):
        study.run(MASSES)
    live._stop()
    go.set()
    deadline = time.monotonic() + 20
    while live.status["state"] != "stopped" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert live.status["state"] == "stopped" and said(study[HEALTH.name])["partial"]


def test_a_run_that_fails_says_why_in_the_view():
    study = ts.Study(ts.Scope(random_gpt2()), IDS)
    Heard.keep = heard = Heard(study)
    with pytest.raises(ValueError, match="k is 0"):
        study.run(ts.recipes.fisher_spectrum.using(k=0))
    assert heard.ended == [("failed", "ValueError: k is 0: ask for at least 1 eigenvalue")]
    study.run(MASSES)  # and the next run goes


def test_a_model_that_fails_does_not_take_the_others_with_it():
    broken = ts.Scope(random_gpt2(1))
    broken.model.transformer.h[1].mlp.c_fc.weight.data[0] = torch.nan
    study = ts.Study({"a": ts.Scope(random_gpt2()), "b": broken}, IDS)
    with pytest.raises(ValueError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight holds NaN"):
        study.run(MASSES)
    assert study[MASSES.name]["model"].values.tolist() == ["a"] and said(study[MASSES.name])["n_members"] == 2


def test_a_recipe_that_asks_twice_is_shown_at_its_end():
    study = ts.Study(ts.Scope(random_gpt2()), IDS)
    Heard.keep = heard = Heard(study)
    hybrid = ts.recipes.hybrid_importance.using(weights={"fisher": 1, "taylor": 1}, chunk=2)
    study.run(hybrid)
    assert heard.ended == [("done", "")] and list(study) == ["hybrid_importance"]


def test_importances_are_held_by_their_summaries():
    scope = ts.Scope(random_gpt2())
    study = ts.Study({"a": scope, "b": ts.Scope(random_gpt2(1))}, IDS)
    study.run(ts.recipes.fisher_importance.using(per_sample=True), ts.recipes.magnitude_importance)
    found = study["fisher_importance"].sel(model="a")
    alone = ts.recipes.fisher_importance(scope, IDS, per_sample=True).summary()
    assert np.allclose(found["total"], alone["total"], rtol=1e-5)
    assert np.allclose(found["total_by_sample"].mean("sample"), alone["total"], rtol=1e-4)
    assert said(study["fisher_importance"])["recipe"] == "fisher_importance"


def test_a_plan_counts_passes_bytes_and_seconds(monkeypatch):
    original = planning._trial
    # as if each row took 10 ms: what is left is arithmetic
    monkeypatch.setattr(planning, "_trial", lambda *a: (rows := original(*a)[0], 0.01 * rows))
    scope = ts.load("tiny")
    study = ts.Study(scope, ts.datasets.shakespeare(scope, n=48, length=64))
    token = ts.recipes.fisher_importance.using(sample_unit="token", modules="*.h.1.mlp.c_proj", name="tokens")
    hybrid, magnitude = ts.recipes.hybrid_importance.using(weights={"magnitude": 1.0}), ts.recipes.magnitude_importance
    recipes = (ts.recipes.gradient_health, ts.recipes.grouped_fisher, ts.recipes.ablation, token, hybrid, magnitude)
    with ts.options(progress=False):
        plan = study.plan(*recipes).set_index("recipes")
        assert plan.index.tolist() == ["gradient_health, grouped_fisher", "tokens", "ablation", "magnitude_importance"]
        assert plan["passes"].tolist() == [1, 1, 10, 0]  # ablation: own loss, means, and eight heads
        assert plan["samples"].tolist() == [48, 48 * 63, 48, 48]
        assert np.allclose(plan["seconds"], [0.48, 0.48 * 63, 4.8, 0], rtol=0.15)  # and a sample alone to check the sweep
        along = ts.Study(ts.checkpoints("tiny"), study.samples).plan(ts.recipes.grouped_fisher)
        assert along["models"].item() == 8 and np.isclose(along["seconds"].item(), 8 * 0.48, rtol=0.15)
        each = gradient_sweep(scope, study.samples[:4], [Gram()], chunk=2).each
        with ts.options(memory=8_000_000):
            pairs = study.plan(ts.recipes.fisher_spectrum)
        pieces = -(-48 // int(8_000_000 / each / 2))
        assert pairs["passes"].item() == 1 + (pieces + 1) / 2 > 2 and pairs["bytes"].item() <= 3 * 8_000_000
    with pytest.raises(ValueError, match="no recipes: name at least one"):
        study.plan()


def test_members_that_fit_no_common_array_are_told_apart_and_other_results_are_kept():
    samples = ts.Samples.tokens(torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(0)))
    study = ts.Study({name: ts.Scope(CAUSAL[name]()) for name in ("gpt2", "llama")}, samples)
    eigenvalues, sharpness = ts.recipes.hessian_eigenvalues, ts.recipes.sam_sharpness
    with pytest.raises(ValueError, match=r"hessian_eigenvalues: the models differ along parameter.*one by one"):
        study.run(sharpness, eigenvalues.using(k=1, tolerance=0.1, vectors=True))
    assert study["sam_sharpness"].sizes == {"model": 2}
    with pytest.raises(ValueError, match=r"differ along curvature.*density_range="):
        study.run(eigenvalues.using(k=1, tolerance=0.1, density=2))
    study.run(eigenvalues.using(k=1, tolerance=0.1, density=2, density_range=(-30, 30)))
    assert study["hessian_eigenvalues"]["density"].dims == ("model", "curvature")


def test_an_interrupt_of_a_recipe_that_follows_a_history_keeps_the_checkpoints_done():
    history = ts.checkpoints("tiny")[:3]
    train, test = (ts.datasets.code(history[0], n=3, length=16, split=split) for split in ("train", "test"))
    study = ts.Study(history, test)
    heard = Heard(study, stop_at="checkpoints: 2 of 3")
    with pytest.raises(KeyboardInterrupt):
        study.run(ts.recipes.tracin.using(train=train, test=test))
    assert any(text == "checkpoints: 2 of 3" for _, text in heard.texts)
    assert study["tracin"]["checkpoint"].values.tolist() == list(history.steps[:2])
    assert json.loads(study["tracin"].attrs["tensorscope"])["partial"] is True


def test_the_plan_of_a_recipe_that_follows_a_history_runs_one_checkpoint(monkeypatch):
    module, calls = sys.modules["tensorscope_nb.recipes.tracin"], []
    monkeypatch.setattr(module, "across", lambda *given, kept=module.across, **how: calls.append(1) or kept(*given, **how))
    history = ts.checkpoints("tiny")[:3]
    train, test = (ts.datasets.code(history[0], n=3, length=16, split=split) for split in ("train", "test"))
    ts.Study(history, test).plan(ts.recipes.tracin.using(train=train, test=test))
    assert len(calls) == 1


def test_a_recipe_that_follows_a_history_runs_along_the_others():
    history = ts.checkpoints("tiny")
    train, test = (ts.datasets.code(history[0], n=3, length=16, split=split) for split in ("train", "test"))
    tracin = ts.recipes.tracin.using(train=train, test=test)
    study = ts.Study(history, test)
    table = study.plan(tracin, ts.recipes.gradient_health)
    assert table["recipes"].tolist() == ["gradient_health", "tracin"] and table["kind"][1] == "checkpoints"
    assert (table["samples"][1], table["passes"][1], table["models"][1]) == (6, 1.0, 8)
    study.run(tracin, ts.recipes.gradient_health)
    assert study["gradient_health"].sizes["checkpoint"] == 8
    xr.testing.assert_equal(study["tracin"].drop_attrs(), ts.recipes.tracin(history, train, test).drop_attrs())
    with pytest.raises(ValueError, match=r"tracin takes samples of its own: run ts.recipes.tracin.using\(train=…, test=…\)"):
        study.run(ts.recipes.tracin)
    with pytest.raises(ValueError, match="tracin follows a model through its training: make the study of"):
        ts.Study(history[0], test).run(tracin)


@pytest.mark.parametrize("recipe, samples, says", [
    (ts.recipes.perturbation, ["one two three"], r"perturbation takes more than samples: run ts.recipes.perturbation.using\(weights=…\)"),
    (ts.recipes.patching, None, r"run ts.recipes.patching.using\(clean=…, corrupt=…\)"),
    (ts.recipes.ablation, None, r"ablation needs samples, and the study has none: ts.Study\(scope, samples\)"),
])  # fmt: skip
def test_what_a_recipe_needs_and_a_study_lacks_is_one_line(recipe, samples, says):
    with pytest.raises(ValueError, match=says):
        ts.Study(ts.load("tiny"), samples).run(recipe)
    with pytest.raises(ValueError, match=says):
        ts.Study(ts.load("tiny"), samples).plan(recipe)
