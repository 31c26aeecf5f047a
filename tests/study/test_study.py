import numpy as np
import pytest
import torch
import xarray as xr
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.study.frame import frame
from tensorscope_nb.study.members import Members

IDS = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))
INDUCTION = ts.recipes.induction_heads.using(period=6, n_sequences=2, token_range=(1, 50), bos=0)


def test_one_model():
    scope = ts.Scope(random_gpt2())
    study = ts.Study(scope, IDS).run(ts.recipes.ablation, INDUCTION)
    assert list(study) == ["ablation", "induction_heads"]
    assert study["ablation"].equals(ts.recipes.ablation(scope, IDS))


def test_several_models_become_a_leading_dimension():
    scopes = {"a": ts.Scope(random_gpt2(0)), "b": ts.Scope(random_gpt2(1))}
    joined = ts.Study(scopes, IDS).run(ts.recipes.ablation)["ablation"]
    assert joined["loss_increase"].dims == ("model", "layer", "head")
    for name, scope in scopes.items():
        assert np.allclose(joined["loss_increase"].sel(model=name), ts.recipes.ablation(scope, IDS)["loss_increase"])


def test_checkpoints_carry_their_training_step():
    joined = ts.Study(ts.checkpoints("tiny")).run(ts.recipes.induction_heads.using(n_sequences=2))["induction_heads"]
    assert joined["checkpoint"].values.tolist() == list(ts.checkpoints("tiny").steps)
    alone = ts.recipes.induction_heads(ts.load("tiny", checkpoint=1000), n_sequences=2)
    assert np.allclose(joined["prefix_matching"].sel(checkpoint=1000), alone["prefix_matching"])


def test_tokens_are_of_the_samples_and_not_of_the_models_unless_they_read_them_as_others():
    tiny = ts.load("tiny")
    joined = ts.Study({"a": tiny, "b": ts.load("tiny", seed=1)}, IDS).run(ts.recipes.logit_lens)["logit_lens"]
    assert joined["token"].dims == ("sample", "position") and joined["top_token_text"].dims[0] == "model"
    assert joined["token"].values.tolist() == ts.recipes.logit_lens(tiny, IDS)["token"].values.tolist()
    assert ts.view(joined).options["tokens"] == "token"
    one = ts.recipes.logit_lens(tiny, IDS)
    other = one.assign(token=one["token"] + "'")
    apart = Members("model", ["a", "b"], []).joined([one, other])["token"]
    assert apart.dims == ("model", "sample", "position") and (apart.sel(model="b") == other["token"]).all()


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        (lambda s: ts.Study("gpt2"), TypeError, "not a str"),
        (lambda s: ts.Study({}), ValueError, "a Study of no models"),
        (lambda s: ts.Study(s, IDS).run(len), TypeError, "a Study runs recipes"),
        (lambda s: ts.Study(s, IDS).run(ts.recipes.ablation, ts.recipes.ablation.using(method="zero")), ValueError, "two recipes are named 'ablation'"),
        (lambda s: ts.Study(s)["ablation"], LookupError, "it holds nothing yet, run a recipe"),
        (lambda s: ts.Study({"a": s, "b": ts.Scope(random_gpt2(n_head=2))}, IDS).run(ts.recipes.ablation), ValueError, "head"),
    ],
)  # fmt: skip
def test_bad_use_is_one_clear_line(use, error, says):
    with pytest.raises(error, match=says):
        use(ts.Scope(random_gpt2()))


def test_recipes_that_read_gradients_share_one_sweep(monkeypatch):
    from tensorscope_nb.sweep import request

    scope, sweeps = ts.Scope(random_gpt2()), []
    original = request.gradient_sweep
    monkeypatch.setattr(request, "gradient_sweep", lambda *a, **k: sweeps.append(len(a[2])) or original(*a, **k))
    by_head = ts.recipes.grouped_fisher.using(granularity="head", name="by_head")
    summed = ts.recipes.grouped_fisher.using(reduction="sum", name="summed")
    study = ts.Study(scope, IDS).run(
        ts.recipes.grouped_fisher, by_head, ts.recipes.gradient_health, ts.recipes.fisher_spectrum, summed
    )
    assert sweeps == [6, 1]  # masses, masses, sums and masses and signals, Gram; and the one of summed losses by itself
    for recipe in (ts.recipes.grouped_fisher, by_head, ts.recipes.gradient_health, ts.recipes.fisher_spectrum, summed):
        alone = recipe(scope, IDS)
        for name in alone.data_vars:
            assert np.allclose(study[recipe.name][name], alone[name], rtol=1e-5, atol=1e-9, equal_nan=True), (recipe.name, name)


def test_frame_joins_what_lives_at_the_same_places():
    scope = ts.Scope(random_gpt2())
    study = ts.Study(scope, IDS).run(ts.recipes.ablation, ts.recipes.fisher_spectrum, ts.recipes.gradient_health)
    layers = study.frame("layer")
    assert layers.index.tolist() == [0, 1]
    assert np.allclose(layers["top_eigenvalue"], study["fisher_spectrum"]["top_eigenvalue"])
    assert np.allclose(layers["loss_increase (mean over head)"], study["ablation"]["loss_increase"].mean("head"))
    health = study["gradient_health"]
    expected = health["grad_rms"].where(health["module_layer"] == 1, drop=True).mean()
    assert np.isclose(layers["grad_rms (mean over module)"][1], expected)
    heads = study.frame("layer", "head")
    assert np.isclose(heads.loc[(1, 2), "loss_increase"], study["ablation"]["loss_increase"].sel(layer=1, head=2))
    with pytest.raises(LookupError, match="no variable lives on query: the results have the dimensions component, head"):
        study.frame("query")


def test_contributions_are_the_squares_of_per_sample_gradients_by_exact_task_name():
    scope = ts.Scope(random_gpt2())
    samples = ts.Samples.tokens(IDS, task="math") + ts.Samples.tokens(IDS[:2] % 49 + 1, task="math_hard")
    found = ts.Study(scope, samples).contributions
    assert list(found) == ["math", "math_hard"] and list(found["math"]) == ["math-0", "math-1", "math-2"]
    g = scope.per_sample_gradients(samples)
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.allclose(found["math"]["math-1"][name], g[name][1] ** 2, atol=1e-9)
    assert found["math_hard"]["math_hard-0"][name].shape == (24, 72)
    assert torch.allclose(found.fisher("math_hard", name), (g[name][3:] ** 2).mean(0), atol=1e-9)
    with pytest.raises(KeyError, match="there is no task 'mat': there are math, math_hard"):
        found["mat"]


def test_joined_results_say_what_each_member_was(tmp_path):
    import json

    scopes = {'a"b\\c': ts.Scope(random_gpt2(0)), "other": ts.Scope(random_gpt2(1))}
    study = ts.Study(scopes, IDS).run(ts.recipes.gradient_health)
    members = json.loads(study["gradient_health"].attrs["tensorscope"])["members"]
    assert len({member["weights"] for member in members.values()}) == 2
    alone = [ts.recipes.gradient_health(scope, IDS).attrs["depth_slope"] for scope in scopes.values()]
    assert np.allclose(study["gradient_health"]["depth_slope"], alone)
    again = ts.Study.open(study.save(tmp_path / "study"))["gradient_health"]
    assert again["model"].values.tolist() == list(scopes)


@pytest.mark.parametrize("name", ["../escaped", "/abs", "a/b", "x" * 300, "", "nul\0"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="it names a file"):
        ts.recipes.ablation.using(name=name)


def test_the_dashboard_shows_what_the_study_holds():
    study = ts.Study(ts.Scope(random_gpt2()), IDS).run(ts.recipes.ablation.using(per_sample=True), ts.recipes.fisher_spectrum)
    kinds = [type(part).__name__ for part in study.view().parts]
    assert "HeadGrid" in kinds and "SampleTable" in kinds
    empty = ts.Study(ts.Scope(random_gpt2()), IDS)
    live = empty.view()
    assert live.parts == []
    empty.run(ts.recipes.ablation)  # a view that was made before the run shows what it finds
    assert [type(part).__name__ for part in live.parts] == ["HeadGrid"] and live.status["state"] == "done"


def test_a_table_has_no_means_over_different_things():
    """Over metrics, selections and controls a mean is of different units, or of a finding and its control."""
    made = {
        "tried": xr.Dataset({"measured": (("metric", "module"), np.eye(2)), "size": (("module", "sample"), np.ones((2, 3)))}),
        "beside": xr.Dataset({"increase": (("selection", "ratio"), np.eye(2)), "chosen": ("ratio", [1.0, 2.0])}),
    }
    assert frame(made, ["module"]).columns.tolist() == ["size (mean over sample)"]
    assert frame(made, ["ratio"]).columns.tolist() == ["chosen"]
    assert frame(made, ["metric", "module"]).columns.tolist() == ["measured"]
