import numpy as np
import pytest
import torch
from tiny_models import random_gpt2

import tensorscope_nb as ts

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
