"""What a change of weights does: against closed forms, changes by hand, and what must not happen."""

import copy
import json
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from listed import critical
from quadratic_model import quadratic
from tiny_models import random_gpt2
from torch import nn
from unequal_sizes import half_width

import tensorscope_nb as ts
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.sweep.request import Unfinished

perturbation = ts.recipes.perturbation
OPTIONS = {"gaussian": {"sigma": 0.3}, "scale": {"factor": -1.7}, "bit_flip": {"bit": 20}}
METHODS = ["zero", "sign_flip", "gaussian", "scale", "bit_flip"]


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def language(dtype=torch.float32, **changes):
    ids = torch.randint(1, 50, (6, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, 6:] = 0
    return ts.Scope(random_gpt2(**changes).to(dtype)), ts.Samples.tokens(ids, mask)


def ranked(scope, samples, n=12):
    """The largest and the least |g w| of all weights, the latter as many in each layer."""
    gradients = scope.per_sample_gradients(samples)
    terms = scope.rule.n_terms(samples).double()
    found = []
    for name, p in scope.model.named_parameters():
        mean = torch.einsum("n,n...->...", terms / terms.sum(), gradients[name].double())
        layer = int(name.split(".")[2]) if ".h." in name else -1
        found += [(abs(s), layer, name, i) for i, s in enumerate((mean * p.detach()).flatten().tolist())]
    found.sort(key=lambda each: -each[0])
    top = found[:n]
    bottom = []
    for layer in (-1, 0, 1):
        own = [
            each
            for each in reversed(found)
            if each[1] == layer and float(scope.model.get_parameter(each[2]).detach().flatten()[each[3]])
        ]
        bottom += own[: sum(each[1] == layer for each in top)]
    return critical(scope, [each[2:] for each in top], [each[2:] for each in bottom])


def bits(model):
    return [p.detach().contiguous().reshape(-1).view(torch.uint8).clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def notes(result):
    return " ".join(json.loads(result.attrs["tensorscope"])["notes"])


def listed(name, *indices):
    return pd.DataFrame({"layer": [name] * len(indices), "indices": [str(i) for i in indices]})


def test_of_a_quadratic_the_increase_is_the_closed_form_and_the_second_order_exact():
    scope, samples, a, w = quadratic(d=30)
    for rows in ([3], [3, 0, 4, 11]):
        for method, delta in (("zero", -w), ("sign_flip", -2 * w), ("scale", 0.25 * w)):
            found = perturbation(
                scope, samples, listed("weight", *[(0, i) for i in rows]), method=method, controls=("random",),
                factor=1.25 if method == "scale" else 0.5, n_seeds=2,
            )  # fmt: skip
            step = torch.zeros(30, dtype=torch.float64)
            step[rows] = delta[rows]
            first, second = float(w @ a @ step), float(w @ a @ step + step @ a @ step / 2)
            top = found.sel(selection="top", ratio=1.0)
            np.testing.assert_allclose(top["loss_increase"], [second] * 2, rtol=1e-10)
            np.testing.assert_allclose(top["second_order"], [second] * 2, rtol=1e-10)
            np.testing.assert_allclose(top["first_order"], [first] * 2, rtol=1e-10)
            np.testing.assert_allclose(found["predicted"], found["loss_increase_mean"], rtol=1e-9)
            np.testing.assert_allclose(found["loss_increase"], found["second_order"], rtol=1e-9)
            assert float(top["weight_rms"]) == pytest.approx(float(w[rows].square().mean().sqrt()))


@pytest.mark.parametrize("method", METHODS)
def test_the_measured_loss_is_that_of_a_model_changed_by_hand(method):
    scope, samples = language()
    ranking = ranked(scope, samples)
    found = perturbation(
        scope, samples, ranking, method=method, **OPTIONS.get(method, {}), ratios=(0.25, 1.0), n_seeds=2, per_sample=True
    )
    terms = scope.rule.n_terms(samples).double()
    before = scope.losses(samples).double()
    for selection, prefix in (("top", ""), ("bottom", "bottom_")):
        names, index = ranking[prefix + "parameter_name"].values, ranking[prefix + "index"].values
        for ratio, count in ((0.25, 3), (1.0, 12)):
            if method == "gaussian" or (selection == "bottom" and ratio < 1):
                continue  # noise is tested below; which bottom weights come first is by layer
            other = ts.Scope(copy.deepcopy(scope.model))
            for name, i in zip(names[:count], index[:count]):
                p = other.model.get_parameter(name).data.view(-1)
                if method == "bit_flip":
                    stored = p[int(i) : int(i) + 1].numpy().view(np.uint32)
                    stored ^= np.uint32(1 << 20)
                else:
                    p[int(i)] *= {"zero": 0, "sign_flip": -1, "scale": -1.7}[method]
            each = other.losses(samples).double() - before
            here = found.sel(selection=selection, ratio=ratio)
            np.testing.assert_allclose(here["loss_increase"], [float(each @ terms / terms.sum())] * 2, rtol=1e-5, atol=1e-8)
            np.testing.assert_allclose(here["loss_increase_by_sample"], each, rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(here["perplexity"], np.exp(here["loss_increase"] + found["baseline_loss"]))
            assert here["n_changed"].values.tolist() == [count] * 2
    assert float(found["baseline_perplexity"]) == pytest.approx(float(scope.perplexity(samples)), rel=1e-5)
    assert found["n_chosen"].values.tolist() == [3, 12] and not found["broken"].any()


@pytest.mark.parametrize("method", ["gaussian", "scale"])
def test_for_tiny_steps_the_measured_increase_is_the_first_order_with_slope_one(method):
    scope, samples = language(torch.float64)
    rng = np.random.default_rng(0)
    names = [name for name, p in scope.model.named_parameters() if p.ndim == 2]
    measured, first, second = [], [], []
    for i in range(40):
        entries = {(name := rng.choice(names), int(rng.integers(scope.model.get_parameter(name).nelement()))) for _ in range(10)}
        options = {"sigma": 1e-4} if method == "gaussian" else {"factor": 1 + 1e-4}
        found = perturbation(
            scope, samples, critical(scope, list(entries)), method=method, controls=(), n_seeds=1, seed=i, **options
        )
        for values, variable in ((measured, "loss_increase"), (first, "first_order"), (second, "second_order")):
            values.append(found[variable].item())
    measured, first, second = map(np.array, (measured, first, second))
    assert measured @ first / (first @ first) == pytest.approx(1, abs=2e-3)
    assert measured @ second / (second @ second) == pytest.approx(1, abs=1e-6)
    assert np.abs(measured - second).max() < 1e-2 * np.abs(measured - first).max() < 1e-4 * np.abs(measured).max()


def test_the_weights_are_zero_in_the_forward_and_no_others():
    scope, samples = language()
    ranking = ranked(scope, samples)
    own = sum(int((p == 0).sum()) for p in scope.model.parameters())
    original, seen = bits(scope.model), []

    def look(module, args, kwargs):
        differing = sum(int((now.view(torch.int32) != then.view(torch.int32)).sum()) for now, then in zip(bits(module), original))
        seen.append((sum(int((p == 0).sum()) for p in module.parameters()) - own, differing))

    hook = scope.model.register_forward_pre_hook(look, with_kwargs=True)
    found = perturbation(scope, samples, ranking, ratios=(0.25, 0.5, 1.0), n_seeds=2, second_order=False)
    hook.remove()
    assert [each for each in seen if each[0]] == [(n, n) for n in [3, 6, 12] * 4]  # top, random, bottom, random
    assert found["n_changed"].sel(selection="top", replicate=0).values.tolist() == [3, 6, 12]


@pytest.mark.parametrize("bit", [None, 3])
@pytest.mark.parametrize(
    "dtype, kind",
    [(torch.float64, np.uint64), (torch.float32, np.uint32), (torch.float16, np.uint16), (torch.bfloat16, np.uint16)],
)
def test_a_bit_flip_flips_one_bit_of_each_number_as_it_is_stored(dtype, kind, bit):
    scope, samples = language(dtype)
    p = scope.model.transformer.h[0].mlp.c_fc.weight
    places = [(0, i) for i in range(20)]
    integers = lambda: np.frombuffer(p.detach()[0, :20].contiguous().view(torch.uint8).numpy().tobytes(), kind)
    before, seen = integers(), []
    hook = scope.model.register_forward_pre_hook(lambda module, inputs: seen.append(integers()))
    found = perturbation(
        scope, samples, listed("transformer.h.0.mlp.c_fc", *places), method="bit_flip", bit=bit, controls=(), n_seeds=4
    )
    hook.remove()
    flips = [before ^ each for each in seen if (each != before).any()]
    assert len(flips) == (4 if bit is None else 1) and (found["n_changed"] == 20).all()
    if bit is None:
        numbers = np.log2(np.concatenate(flips).astype(float))
        assert (numbers == np.round(numbers)).all() and len(set(numbers)) > 0.6 * 8 * dtype.itemsize
    else:
        assert (flips[0] == 8).all()
    assert ("lost in rounding" in notes(found)) == (dtype.itemsize == 2) == bool(found["predicted"].isnull().all())


def test_gaussian_noise_has_the_size_it_says_and_is_another_in_each_replicate():
    scope, samples = language(torch.float64)
    p = scope.model.transformer.h[0].mlp.c_fc.weight
    places = [(i, j) for i in range(10) for j in range(96)]
    for relative_to in ("weight", "parameter"):
        seen, before = [], p.detach().clone()
        hook = scope.model.register_forward_pre_hook(
            lambda module, inputs, seen=seen, before=before: seen.append(p.detach() - before)
        )
        options = {"sigma": 0.01, "relative_to": relative_to, "controls": (), "n_seeds": 3, "second_order": False}
        perturbation(scope, samples, listed("transformer.h.0.mlp.c_fc", *places), method="gaussian", **options)
        hook.remove()
        steps = torch.stack([each for each in seen if each.any()])[:, :10]
        z = steps / 0.01 / (before[:10].abs() if relative_to == "weight" else before.std(correction=0))
        assert len(z) == 3 and abs(float(z.mean())) < 4 / 54 and abs(float(z.std()) - 1) < 4 / 76
        correlation = np.corrcoef(z.flatten(1).numpy())
        assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 4 / 31


@pytest.mark.parametrize("method", ["zero", "gaussian", "bit_flip"])
def test_a_smaller_ratio_is_part_of_a_larger_one(method):
    scope, samples = language()
    ranking = ranked(scope, samples)
    options = {"method": method, "n_seeds": 3, "seed": 4, "second_order": False}
    several = perturbation(scope, samples, ranking, ratios=(0.25, 0.5, 1.0), **options)
    for ratio in (0.25, 0.5):
        alone = perturbation(scope, samples, ranking, ratios=(ratio,), **options)
        for variable in ("loss_increase", "n_changed", "first_order", "excess", "ci_low"):
            np.testing.assert_array_equal(several[variable].sel(ratio=ratio), alone[variable].sel(ratio=ratio))
    again = perturbation(scope, samples, ranking, ratios=(1.0,), **options | {"seed": 5})
    assert (again["loss_increase"].sel(selection="random") != several["loss_increase"].sel(selection="random", ratio=[1.0])).any()
    more = perturbation(scope, samples, ranking, ratios=(1.0,), **options | {"n_seeds": 4})
    np.testing.assert_array_equal(more["loss_increase"][..., :3], several["loss_increase"].sel(ratio=[1.0]))


def test_controls_are_of_the_same_layers_and_sizes_and_none_of_the_list():
    scope, samples = language(n_embd=48)
    rng, entries = np.random.default_rng(0), []
    for layer in (0, 1):
        for module, n in (("mlp.c_fc", 30 + 20 * layer), ("attn.c_attn", 2000)):
            name = f"transformer.h.{layer}.{module}.weight"
            size = scope.model.get_parameter(name).nelement()
            entries += [(name, int(i)) for i in rng.permutation(size)[:n]]
    proj = [(f"transformer.h.{layer}.mlp.c_proj.weight", i) for layer in (1, 0) for i in range(70)]
    ranking = critical(scope, entries, proj)
    held, before = [], {name: p.detach().clone() for name, p in scope.model.named_parameters()}

    def look(module, inputs):
        held.append({(name, int(i)) for name, p in module.named_parameters() for i in (p != before[name]).flatten().nonzero()})

    hook = scope.model.register_forward_pre_hook(look)
    found = perturbation(scope, samples, ranking, method="sign_flip", n_seeds=5, second_order=False, modules="*.c_fc")
    hook.remove()
    runs = [each for each in held if each]
    top, random, bottom = runs[0], [runs[1], *runs[3:]], runs[2]
    assert len(runs) == 7 and top == {each for each in entries if "c_fc" in each[0]}
    assert bottom == {*proj[:50], *proj[70:100]}  # the first of each layer, as many as are chosen of it
    layers = lambda some: sorted(name.split(".")[2] for name, _ in some)
    sizes = lambda some, layer: np.sort([float(before[n].flatten()[i].abs()) for n, i in some if n.split(".")[2] == layer])
    for drawn in random:
        assert not drawn & set(entries) and layers(drawn) == layers(top)
        for layer in ("0", "1"):
            ratio = np.log(sizes(drawn, layer) / sizes(top, layer))
            assert np.abs(ratio[3:]).max() < 0.05 and np.median(np.abs(ratio)) < 0.01
    assert len(set().union(*random)) > 4 * len(top)
    rms = found["weight_rms"].sel(ratio=1.0)
    assert float(rms.sel(selection="random")) == pytest.approx(float(rms.sel(selection="top")), rel=0.01)
    squares = np.concatenate([sizes(top, layer) for layer in ("0", "1")]) ** 2
    assert float(rms.sel(selection="top")) == pytest.approx(np.sqrt(squares.mean()), rel=1e-6)
    n_weights = found["n_weights"].to_series()
    assert n_weights.groupby("selection").sum().to_dict() == {"top": 80, "random": pytest.approx(80), "bottom": 80}
    assert n_weights["top", "transformer.h.0.mlp.c_fc"] == 30 and n_weights["bottom", "transformer.h.1.mlp.c_proj"] == 50


def test_dead_weights_change_nothing_exactly():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = nn.Linear(8, 5), torch.randn(12, 8)
    x[:, 4:] = 0  # what these inputs are multiplied by has no gradient
    scope, samples = ts.Scope(model), ts.Samples.tensors(x, torch.arange(12) % 5)
    ranking = critical(scope, [("weight", i) for i in (0, 9, 18)], [("weight", i) for i in (4, 13, 23)])
    for method in METHODS[:4]:
        found = perturbation(scope, samples, ranking, method=method, n_seeds=3, **OPTIONS.get(method, {}))
        dead = found.sel(selection="bottom")
        for variable in ("loss_increase", "first_order", "second_order"):
            assert (dead[variable] == 0).all() and (found[variable].sel(selection="top") != 0).all()
        assert (dead["n_changed"] == 3).all() and (dead["ci_low"] == 0).all() and (dead["ci_high"] == 0).all()
        excess = found.sel(control="bottom")
        np.testing.assert_allclose(excess["excess"], found["loss_increase_mean"].sel(selection="top"))
        np.testing.assert_allclose(excess["excess_ci_low"], found["ci_low"].sel(selection="top"))
    assert "perplexity" not in found


def test_critical_weights_hurt_more_than_their_controls():
    scope, samples = language()
    found = perturbation(scope, samples, ranked(scope, samples, n=40), n_seeds=5)
    mean = found["loss_increase_mean"].sel(ratio=1.0)
    excess = float(mean.sel(selection="top") - mean.sel(selection="random"))
    assert found["excess"].sel(control="random").item() == pytest.approx(excess)
    assert abs(float(mean.sel(selection="bottom"))) < 1e-3 < abs(float(mean.sel(selection="top")))
    assert (found["excess_ci_low"] < found["excess"]).all() and (found["excess"] < found["excess_ci_high"]).all()


def test_the_list_of_critical_weights_is_taken_as_it_is_and_samples_it_was_ranked_on_are_noted():
    scope, samples = language()
    ranking = ts.recipes.critical_weights(scope, samples[:3], top=20)
    for kept, same in ((samples[:3], True), (samples[3:], False)):
        found = perturbation(scope, kept, ranking, n_seeds=2)
        assert ("samples that the list was ranked on" in notes(found)) == same
        assert found["n_changed"].sel(selection="top").values.tolist() == [[20, 20]]
    # setting one weight to zero: what the list predicts is the first order
    for i in range(3):
        alone = perturbation(scope, samples[:3], ts.recipes.weight_table(ranking).iloc[[i]], controls=(), n_seeds=1)
        assert alone["first_order"].item() == pytest.approx(float(ranking["predicted_increase"][i]), rel=1e-3)


def test_a_share_of_a_list_by_layers_is_a_share_of_each_layer():
    scope, samples = language()
    ranking = ts.recipes.critical_weights(scope, samples, top=10, per_layer=True)
    found = perturbation(scope, samples, ranking, ratios=(0.2, 1.0), n_seeds=2)
    half = perturbation(scope, samples, ts.recipes.critical_weights(scope, samples, top=2, per_layer=True), n_seeds=2)
    np.testing.assert_allclose(
        found["loss_increase"].sel(ratio=0.2, selection="top"), half["loss_increase"].sel(ratio=1.0, selection="top")
    )


def test_a_fixed_selection_stands_in_every_replicate_and_noise_does_not():
    scope, samples = language()
    found = perturbation(scope, samples, ranked(scope, samples), n_seeds=3)["loss_increase"].sel(ratio=1.0)
    assert [len(set(found.sel(selection=s).values)) for s in ("top", "random", "bottom")] == [1, 3, 1]
    noisy = perturbation(scope, samples, ranked(scope, samples), n_seeds=3, method="gaussian")["loss_increase"].sel(ratio=1.0)
    assert [len(set(noisy.sel(selection=s).values)) for s in ("top", "random")] == [3, 3]


def test_intervals_need_two_replicates_only_where_they_differ():
    scope, samples = language()
    found = perturbation(scope, samples, ranked(scope, samples), n_seeds=1)
    assert found["ci_low"].isnull().sel(ratio=1.0).values.tolist() == [False, True, False]
    assert found["excess_ci_low"].isnull().sel(ratio=1.0).values.tolist() == [True, False]
    assert "raise n_seeds=" in notes(found)
    one = perturbation(scope, samples[:1], ranked(scope, samples), n_seeds=3)
    assert one["ci_low"].isnull().all() and "one sample does not say" in notes(one)


def test_the_paired_interval_is_that_of_the_ratio_of_the_differences():
    scope, samples = language()
    found = perturbation(scope, samples, ranked(scope, samples), n_seeds=2, per_sample=True)
    terms = scope.rule.n_terms(samples).double().numpy()
    each = found["loss_increase_by_sample"].sel(ratio=1.0)
    difference = (each.sel(selection="top") - each.sel(selection="bottom")).values * terms
    ratio = difference.sum() / terms.sum()
    here = found.sel(control="bottom", ratio=1.0)
    assert float(here["excess"]) == pytest.approx(ratio)
    assert float(here["excess_ci_high"]) == pytest.approx(ratio + half_width(difference, terms))


def test_a_broken_model_has_an_infinite_loss_and_no_interval():
    scope, samples = language()
    p = scope.model.transformer.h[0].attn.c_attn.weight
    with torch.no_grad():
        p[0, 0] = 1.5  # its highest exponent bit makes it infinite
    found = perturbation(
        scope,
        samples,
        listed("transformer.h.0.attn.c_attn", (0, 0), (0, 1)),
        method="bit_flip",
        bit=30,
        controls=("random",),
        n_seeds=2,
        per_sample=True,
    )
    top = found.sel(selection="top", ratio=1.0)
    assert top["broken"].all() and np.isposinf(top["loss_increase"]).all() and np.isposinf(top["perplexity"]).all()
    assert np.isposinf(top["loss_increase_mean"].item()) and top["ci_low"].isnull() and top["ci_high"].isnull()
    assert top["first_order"].isnull().all() and top["second_order"].isnull().all() and top["predicted"].isnull()
    assert np.isposinf(top["loss_increase_by_sample"]).all() and (top["n_changed"] == 2).all()
    assert "there is no interval" in notes(found) and "nothing is predicted" in notes(found)
    assert found["excess_ci_low"].isnull().all() and not np.isfinite(found["excess"]).any()
    assert scope.losses(samples).isfinite().all()


def test_a_replicate_that_breaks_is_not_left_out_of_the_mean():
    scope, samples = language()
    found = perturbation(scope, samples, ranked(scope, samples), method="bit_flip", n_seeds=8, second_order=False)
    broken = found["broken"].any("replicate")
    assert broken.any() and not found["broken"].all()
    assert (np.isposinf(found["loss_increase_mean"]) == broken).all() and (found["ci_low"].isnull() == broken).all()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_left_bit_for_bit_also_where_the_loss_raises(error):
    scope, samples = language()
    before, calls = bits(scope.model), []

    def stop(module, inputs):
        calls.append(same(bits(module), before))
        if calls.count(False) == 3:
            raise error("inside")

    hook = scope.model.register_forward_pre_hook(stop)
    with pytest.raises((error, Unfinished)):
        perturbation(scope, samples, ranked(scope, samples), second_order=False)
    hook.remove()
    assert calls.count(False) == 3 and same(bits(scope.model), before)


def test_nothing_of_the_model_or_the_random_state_changes():
    scope, samples = language()
    before, state = bits(scope.model), torch.get_rng_state()
    ranking = ranked(scope, samples)
    scope.model.train()
    for method in METHODS:
        perturbation(scope, samples, ranking, method=method, n_seeds=2)
    assert same(bits(scope.model), before) and torch.equal(torch.get_rng_state(), state) and scope.model.training
    assert all(p.grad is None and p.requires_grad for p in scope.model.parameters())


def test_an_interrupt_keeps_what_is_measured():
    scope, samples = language()
    ranking = ranked(scope, samples)
    before, changes = bits(scope.model), []

    def stop(module, inputs):
        changes.append(not same(bits(module), before))
        if sum(changes) == 5:
            signal.raise_signal(signal.SIGINT)

    hook = scope.model.register_forward_pre_hook(stop)
    with pytest.raises(Unfinished) as ended:
        perturbation(scope, samples, ranking, n_seeds=4, second_order=False)
    hook.remove()
    found, whole = ended.value.results[0], perturbation(scope, samples, ranking, n_seeds=4, second_order=False)
    assert json.loads(found.attrs["tensorscope"])["partial"] and same(bits(scope.model), before)
    done = [[True] * 4, [True, True, False, False], [True] * 4]
    assert np.isfinite(found["loss_increase"]).sel(ratio=1.0).values.tolist() == done
    assert np.isfinite(found["n_changed"]).sel(ratio=1.0).values.tolist() == done
    np.testing.assert_array_equal(
        found["loss_increase"].fillna(0), whole["loss_increase"].where(found["loss_increase"].notnull(), 0)
    )
    assert np.isfinite(found["ci_low"]).all() and np.isfinite(found["excess_ci_high"]).all()


def test_an_interrupt_after_one_replicate_says_why_there_is_no_interval():
    scope, samples = language()
    before, changes = bits(scope.model), []

    def stop(module, inputs):
        changes.append(not same(bits(module), before))
        if sum(changes) == 4:  # top, random, bottom, and random again
            signal.raise_signal(signal.SIGINT)

    hook = scope.model.register_forward_pre_hook(stop)
    with pytest.raises(Unfinished) as ended:
        perturbation(scope, samples, ranked(scope, samples), n_seeds=4, second_order=False, chunk=6)
    hook.remove()
    found = ended.value.results[0]
    assert found["ci_low"].isnull().sel(ratio=1.0).values.tolist() == [False, True, False]
    assert "one replicate does not say how others differ" in notes(found) and "n_seeds" not in notes(found)


def test_a_study_runs_it_shows_it_growing_and_keeps_it(tmp_path):
    scope, samples = language()
    ranking = ranked(scope, samples)
    recipe, shown = perturbation.using(weights=ranking, n_seeds=2), []

    def take(made):
        shown.extend(each() for each in made.values())

    result = run_together(scope, [(recipe, (samples,), {})], so_far=take)[0]
    assert [int(np.isfinite(each["loss_increase"]).sum()) for each in shown] == [2, 3, 5, 6]
    study = ts.Study(scope, samples).run(recipe)
    again = ts.Study.open(study.save(tmp_path / "study"))["perturbation"]
    for found in (result, again):
        for name in result.data_vars:
            np.testing.assert_array_equal(found[name], study["perturbation"][name])


def test_the_result_says_what_it_is_of():
    scope, samples = language()
    said = json.loads(perturbation(scope, samples, ranked(scope, samples), n_seeds=2, seed=3).attrs["tensorscope"])
    assert said["data"] == samples.fingerprint and said["n_tokens"] == int(scope.rule.n_terms(samples).sum())
    assert said["seed"] == 3 and said["n_used"] == 6 == said["n_available"] and said["metric"] == "grad_x_weight"
    assert (
        said["weights"] == ts.recipes.ablation(scope, samples).attrs["tensorscope"].split('"weights": "')[1][:16]
        and said["notes"] == []
    )


def test_what_changes_nothing_is_an_error_and_never_a_loss_of_zero():
    scope, samples = language()
    attn = "transformer.h.0.attn.c_attn"
    with torch.no_grad():
        scope.model.get_parameter(attn + ".weight")[0, :2] = torch.tensor([0.0, -0.0])
    zeros, others = listed(attn, (0, 0), (0, 1)), listed(attn, (1, 0), (1, 1))
    for method in ("zero", "sign_flip", "scale", "gaussian"):
        with pytest.raises(ValueError, match=f"all 2 chosen weights is 0 already, and method='{method}' leaves it so"):
            perturbation(scope, samples, zeros, method=method, controls=())
    for options in ({"method": "gaussian", "sigma": 1e-12}, {"method": "scale", "factor": 1 + 1e-12}):
        with pytest.raises(ValueError, match="the step is below the rounding of all 2 chosen weights"):
            perturbation(scope, samples, others, controls=(), **options)
    assert perturbation(scope, samples, zeros, method="gaussian", relative_to="parameter", controls=())[
        "n_changed"
    ].values.tolist() == [[[2] * 5]]
    both = pd.concat([others, zeros])
    found = perturbation(scope, samples, both, controls=(), n_seeds=1)
    assert int(found["n_changed"].squeeze()) == 2 and "weights of top hold the same value" in notes(found)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"method": "zeros"}, ValueError, "method is 'zeros': choose 'zero', 'sign_flip'"),
        ({"method": ["zero"]}, ValueError, r"method is \['zero'\]: choose 'zero'"),
        ({"sigma": 0.2}, ValueError, "sigma= is of method='gaussian', and method is 'zero': leave it out"),
        ({"method": "gaussian", "factor": 2.0}, ValueError, "factor= is of method='scale'"),
        ({"method": "scale", "bit": 3}, ValueError, "bit= is of method='bit_flip'"),
        ({"method": "scale", "relative_to": "parameter"}, ValueError, "relative_to= is of method='gaussian'"),
        ({"method": "gaussian", "sigma": 0}, ValueError, "sigma is 0"),
        ({"method": "gaussian", "sigma": float("nan")}, ValueError, "sigma is nan"),
        ({"method": "gaussian", "relative_to": "layer"}, ValueError, "relative_to is 'layer': choose 'weight'"),
        ({"method": "scale", "factor": 1}, ValueError, "factor is 1: give the number to multiply by, other than 1"),
        ({"method": "scale", "factor": float("inf")}, ValueError, "factor is inf"),
        ({"method": "bit_flip", "bit": -1}, ValueError, "bit is -1"),
        ({"method": "bit_flip", "bit": 1.0}, ValueError, "bit is 1.0"),
        ({"method": "bit_flip", "bit": 32}, ValueError, "bit is 32, and .* is float32: its bits are 0 .the lowest. to 31"),
        ({"ratios": (0.0, 1.0)}, ValueError, "ratios is"),
        ({"ratios": (0.5, 0.5)}, ValueError, "each once"),
        ({"ratios": (1.5,)}, ValueError, "ratios is"),
        ({"ratios": ()}, ValueError, "ratios is"),
        ({"ratios": 0.5}, ValueError, "ratios is 0.5"),
        ({"ratios": ("half",)}, ValueError, "ratios is"),
        ({"controls": ("rand",)}, ValueError, "controls holds 'rand': choose among 'random', 'bottom'"),
        ({"controls": ("random", "random")}, ValueError, "name each once"),
        ({"controls": 3}, ValueError, "controls is 3"),
        ({"n_seeds": 0}, ValueError, "n_seeds is 0"),
        ({"n_seeds": True}, ValueError, "n_seeds is True"),
        ({"modules": "*.atn.*"}, LookupError, r"there is no module or parameter '\*.atn.\*'"),
        ({"chunk": 0}, ValueError, "chunk is 0"),
        ({"ratio": 1}, TypeError, "perturbation has no option ratio"),
    ],
)  # fmt: skip
def test_bad_options_get_one_clear_line(options, error, words):
    scope, samples = language()
    with pytest.raises(error, match=words):
        perturbation(scope, samples, ranked(scope, samples), **options)


def test_numbers_may_be_those_of_numpy():
    scope, samples = language()
    for method, option in (
        ("gaussian", {"sigma": np.float32(0.5)}),
        ("scale", {"factor": np.int64(2)}),
        ("bit_flip", {"bit": np.int64(3)}),
    ):
        plain = {name: value.item() for name, value in option.items()}
        one, other = (
            perturbation(scope, samples, ranked(scope, samples), method=method, n_seeds=n, **given)
            for n, given in ((np.int64(2), option), (2, plain))
        )
        np.testing.assert_array_equal(one["loss_increase"], other["loss_increase"])


def test_lists_without_controls_say_so():
    scope, samples = language()
    ranking = ranked(scope, samples)
    ranking = ranking.drop_vars([name for name in ranking.variables if str(name).startswith("bottom_")])
    with pytest.raises(ValueError, match=r'has no bottom part, .* or take controls=\("random",\)'):
        perturbation(scope, samples, ranking)
    fc = "transformer.h.0.mlp.c_fc"
    with pytest.raises(ValueError, match=r"the bottom list has 1 weights in layer 0, and 2 are chosen there"):
        perturbation(scope, samples, listed(fc, (0, 0), (0, 1)), bottom=listed(fc, (5, 5)))
    with pytest.raises(ValueError, match=r"entry 0 of transformer.h.0.mlp.c_fc.weight is in the top and in the bottom list"):
        perturbation(scope, samples, listed(fc, (0, 0), (0, 1)), bottom=listed(fc, (0, 0), (0, 5)))


def test_a_layer_with_too_few_others_is_refused():
    scope, samples, *_ = quadratic(d=6)
    four = listed("weight", *[(0, i) for i in range(4)])
    with pytest.raises(ValueError, match="4 weights are chosen in the model, and 2 others are there to match them"):
        perturbation(scope, samples, four, controls=("random",))
    assert perturbation(scope, samples, four, controls=())["n_changed"].max() == 4


def test_outside_the_layers_a_match_is_of_the_same_module():
    scope, samples = language()
    name = "transformer.ln_f.weight"
    scope.model.get_parameter(name).data[:3] = torch.tensor([1.5, 1.4, 1.6])
    found = perturbation(scope, samples, listed(name, (0,), (1,)), controls=("random",), n_seeds=3, second_order=False)
    assert found["n_weights"].sel(selection="random", module="transformer.ln_f") == 2


def test_a_control_that_is_no_match_is_said():
    scope, samples = language()
    name = "transformer.h.0.attn.c_attn.weight"
    scope.model.get_parameter(name).data[0, 0] = 50
    found = perturbation(scope, samples, listed(name, (0, 0)), controls=("random",), n_seeds=2, second_order=False)
    assert any("of another size than the list's" in note for note in json.loads(found.attrs["tensorscope"])["notes"])
    alike = perturbation(scope, samples, listed(name, (3, 3)), controls=("random",), n_seeds=2, second_order=False)
    assert not any("another size" in note for note in json.loads(alike.attrs["tensorscope"])["notes"])


class Centred(nn.Linear):
    """A model in which a sample's output is that of all samples beside it."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


def test_a_model_that_mixes_samples_has_no_paired_differences():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scope, samples = ts.Scope(Centred(8, 5)), ts.Samples.tensors(torch.randn(12, 8), torch.arange(12) % 5)
    with pytest.raises(ts.UnsupportedModel, match="the loss of a sample changes with the samples beside it"):
        perturbation(scope, samples, listed("weight", (0, 0)), controls=())


def test_controls_of_one_kind_alone_and_none_at_all():
    scope, samples = language()
    ranking = ranked(scope, samples)
    for controls in ((), "bottom", ("bottom", "random")):
        found = perturbation(scope, samples, ranking, controls=controls, n_seeds=2)
        names = [controls] if isinstance(controls, str) else list(controls)
        assert found["selection"].values.tolist() == ["top", *names] and ("excess" in found) == bool(names)
        assert not names or found["control"].values.tolist() == names
    assert "second_order" not in perturbation(scope, samples, ranking, controls=(), second_order=False)
