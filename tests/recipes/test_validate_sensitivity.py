"""What metrics predict against what happens: by hand, in closed form, and where nothing can be predicted."""

import copy
import importlib
import json

import numpy as np
import pytest
import torch
from quadratic_model import quadratic
from scipy.stats import spearmanr
from tiny_models import random_gpt2

import tensorscope_nb as ts

validate = ts.recipes.validate_sensitivity
module = importlib.import_module("tensorscope_nb.recipes.validate_sensitivity")


@pytest.fixture(scope="module")
def scope():
    return ts.Scope(random_gpt2().double())


def tokens(n, seed, length=9):
    return ts.Samples.tokens(torch.randint(1, 50, (n, length), generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def found(scope):
    evaluation = tokens(8, 2)
    evaluation.inputs["attention_mask"][3, 4:] = 0
    return validate(scope, tokens(12, 1), evaluation, per_module=5, top=40, n_seeds=2, n_probes=4, per_sample=True), evaluation


def loss(scope, samples):
    terms = scope.rule.n_terms(samples).double()
    return float((scope.losses(samples) * terms).sum() / terms.sum())


@pytest.mark.parametrize("metric", ["grad_x_weight", "grad_squared", "magnitude"])
def test_measured_is_the_loss_without_the_modules_best_weights(scope, found, metric):
    found, evaluation = found
    for name in ("transformer.h.0.attn.c_attn", "transformer.wte", "transformer.ln_f"):
        ranked = ts.recipes.critical_weights(scope, tokens(12, 1), metric=metric, top=5, modules=name)
        model = copy.deepcopy(scope.model)
        for parameter, index in zip(ranked["parameter_name"].values, ranked["index"].values, strict=True):
            model.get_parameter(parameter).data.view(-1)[int(index)] = 0
        row = found.sel(metric=metric, module=name)
        increase = loss(ts.Scope(model), evaluation) - loss(scope, evaluation)
        assert np.isclose(float(row["measured"]), increase, atol=1e-12) and abs(increase) > 1e-6
        assert int(row["n_changed"]) == int(row["n_chosen"]) == 5
        assert np.isclose(float(row["sensitivity"]), float(ranked["sensitivity"].sum()))
        promised = ranked["predicted_increase"] if metric != "magnitude" else ranked["sensitivity"]
        assert np.isclose(float(row["predicted"]), float(promised.sum()))
    assert np.isclose(float(found["baseline_loss"]), loss(scope, evaluation))


def test_correlations_are_those_of_the_columns(scope, found):
    found, _ = found
    for metric in found["metric"].values:
        row = found.sel(metric=metric)
        assert np.isclose(float(row["spearman"]), spearmanr(row["predicted"], row["measured"]).statistic)
        size = spearmanr(row["sensitivity"], abs(row["measured"])).statistic
        assert np.isclose(float(row["spearman_sensitivity"]), size)
        assert float(row["spearman_ci_low"]) <= float(row["spearman"]) <= float(row["spearman_ci_high"])
        norm = row["module_block"].values == "norm"
        for kind, own in (("norm", norm), ("matrix", ~norm)):
            within = spearmanr(row["predicted"][own], row["measured"][own]).statistic
            assert (
                np.isclose(float(row["spearman_within"].sel(kind=kind)), within)
                and int(row["n_modules"].sel(kind=kind)) == own.sum()
            )
            within = spearmanr(row["sensitivity"][own], abs(row["measured"][own])).statistic
            assert np.isclose(float(row["spearman_sensitivity_within"].sel(kind=kind)), within)
    terms = np.array([8, 8, 8, 3, 8, 8, 8, 8])
    mean = (found["measured_by_sample"].values * terms[:, None, None]).sum(0) / terms.sum()
    assert np.allclose(mean, found["measured"])


def test_lists_of_the_whole_model_are_compared(scope, found):
    found, _ = found
    lists = {}
    for metric in ("grad_x_weight", "grad_squared"):
        ranked = ts.recipes.critical_weights(scope, tokens(12, 1), metric=metric, top=40)
        lists[metric] = set(ranked["parameter"].values.tolist())
        assert np.isclose(float(found["stability"].sel(metric=metric)), float(ranked["stability"].mean()))
    a, b = lists.values()
    index = found["jaccard"].sel(metric_a="grad_squared", metric_b="grad_x_weight")
    assert float(index) == len(a & b) / len(a | b) > float(found["chance"][0, 1])
    assert (np.diagonal(found["jaccard"]) == 1).all()


def test_of_a_quadratic_half_of_the_first_order_happens():
    """L = ½ Σ a w²: zeroing takes ½ a w² off, and the gradient promises a w²."""
    scope, samples, _, _ = quadratic(d=8, n=6)
    diagonal = torch.diag_embed(torch.diagonal(samples.labels, dim1=1, dim2=2))
    same = ts.Samples.tensors(torch.zeros(6, 1), diagonal.mean(0).expand(6, -1, -1) * torch.arange(1, 7)[:, None, None] / 3.5)
    one, other = same, ts.Samples.tensors(torch.ones(6, 1), same.labels)
    found = validate(scope, one, other, per_module=3, top=2, metrics=("grad_x_weight",))
    assert np.isclose(found["measured"].item(), found["predicted"].item() / 2) and found["measured"].item() < 0
    assert np.isnan(found["spearman"]).all()  # of one module


def test_random_weights_are_another_choice_for_each_draw_and_stay_in_their_module(scope):
    sizes = {name: p.nelement() for name, p in scope.model.named_parameters()}
    sets = module._at_random(sizes, ["transformer.h.1.mlp.c_fc", "transformer.ln_f"], 7, 3, 0)
    seen = set()
    for (_, name, _), weights in sets.items():
        chosen = [(parameter, i) for parameter, places in weights for i in places]
        assert len(set(chosen)) == 7 and all(parameter.rpartition(".")[0] == name for parameter, _ in chosen)
        assert all(0 <= i < scope.model.get_parameter(parameter).nelement() for parameter, i in chosen)
        seen.add(tuple(chosen))
    assert len(seen) == 6


def test_the_model_is_left_as_it_was(scope):
    before = {name: p.detach().clone() for name, p in scope.model.named_parameters()}
    validate(scope, tokens(4, 1), tokens(3, 2), per_module=3, top=5, metrics=("magnitude",), n_seeds=1)
    assert all(torch.equal(p, before[name]) for name, p in scope.model.named_parameters())


def test_equal_seeds_are_equal_and_what_is_said(scope):
    a, b = (validate(scope, tokens(4, 1), tokens(3, 2), per_module=3, top=5, metrics=("magnitude",), seed=4) for _ in range(2))
    assert a.drop_attrs().identical(b.drop_attrs())
    said = json.loads(a.attrs["tensorscope"])
    assert said["data"] == tokens(3, 2).fingerprint and said["calibration"] == tokens(4, 1).fingerprint and said["n_tokens"] == 24


def test_half_precision_is_validated_by_its_losses():
    scope = ts.Scope(random_gpt2().bfloat16())
    found = validate(scope, tokens(4, 1), tokens(3, 2), per_module=3, top=5, metrics=("grad_squared", "magnitude"), n_seeds=1)
    assert (found["n_changed"] == found["n_chosen"]).all() and np.isfinite(found["measured"]).all()
    model = copy.deepcopy(scope.model)
    name = "transformer.h.1.mlp.c_fc"
    ranked = ts.recipes.critical_weights(scope, tokens(4, 1), metric="grad_squared", top=3, modules=name)
    for parameter, index in zip(ranked["parameter_name"].values, ranked["index"].values, strict=True):
        model.get_parameter(parameter).data.view(-1)[int(index)] = 0
    increase = loss(ts.Scope(model), tokens(3, 2)) - loss(scope, tokens(3, 2))
    assert np.isclose(float(found["measured"].sel(metric="grad_squared", module=name)), increase, atol=1e-6) and increase


class Quotient(torch.nn.Module):
    """Without its divisor there is no loss."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList([torch.nn.Linear(4, 3) for _ in range(3)])
        self.by = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, x):
        return sum(part(x) for part in self.parts) / self.by


def test_what_is_missing_is_said():
    x, y = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    options = {"metrics": ("grad_squared", "magnitude"), "per_module": 2, "top": 4, "n_seeds": 1}
    scope = ts.Scope(Quotient())
    found = validate(scope, ts.Samples.tensors(x[:1], y[:1]), ts.Samples.tensors(x[1:2], y[1:2]), **options)
    assert np.isnan(found["spearman"]).all() and np.isposinf(found["measured"].sel(module="")).all()
    notes = json.loads(found.attrs["tensorscope"])["notes"]
    assert [note.partition(":")[0] for note in notes[:2]] == [
        "grad_squared has no stability, and its correlation an interval without the noise of the ranking",
        "one evaluation sample does not say how others differ",
    ]
    assert notes[0].endswith("one sample cannot be split") and len(notes) == 4 and "a loss is no finite number" in notes[3]
    few = validate(scope, ts.Samples.tensors(x[:4], y[:4]), ts.Samples.tensors(x[4:], y[4:]), modules="parts.*", **options)
    assert json.loads(few.attrs["tensorscope"])["notes"] == [
        "one draw at random does not say how others differ: random has no interval, raise n_seeds=",
        "there are 3 modules, and a rank correlation of fewer than 4 says nothing: it is NaN",
    ]


@pytest.mark.parametrize("options, says", [
    ({"metrics": [["magnitude"]]}, r"metrics is \[\['magnitude'\]\]: give some of"),
    ({"metrics": ("taylor",)}, r"metrics is \('taylor',\): give some of grad_x_weight, grad_squared, hessian_diag, magnitude"),
    ({"metrics": ()}, r"metrics is \(\): give some of"),
    ({"per_module": 0}, "per_module is 0: give a whole number from 1 on"),
    ({"top": 10**8}, "top is 100000000 and there are 16,272 weights: ask for fewer"),
])  # fmt: skip
def test_bad_input_is_one_line(scope, options, says):
    with pytest.raises(ValueError, match=says):
        validate(scope, tokens(4, 1), tokens(3, 2), **options)


def test_what_was_ranked_on_cannot_test_the_ranking(scope):
    calibration = tokens(4, 1)
    others = tokens(3, 2) + ts.Samples.tokens(calibration.input_ids[2:3], task="renamed")
    with pytest.raises(ValueError, match="evaluation sample 'renamed-0' is calibration sample 'samples-2': it cannot test"):
        validate(scope, calibration, others)
