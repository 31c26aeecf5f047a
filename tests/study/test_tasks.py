"""Recipes that compare tasks, inside a Study: one sweep for all of them, every two tasks, and what an interrupt leaves."""

import json

import numpy as np
import pytest
import torch
from model_zoo import build
from tiny_models import random_gpt2
from two_tasks import texts

import tensorscope_nb as ts
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.recipes.tasks import pairs_of_tasks
from tensorscope_nb.study.calls import _along_tasks
from tensorscope_nb.study.members import Members
from tensorscope_nb.sweep import progress
from tensorscope_nb.sweep.progress import listened

R = ts.recipes
COMPARING = [R.gradient_conflict, R.gradient_alignment, R.fisher_overlap, R.sample_conflicts.using(tokens=0), R.qkov_interference]
pytestmark = pytest.mark.filterwarnings("ignore:Only")


def rows_run(scope, call):
    """How many samples went through the model."""
    rows = 0

    def count(module, args, kwargs):
        nonlocal rows
        rows += len(kwargs["input_ids"])

    hook = scope.model.register_forward_pre_hook(count, with_kwargs=True)
    call()
    hook.remove()
    return rows


def test_all_of_them_share_one_sweep_and_equal_those_alone():
    scope, one, other = texts("gpt2", 6, 5)
    study = ts.Study(scope, one + other)
    assert rows_run(scope, lambda: study.run(*COMPARING, R.grouped_fisher)) == 11 + 1  # and one sample alone, as a check
    for recipe in COMPARING:
        alone = recipe(scope, one, other)
        for name, variable in alone.data_vars.items():
            if variable.dtype.kind in "fib":
                assert np.allclose(study[recipe.name][name], variable, rtol=1e-6, equal_nan=True), (recipe.name, name)
    assert study.plan(*COMPARING, R.grouped_fisher)["recipes"].tolist() == [
        ", ".join(r.name for r in [*COMPARING, R.grouped_fisher])
    ]


def test_numbers_are_those_of_the_studys_samples():
    scope, one, other = texts("gpt2", 6, 5)
    mixed = (one + other)[[0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5]]
    found = ts.Study(scope, mixed).run(R.sample_conflicts)["sample_conflicts"]
    pairs = R.conflict_pairs(found)
    assert all(
        mixed.ids[i] == a and mixed.ids[j] == b
        for i, j, a, b in pairs[["sample_a_idx", "sample_b_idx", "sample_a", "sample_b"]].values
    )


def test_three_tasks_are_compared_two_by_two(tmp_path):
    scope, one, other = texts("gpt2", 4, 4)
    third = ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(5)), task="third")
    study = ts.Study(scope, one + other + third).run(*COMPARING)
    names = ["one × other", "one × third", "other × third"]
    for recipe in COMPARING:
        assert study[recipe.name]["tasks"].values.tolist() == names
    for name, (a, b) in zip(names, ((one, other), (one, third), (other, third))):
        alone = R.gradient_conflict(scope, a, b)
        here = study["gradient_conflict"].sel(tasks=name)
        assert (
            np.allclose(here["cosine"], alone["cosine"], rtol=1e-6)
            and json.loads(study["gradient_conflict"].attrs["tensorscope"])["tasks"][name]["task_b"] == b.tasks[0]
        )
        table = study["sample_conflicts"]["cosine"].sel(tasks=name, sample_a=list(a.ids), sample_b=list(b.ids))
        assert np.allclose(table, R.sample_conflicts(scope, a, b)["cosine"], rtol=1e-6)
    between = study["sample_conflicts"]["cosine"].sel(tasks="one × other", sample_b=list(third.ids))
    assert np.isnan(between).all()
    reopened = ts.Study.open(study.save(tmp_path / "study"))
    assert reopened["sample_conflicts"]["q_value"].equals(study["sample_conflicts"]["q_value"])


def test_pairs_of_three_tasks_are_listed_once_the_most_opposed_first(tmp_path):
    scope, one, other = texts("gpt2", 4, 4)
    third = ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(5)), task="third")
    study = ts.Study(scope, one + other + third).run(R.sample_conflicts)
    found = study["sample_conflicts"]
    assert found["contribution_a"].dims == ("pair", "position_a") and found["cosine"].dims == ("tasks", "sample_a", "sample_b")
    assert (np.diff(found["pair_p_value"]) >= 0).all() and found["sample_b"].values.tolist() == [*other.ids, *third.ids]
    alone = R.sample_conflicts(scope, other, third)
    here = found.isel(pair=found["pair_tasks"].values == "other × third")
    assert set(here["pair"].values) == set(alone["pair"].values)
    order = here["pair"].values.tolist()
    assert np.allclose(here["contribution_b"], alone["contribution_b"].sel(pair=order), equal_nan=True, rtol=1e-6)
    assert np.array_equal(here["token_text_a"], alone["token_text_a"].sel(pair=order))
    assert ts.view(found) is not None and study.view() is not None
    reopened = ts.Study.open(study.save(tmp_path / "study"))
    assert reopened["sample_conflicts"]["token_text_a"].equals(found["token_text_a"])


def test_one_of_several_pairs_of_tasks_reads_as_it_does_alone():
    """Joined, numbers pass through NaN and ids are sorted."""
    scope, one, other = texts("gpt2", 12, 4)
    third = ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(5)), task="third")
    study = ts.Study(scope, one + other + third).run(R.sample_conflicts.using(tokens=9), R.qkov_interference)
    found = study["sample_conflicts"]
    assert found["sample_a"].values.tolist() == [*one.ids, *other.ids] and found["index_a"].dtype.kind == "i"
    for name, (a, b) in zip(found["tasks"].values, ((one, other), (one, third), (other, third))):
        here, alone = found.sel(tasks=name), R.sample_conflicts(scope, a, b, tokens=9)
        pairs = R.conflict_pairs(here)
        same = ["sample_a", "sample_b", "layer", "token_id", "token_b_id", "fdr_significant"]
        assert pairs[same].equals(R.conflict_pairs(alone)[same]) and np.allclose(pairs["dot"], R.conflict_pairs(alone)["dot"])
        assert R.curate(here).shape == R.curate(alone).shape and R.conflict_pairs(here, significant=True).empty
        assert R.conflict_tokens(here).equals(R.conflict_tokens(alone))
        top = R.top_conflicts(study["qkov_interference"].sel(tasks=name), 5)
        assert top["index_a"].dtype.kind == "i" and set(top["sample_b"]) <= set(b.ids)


def test_two_tasks_that_had_nothing_to_look_at_token_by_token_stand_beside_those_that_had():
    scope, one, other = texts("gpt2", 5, 4)
    third = ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(5)), task="third")
    pairs = pairs_of_tasks(one + other + third)
    found = [R.sample_conflicts(scope, pair, tokens=n) for pair, n in zip(pairs, (0, 9, 9))]
    joined = _along_tasks(found, ["1", "2", "3"])
    assert (R.conflict_pairs(joined.isel(tasks=0))["token_id"] == -1).all()
    assert R.conflict_pairs(joined.isel(tasks=1)).equals(R.conflict_pairs(found[1]))
    with pytest.raises(LookupError, match="no pair was looked at token by token"):
        R.conflict_tokens(joined.isel(tasks=0))


def test_along_checkpoints_and_models():
    _, one, other = texts("gpt2", 4, 4)
    scopes = {"x": ts.Scope(build("gpt2")), "y": ts.Scope(build("gpt2"))}
    study = ts.Study(scopes, one + other).run(R.gradient_conflict, R.qkov_interference)
    assert study["gradient_conflict"]["cosine"].dims == ("model", "module")
    assert study["qkov_interference"]["pair_score"].dims == ("model", "block", "layer", "head", "sample_a", "sample_b")


def test_each_model_has_looked_at_its_own_pairs(tmp_path):
    """Which pairs are the most opposed differs: a study holds those of all, empty where one was not looked at."""
    _, one, other = texts("gpt2", 5, 4)
    scopes = {name: ts.Scope(random_gpt2(seed)) for seed, name in enumerate("xyz")}
    study = ts.Study(scopes, one + other).run(R.sample_conflicts.using(tokens=4), R.gradient_conflict)
    found = study["sample_conflicts"]
    assert found["contribution_a"].dims == ("model", "pair", "position_a") and found.sizes["pair"] > 4
    for name, scope in scopes.items():
        here, alone = found.sel(model=name), R.sample_conflicts(scope, one, other, tokens=4)
        looked_at = here["pair_cosine"].notnull().values
        assert set(here["pair"].values[looked_at]) == set(alone["pair"].values)
        order = here["pair"].values[looked_at].tolist()
        assert np.allclose(
            here["contribution_b"][looked_at], alone["contribution_b"].sel(pair=order), equal_nan=True, rtol=1e-5, atol=1e-9
        )
        assert np.array_equal(here["token_text_a"][looked_at], alone["token_text_a"].sel(pair=order))
        assert (here["token_id_a"][~looked_at] == -1).all() and not here["pair_significant"][~looked_at].any()
        assert R.conflict_tokens(here).equals(R.conflict_tokens(alone))
    assert [f"{a} × {b}" for a, b in zip(found["pair_sample_a"].values, found["pair_sample_b"].values)] == found[
        "pair"
    ].values.tolist()
    assert ts.Study.open(study.save(tmp_path / "study"))["sample_conflicts"].equals(found)


def test_a_model_in_which_no_pair_is_opposed_stands_beside_those_in_which_some_are():
    scope, one, other = texts("gpt2", 5, 4)
    some = R.sample_conflicts(scope, one, other, tokens=4)
    none = some.drop_dims("pair").assign(token_a=some["token_a"] * 0 - 1, token_b=some["token_b"] * 0 - 1)
    joined = Members("model", ["x", "y"], []).joined([none, some])
    assert joined["pair"].equals(some["pair"].drop_vars("model", errors="ignore")) and joined["contribution_a"].dims[0] == "model"
    assert np.isnan(joined["contribution_a"].sel(model="x")).all()
    assert np.allclose(joined["contribution_a"].sel(model="y"), some["contribution_a"], equal_nan=True)
    assert R.conflict_tokens(joined.sel(model="y")).equals(R.conflict_tokens(some))
    with pytest.raises(LookupError, match="no pair was looked at"):
        R.conflict_tokens(joined.sel(model="x"))


def test_pairs_of_three_tasks_in_several_models_keep_their_tasks():
    _, one, other = texts("gpt2", 4, 4)
    third = ts.Samples.tokens(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(5)), task="third")
    scopes = {name: ts.Scope(random_gpt2(seed)) for seed, name in enumerate("xy")}
    found = ts.Study(scopes, one + other + third).run(R.sample_conflicts.using(tokens=3))["sample_conflicts"]
    assert found["contribution_a"].dims == ("model", "pair", "position_a")
    named = {"one": "one", "other": "other", "third": "third"}
    tasks = [" × ".join(named[sample.split("-")[0]] for sample in pair.split(" × ")) for pair in found["pair"].values]
    assert found["pair_tasks"].values.tolist() == tasks


def test_one_task_is_none_to_compare():
    scope, one, _ = texts()
    with pytest.raises(
        ValueError, match=r"gradient_conflict compares tasks, and the study's samples have one \(one\): give it two"
    ):
        ts.Study(scope, one).run(R.gradient_conflict)
    with pytest.raises(ValueError, match="samples are missing"):
        ts.Study(scope).run(R.gradient_conflict)


class _Stop:
    def __init__(self, after, sweep=1):
        self.after, self.left, self.done = after, sweep, np.inf

    def __call__(self, label, done, total):
        if label == "gradients":
            self.left -= done < self.done  # another one begins
            self.done = done
            if not self.left and done >= self.after:
                raise KeyboardInterrupt


def test_an_interrupt_leaves_both_tasks_of_what_is_done(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    scope, one, other = texts("gpt2", 8, 8)
    (pair,) = pairs_of_tasks((one + other)[[i // 2 + 8 * (i % 2) for i in range(16)]])
    recipes = [R.gradient_conflict.using(chunk=3), R.fisher_overlap.using(chunk=3)]
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(6)):
        run_together(scope, [(recipe, (pair,), {}) for recipe in recipes])
    conflict, overlap = caught.value.results
    said = json.loads(conflict.attrs["tensorscope"])
    assert said["partial"] and (said["n_used_a"], said["n_used_b"], said["n_available_a"]) == (3, 3, 8)
    alone = R.gradient_conflict(scope, one[:3], other[:3])
    assert np.allclose(conflict["dot"], alone["dot"], rtol=1e-6)
    assert overlap is None  # three of each are too few for it
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(8)):
        R.qkov_interference(scope, one, other, chunk=4)
    few = R.qkov_interference(scope, one[:4], other[:4])
    assert all(np.allclose(caught.value.results[0][name], few[name], rtol=1e-6) for name in ("score", "p_value", "total"))
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(10)):  # five of each: halves of three and of two
        R.fisher_overlap(scope, one, other, chunk=5)
    assert np.isclose(caught.value.results[0]["total"], R.fisher_overlap(scope, one[:5], other[:5])["total"], rtol=1e-6)
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(4)):  # given two sets they are taken in turns
        R.gradient_conflict(scope, one, other, chunk=4)
    assert np.allclose(caught.value.results[0]["dot"], R.gradient_conflict(scope, one[:2], other[:2])["dot"], rtol=1e-6)


@pytest.mark.parametrize("short", [False, True])  # of memory, so that pairs come piece by piece
@pytest.mark.parametrize(("after", "sweep"), [(8, 1), (50, 1), (1, 2), (60, 2)])
def test_an_interrupt_before_the_tokens_or_among_them_leaves_the_pairs(monkeypatch, short, after, sweep):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    scope, one, other = texts("gpt2", 12, 12)
    weights = sum(p.nelement() for p in scope.model.parameters())
    with ts.options(memory=7 * 8 * weights // 2 if short else 2**30):
        try:
            with listened(_Stop(after, sweep)):
                R.sample_conflicts(scope, one, other, chunk=4, tokens=9)
        except KeyboardInterrupt as ended:
            (found,) = ended.results
        else:
            assert not short
            return
    if (short, after) == (True, 8):
        assert found is None  # no inner product was known yet
        return
    said = json.loads(found.attrs["tensorscope"])
    n, m = said["n_used_a"], said["n_used_b"]
    alone = R.sample_conflicts(scope, one[:n], other[:m], tokens=500)
    assert said["partial"] and (n, m) == (12, 12) if sweep == 2 else 3 <= n < 12
    assert np.allclose(found["cosine"], alone["cosine"], rtol=1e-6)
    if "pair" in found.dims:
        same = alone.sel(pair=found["pair"].values)
        assert np.allclose(found["contribution_a"], same["contribution_a"], atol=1e-9, equal_nan=True)


def test_an_interrupt_before_the_second_task_leaves_no_comparison(monkeypatch):
    monkeypatch.setattr(progress, "PER_SECOND", 10**9)
    scope, one, other = texts("gpt2", 8, 8)
    (pair,) = pairs_of_tasks(one + other)
    calls = [(recipe.using(chunk=4), (pair,), {}) for recipe in COMPARING]
    with pytest.raises(KeyboardInterrupt) as caught, listened(_Stop(8)):
        run_together(scope, calls)
    assert all(result is None for result in caught.value.results)


def test_with_an_executor_the_numbers_are_the_same():
    from concurrent.futures import ThreadPoolExecutor

    scope, one, other = texts("gpt2", 6, 5)
    with ThreadPoolExecutor(5) as pool:  # a head's weight and bias in different shards
        for recipe in [*COMPARING, R.sample_conflicts, R.qkov_interference.using(bias=True)]:
            alone, spread = recipe(scope, one, other), recipe(scope, one, other, executor=pool)
            for name, variable in alone.data_vars.items():
                if variable.dtype.kind in "fib":
                    assert np.allclose(spread[name], variable, rtol=1e-6, equal_nan=True), (recipe.name, name)
