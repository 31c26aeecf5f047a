import doctest
import importlib
import json

import numpy as np
import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

IDS = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))

DOCUMENTED = [
    "tensorscope_nb.models.checkpoints", "tensorscope_nb.models.load", "tensorscope_nb.recipes.ablation", "tensorscope_nb.recipes.attention",
    "tensorscope_nb.recipes.compare_models",
    "tensorscope_nb.recipes.induction", "tensorscope_nb.recipes.recipe", "tensorscope_nb.recipes.conflict", "tensorscope_nb.recipes.curation",
    "tensorscope_nb.recipes.interference", "tensorscope_nb.recipes.overlap", "tensorscope_nb.recipes.perturbation", "tensorscope_nb.recipes.compare_perturbations", "tensorscope_nb.recipes.weight_list", "tensorscope_nb.recipes.removal", "tensorscope_nb.recipes.sample_conflicts",
    "tensorscope_nb.recipes.fisher", "tensorscope_nb.recipes.health", "tensorscope_nb.recipes.importance_scores", "tensorscope_nb.numerics.cover", "tensorscope_nb.recipes.lora",
    "tensorscope_nb.recipes.landscape", "tensorscope_nb.recipes.sharpness", "tensorscope_nb.recipes.fiber_bundle",
    "tensorscope_nb.recipes.singularities", "tensorscope_nb.recipes.superposition", "tensorscope_nb.recipes.tickets",
    "tensorscope_nb.samples.samples", "tensorscope_nb.scope.anatomy",
    "tensorscope_nb.scope.scope", "tensorscope_nb.settings", "tensorscope_nb.study.study",
]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_examples_in_the_docstrings_run(name):
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder().find(module)
    for value in vars(module).values():  # a recipe is an object: its docstring is found through its function
        if isinstance(value, ts.recipes.Recipe) and value.__module__ == name:
            tests += doctest.DocTestFinder().find(value.function, value.name)
    runner = doctest.DocTestRunner()
    with ts.options(progress=False):  # a bar that appears after a second would be output
        ran = sum(runner.run(test).attempted for test in tests)
    assert ran and not runner.failures


def test_attention_patterns_are_those_of_the_model_with_padding_marked():
    scope = ts.Scope(random_gpt2())
    mask = torch.ones_like(IDS)
    mask[1, 5:] = 0
    found = ts.recipes.attention_patterns(scope, ts.Samples.tokens(IDS, mask))
    pattern = found["pattern"]
    assert pattern.dims == ("sample", "layer", "head", "query", "key")
    alone = scope.record(IDS[1:2, :5], "layers.1.attn.pattern")["layers.1.attn.pattern"][0]
    assert np.allclose(pattern.sel(sample="samples-1", layer=1).values[:, :5, :5], alone, atol=1e-6)
    assert np.isnan(pattern.values[1][..., 5:, :]).all() and np.isnan(pattern.values[1][..., :, 5:]).all()
    assert np.allclose(pattern.sel(sample="samples-0").sum("key"), 1, atol=1e-5)
    assert found["token"].sel(sample="samples-1").values.tolist() == [str(i) for i in IDS[1, :5].tolist()] + [""] * 4


def test_using_fixes_options_and_refuses_unknown_ones():
    scope = ts.Scope(random_gpt2())
    fixed = ts.recipes.ablation.using(method="zero", name="zeroed")
    assert fixed.name == "zeroed" and fixed.question == ts.recipes.ablation.question
    assert fixed(scope, IDS)["loss_increase"].equals(ts.recipes.ablation(scope, IDS, method="zero")["loss_increase"])
    with pytest.raises(TypeError, match="ablation has no option methode: it has samples, units, method"):
        ts.recipes.ablation.using(methode="zero")


def test_the_catalogue_names_a_question_and_a_source_for_each():
    table = ts.recipes.catalogue()
    assert {"induction_heads", "ablation", "attention_patterns"} <= set(table["name"])
    assert table["question"].str.endswith("?").all() and table["source"].str.contains("arXiv|doi:|of no paper").all()


def test_the_catalogue_tells_what_each_costs_and_which_dimensions_its_result_has():
    table = ts.recipes.catalogue().set_index("name")
    assert (table["cost"].str.len() > 5).all()
    assert (table["dims"].drop("lora_targets").str.len() > 0).all()
    scope = ts.Scope(random_gpt2())
    for recipe in (ts.recipes.gradient_health, ts.recipes.grouped_fisher, ts.recipes.ablation):
        told = {dim for group in table.loc[recipe.name, "dims"].split("; ") for dim in group.split(", ")}
        assert set(recipe(scope, IDS).sizes) <= told


def test_a_result_says_what_its_recipe_reads():
    scope = ts.Scope(random_gpt2())
    for recipe, needs in ((ts.recipes.ablation, ["losses"]), (ts.recipes.magnitude_importance, ["weights"])):
        result = recipe(scope, IDS)
        assert json.loads(result.attrs["tensorscope"])["needs"] == needs == list(recipe.needs)
