"""Sample against sample: the pairs, their tokens, and what to remove."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from two_tasks import Point, dense, half_square, known_gradients, texts

import tensorscope_nb as ts
from tensorscope_nb.numerics.cover import vertex_cover

rng = np.random.default_rng(0)


def planted(n=32, d=400, pair=(5, 9), cosine=-0.6):
    """Independent gradients, but for one pair."""
    g_a, g_b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    a = g_a[pair[0]] / np.linalg.norm(g_a[pair[0]])
    rest = g_b[pair[1]] - (g_b[pair[1]] @ a) * a
    g_b[pair[1]] = np.linalg.norm(g_b[pair[1]]) * (cosine * a + np.sqrt(1 - cosine**2) * rest / np.linalg.norm(rest))
    return known_gradients(g_a, g_b), g_a, g_b


def test_a_planted_pair_is_found_under_its_own_ids_and_numbers():
    tasks, g_a, g_b = planted()
    found = ts.recipes.sample_conflicts(*tasks)
    c = g_a @ g_b.T / np.linalg.norm(g_a, axis=1)[:, None] / np.linalg.norm(g_b, axis=1)
    assert np.allclose(found["cosine"], c) and np.allclose(found["dot"], g_a @ g_b.T)
    pairs = ts.recipes.conflict_pairs(found, significant=True)
    assert pairs[["sample_a", "sample_b", "sample_a_idx", "sample_b_idx"]].values.tolist() == [["one-5", "other-9", 5, 32 + 9]]
    assert pairs["effect_size"].iloc[0] > 3 and pairs["cosine"].iloc[0] == pytest.approx(-0.6)


def test_p_is_the_rank_and_then_an_exponential_tail_of_the_recentred_null():
    tasks, g_a, g_b = planted(n=24)
    found = ts.recipes.sample_conflicts(*tasks)

    def cosines(x, y):
        return x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)

    null = []
    for g in (g_a, g_b):
        within = [cosines(g, g)[k, l] for k in range(24) for l in range(k)]
        null += [c - max(np.median(within), 0) for c in within]
    null = np.array(null)
    u = np.quantile(null, 0.1)
    excess = np.mean([u - c for c in null if c < u])
    for i, j in ((5, 9), (0, 0), (3, 7), (20, 1), (11, 2)):
        c = cosines(g_a, g_b)[i, j]
        expected = 0.1 * np.exp(-(u - c) / excess) if c < u else (1 + (null <= c).sum()) / (1 + len(null))
        assert np.isclose(found["p_value"][i, j], expected), (i, j)
        assert np.isclose(found["effect_size"][i, j], -c / (1.4826 * np.median(np.abs(null - np.median(null)))))
    assert np.allclose(found["q_value"], stats.false_discovery_control(found["p_value"].values.ravel()).reshape(24, 24))
    c = cosines(g_a, g_b)
    for i in (0, 5):
        assert np.isclose(found["task_p_value_a"][i], stats.ttest_1samp(c[i], 0, alternative="less").pvalue)
        assert np.isclose(found["task_p_value_b"][i], stats.ttest_1samp(c[:, i], 0, alternative="less").pvalue)
    for side in "ab":
        assert np.allclose(found[f"task_q_value_{side}"], stats.false_discovery_control(found[f"task_p_value_{side}"]))


def test_swapping_the_tasks_turns_the_table():
    tasks, *_ = planted(n=16)
    scope, one, other = tasks
    found, turned = ts.recipes.sample_conflicts(scope, one, other), ts.recipes.sample_conflicts(scope, other, one)
    for name in ("cosine", "p_value", "q_value", "effect_size"):
        assert np.allclose(found[name], turned[name].T), name


def test_flipped_duplicates_are_found_with_their_own_numbers():
    """Three of b are samples of a under another label."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(40, 60), torch.nn.Tanh(), torch.nn.Linear(60, 2)).double()
    generator = torch.Generator().manual_seed(1)
    x_a, x_b = (torch.randn(24, 40, generator=generator, dtype=torch.float64) for _ in "ab")
    y_a, y_b = (torch.arange(24) % 2 for _ in "ab")
    for i, j in ((2, 20), (7, 3), (15, 11)):
        x_b[j], y_b[j] = x_a[i], 1 - y_a[i]
    scope = ts.Scope(model)
    found = ts.recipes.sample_conflicts(
        scope, ts.Samples.tensors(x_a, y_a, task="one"), ts.Samples.tensors(x_b, y_b, task="other")
    )
    pairs = ts.recipes.conflict_pairs(found)
    assert {tuple(row) for row in pairs[["sample_a_idx", "sample_b_idx"]].values[:3]} == {(2, 44), (7, 27), (15, 35)}
    assert pairs["fdr_significant"].iloc[:3].all()


def test_one_set_against_itself():
    g = rng.normal(size=(24, 300))
    g[13] = -0.7 * g[4] + 0.7 * g[13]
    scope, one, _ = known_gradients(g, g)
    found = ts.recipes.sample_conflicts(scope, one)
    assert np.isnan(np.diagonal(found["cosine"])).all() and np.isnan(np.diagonal(found["p_value"])).all()
    assert np.allclose(found["p_value"], found["p_value"].T, equal_nan=True)
    pairs = ts.recipes.conflict_pairs(found)
    assert len(pairs) == 24 * 23 / 2 and tuple(pairs[["sample_a_idx", "sample_b_idx"]].values[0]) == (4, 13)
    assert np.allclose(
        np.sort(found["q_value"].values[np.triu_indices(24, 1)]),
        np.sort(stats.false_discovery_control(found["p_value"].values[np.triu_indices(24, 1)])),
    )


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied", "gpt_neox", "gemma2"])
def test_tokens_add_up_to_the_inner_product(name):
    """In every family, with padding, tied weights, norms and biases; the token named is the lowest."""
    scope, one, other = texts(name, 6, 5)
    found = ts.recipes.sample_conflicts(scope, one, other, tokens=100)
    size = np.sqrt((found["dot"] ** 2).mean())
    assert found.sizes["pair"] == (found["cosine"] < 0).sum()
    for k in range(found.sizes["pair"]):
        at = dict(sample_a=found["pair_sample_a"].values[k], sample_b=found["pair_sample_b"].values[k])
        for side in "ab":
            added = found[f"contribution_{side}"][k]
            assert np.isclose(added.sum(), found["dot"].sel(at), atol=1e-9 * size), (at, side)
            samples = one if side == "a" else other
            row = samples.ids.index(at[f"sample_{side}"])
            assert np.array_equal(np.isfinite(added), samples.attention_mask[row].bool())
            assert found[f"token_{side}"].sel(at) == samples.input_ids[row][int(np.nanargmin(added.values))]
    assert (found["token_a"].values == -1).sum() == 30 - found.sizes["pair"]


def test_what_a_token_adds_is_what_its_position_adds_in_each_layer():
    """Of one linear layer by hand: ⟨Σₛ δₛ xₛᵀ, G⟩ cut by s."""
    scope, one, other = texts("gpt2", 4, 4)
    path = "transformer.h.1.mlp.c_fc"
    found = ts.recipes.sample_conflicts(scope, one, other, modules=path, tokens=3)
    module, seen = scope.model.get_submodule(path), {}

    def keep(module, args, out):
        out.retain_grad()
        seen.update(x=args[0].detach(), out=out)

    hook = module.register_forward_hook(keep)
    i = one.ids.index(found["pair_sample_a"].values[0])
    scope.rule.per_sample(scope.model(input_ids=one[i].input_ids).logits, one[i]).sum().backward()
    hook.remove()
    g = dense(scope, other)
    j = other.ids.index(found["pair_sample_b"].values[0])
    weight = torch.tensor(g[f"{path}.weight"][j]).reshape(module.weight.shape)
    bias = torch.tensor(g[f"{path}.bias"][j])
    delta, x = seen["out"].grad[0], seen["x"][0]
    expected = ((x @ weight) * delta).sum(1) + delta @ bias
    assert np.allclose(found["contribution_a"][0], expected, rtol=1e-8, atol=1e-12)


def test_weights_whose_positions_are_not_known_are_named_and_are_all_that_is_missing():
    scope, one, other = texts("qwen3", 6, 5)
    found = ts.recipes.sample_conflicts(scope, one, other, tokens=100)
    without = json.loads(found.attrs["tensorscope"])["without_positions"]
    assert without == [f"model.layers.{i}.self_attn.{name}_norm.weight" for i in (0, 1) for name in "kq"]
    a, b = dense(scope, one), dense(scope, other)
    missing = sum(a[name] @ b[name].T for name in without)
    i, j = ([s.ids.index(x) for x in found[f"pair_sample_{k}"].values] for s, k in ((one, "a"), (other, "b")))
    told = found["contribution_a"].sum("position_a").values
    assert np.allclose(told + missing[i, j], found["dot"].values[i, j]) and not np.allclose(told, found["dot"].values[i, j])
    assert np.array_equal(found["pair_cosine"], np.sort(found["pair_cosine"]))  # the most opposed first


def test_tokens_of_one_set_are_mirrored():
    scope, one, other = texts("gpt2", 6, 5)
    found = ts.recipes.sample_conflicts(scope, one + other, tokens=100)
    samples = one + other
    assert np.array_equal(found["token_a"], found["token_b"].T) and found.sizes["pair"] > 10
    for k in range(found.sizes["pair"]):
        i, j = (samples.ids.index(found[f"pair_sample_{side}"].values[k]) for side in "ab")
        for side, row in (("a", i), ("b", j)):
            added = found[f"contribution_{side}"].values[k]
            assert np.isclose(np.nansum(added), found["dot"].values[i, j])
            assert found[f"token_{side}"].values[i, j] == samples.input_ids[row][int(np.nanargmin(added))]


def test_a_first_token_that_all_share_is_told_apart():
    scope, one, other = texts("gpt2", 6, 5)
    begun = [
        ts.Samples.tokens(s.input_ids.index_fill(1, torch.tensor([0]), 7), s.attention_mask, task=s.tasks[0])
        for s in (one, other)
    ]
    found = ts.recipes.sample_conflicts(scope, *begun)
    with_it = ts.recipes.sample_conflicts(scope, *begun, skip_first=False)
    assert np.isnan(found["contribution_a"][:, 0]).all() and np.isfinite(found["contribution_a"][:, 1]).all()
    assert np.allclose(found["first_token_a"], with_it["contribution_a"][:, 0])
    dots = [
        float(found["dot"].sel(sample_a=a, sample_b=b))
        for a, b in zip(found["pair_sample_a"].values, found["pair_sample_b"].values)
    ]
    assert np.allclose(found["contribution_a"].sum("position_a") + found["first_token_a"], dots)
    k = int(np.nanargmin(found["contribution_b"][0]))
    at = dict(sample_a=found["pair_sample_a"].values[0], sample_b=found["pair_sample_b"].values[0])
    assert k > 0 and found["token_b"].sel(at) == found["token_id_b"][0, k]
    tokens = ts.recipes.conflict_tokens(found)
    assert np.isclose(tokens["rate"].sum(), 1) and np.isclose(tokens["expected"].sum(), 1)


def test_the_first_token_is_the_first_that_is_there():
    """With padding on the left, and beside a module that never runs, which has no positions to miss."""
    scope, one, other = texts("gpt2", 5, 4)
    scope.model.idle = torch.nn.Linear(3, 3).double()
    begun = []
    for samples in (one, other):
        ids, mask = samples.input_ids.clone(), torch.ones_like(samples.input_ids)
        ids[:, 3], mask[:, :3] = 7, 0
        begun.append(ts.Samples.tokens(ids, mask, task=samples.tasks[0]))
    found, with_it = (ts.recipes.sample_conflicts(scope, *begun, skip_first=skip) for skip in (None, False))
    said = json.loads(found.attrs["tensorscope"])
    assert said["skip_first"] and not said["without_positions"] and found.sizes["pair"] > 0
    assert np.isnan(found["contribution_a"][:, :4]).all() and np.isfinite(found["contribution_a"][:, 4:]).all()
    assert np.array_equal(found["first_token_a"], with_it["contribution_a"][:, 3])


def test_neither_the_cut_nor_the_memory_matters_to_tokens():
    scope, one, other = texts("gpt2", 6, 5)
    whole = ts.recipes.sample_conflicts(scope, one, other)
    for chunk, memory in ((2, 2**30), (2, 5 * 8 * 2 * sum(p.nelement() for p in scope.model.parameters()))):
        with ts.options(memory=memory):
            found = ts.recipes.sample_conflicts(scope, one, other, chunk=chunk)
        assert found["pair"].equals(whole["pair"])
        assert np.allclose(found["contribution_a"], whole["contribution_a"], equal_nan=True, rtol=1e-7)
        assert np.allclose(found["contribution_b"], whole["contribution_b"], equal_nan=True, rtol=1e-7)


def test_the_layer_named_has_the_lowest_inner_product():
    scope, one, other = texts("gpt2", 6, 5)
    found = ts.recipes.sample_conflicts(scope, one, other, per_sample=True, tokens=0)
    assert "pair" not in found.dims and "token_a" not in found
    assert np.array_equal(found["conflict_layer"], found["layer_dot"].values.argmin(0))
    last = ts.recipes.sample_conflicts(scope, one, other, modules="transformer.h.1.*", tokens=0)
    assert (last["conflict_layer"] == 1).all()  # the only one there, by its own number
    a, b = dense(scope, one), dense(scope, other)
    names = [name for name in a if "h.1." in name]
    expected = sum(a[name] @ b[name].T for name in names)
    assert np.allclose(found["layer_dot"].sel(layer=1), expected, atol=1e-8 * np.abs(expected).max())


def test_losses_are_those_of_the_samples():
    scope, one, other = texts()
    found = ts.recipes.sample_conflicts(scope, one, other)
    assert np.allclose(found["loss_a"], scope.losses(one)) and np.allclose(found["loss_b"], scope.losses(other))


def test_the_curation_snippet_runs_on_global_numbers():
    """As it is written in the first seed, on one list of samples: no number means a sample of each task."""
    tasks, *_ = planted()
    found = ts.recipes.sample_conflicts(*tasks)
    conflicts = {"pairs": ts.recipes.conflict_pairs(found).to_dict("records")}
    train_dataset = [*tasks[1].ids, *tasks[2].ids]
    high_conflict_pairs = [
        c for c in conflicts["pairs"] if c["effect_size"] > 0.5 and c["p_value"] < 0.01 and c["fdr_significant"]
    ]
    samples_to_remove = set()
    for conflict in high_conflict_pairs:
        if conflict["sample_a_loss"] > conflict["sample_b_loss"]:
            samples_to_remove.add(conflict["sample_a_idx"])
        else:
            samples_to_remove.add(conflict["sample_b_idx"])
    clean_dataset = [s for i, s in enumerate(train_dataset) if i not in samples_to_remove]
    assert set(train_dataset) - set(clean_dataset) in ({"one-5"}, {"other-9"})
    assert set(ts.recipes.curate(found)["sample"]) == set(train_dataset) - set(clean_dataset)
    conflict_tokens = [c["token_id"] for c in conflicts["pairs"]]
    assert set(conflict_tokens) == {-1}  # samples without tokens


def made(edges, losses, n=8, task_q=None):
    """A sample_conflicts with just these significant pairs."""
    import xarray as xr

    table = np.zeros((n, n), dtype=bool)
    for i, j in edges:
        table[i, j] = True
    both = ("sample_a", "sample_b")
    data = {
        "cosine": (both, np.where(table, -0.5, 0.1)), "dot": (both, np.where(table, -1.0, 0.2)), "significant": (both, table),
        "p_value": (both, np.where(table, 1e-6, 0.5)), "q_value": (both, np.where(table, 1e-4, 0.9)), "effect_size": (both, np.where(table, 6.0, 0.0)),
    }  # fmt: skip
    for k, side in enumerate("ab"):
        data[f"loss_{side}"] = (f"sample_{side}", np.asarray(losses[k], dtype=float))
        data[f"mean_cosine_{side}"] = (f"sample_{side}", np.full(n, -0.1))
        data[f"task_q_value_{side}"] = (f"sample_{side}", np.ones(n) if task_q is None else task_q[k])
    coords = {}
    for k, side in enumerate("ab"):
        coords |= {f"sample_{side}": [f"{side}{i}" for i in range(n)], f"index_{side}": (f"sample_{side}", np.arange(n) + k * n)}
        coords[f"task_{side}"] = (f"sample_{side}", [side] * n)
    return xr.Dataset(data, coords)


def test_curation_removes_the_higher_loss_of_a_pair_and_one_hub_of_many():
    losses = [[1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 6, 5, 8, 7]]
    assert ts.recipes.curate(made([(0, 0)], losses))["sample"].tolist() == ["b0"]
    assert ts.recipes.curate(made([(1, 1)], losses))["sample"].tolist() == ["a1"]
    assert ts.recipes.curate(made([(1, 1)], losses), keep="higher_loss")["sample"].tolist() == ["b1"]
    hub = made([(3, j) for j in range(6)], losses)
    plan = ts.recipes.curate(hub, keep="most")
    assert plan["sample"].tolist() == ["a3"] and plan["n_pairs"].tolist() == [6] and "its cosine with" in plan["reason"][0]


def test_curation_first_removes_those_against_a_whole_task_unless_the_tasks_conflict():
    losses = [np.arange(8), np.arange(8)]
    q = np.ones(8)
    q[2] = 1e-5
    plan = ts.recipes.curate(made([(2, 5), (1, 1)], losses, task_q=(q, np.ones(8))))
    assert set(plan["sample"]) == {"a2", "b1"} or set(plan["sample"]) == {"a2", "a1"}
    assert "its mean cosine with 'b' is -0.10" in plan.set_index("sample").loc["a2", "reason"]
    with pytest.warns(UserWarning, match="8 of 8 samples of 'a' conflict with 'b': the tasks conflict"):
        plan = ts.recipes.curate(made([], losses, task_q=(np.zeros(8), np.ones(8))))
    assert isinstance(plan, pd.DataFrame) and plan.empty


def test_a_cover_touches_every_edge_at_no_more_than_twice_the_least_weight():
    from itertools import combinations

    for seed in range(60):
        draw = np.random.default_rng(seed)
        edges = [(int(i), int(j)) for i, j in {tuple(sorted(draw.choice(8, 2, replace=False))) for _ in range(9)}]
        weights = dict(enumerate(draw.uniform(0.1, 3, 8)))
        cover = set(vertex_cover(edges, weights))
        assert all(cover & set(edge) for edge in edges)
        best = min(
            sum(weights[v] for v in some)
            for k in range(9)
            for some in combinations(range(8), k)
            if all(set(edge) & set(some) for edge in edges)
        )
        assert sum(weights[v] for v in cover) <= 2 * best + 1e-9
        assert all(any(not (cover - {v}) & set(edge) for edge in edges) for v in cover)  # none is there for nothing


def test_conflict_tokens_count_the_lowest_token_of_both_sides():
    scope, one, other = texts("gpt2", 6, 5)
    found = ts.recipes.sample_conflicts(scope, one, other, tokens=5)
    tokens = ts.recipes.conflict_tokens(found)
    at = [dict(sample_a=a, sample_b=b) for a, b in zip(found["pair_sample_a"].values, found["pair_sample_b"].values)]
    named = [int(found[f"token_{side}"].sel(place)) for side in "ab" for place in at]
    for token in tokens["token_id"].values:
        assert tokens["n"].sel(token_id=token) == named.count(token) and np.isclose(
            tokens["rate"].sel(token_id=token), named.count(token) / 10
        )
    rows = [(one, place["sample_a"]) for place in at] + [(other, place["sample_b"]) for place in at]
    ids = [s.input_ids[s.ids.index(name)][s.attention_mask[s.ids.index(name)].bool()].numpy() for s, name in rows]
    token = int(tokens["token_id"][3])
    assert np.isclose(tokens["expected"].sel(token_id=token), np.mean([(row == token).mean() for row in ids]))


def test_removal_is_a_step_without_those_samples():
    """Least squares in closed form: the loss on others after one step, with and without."""
    scope, one, other = known_gradients(rng.normal(1, 1, (8, 6)), rng.normal(-1, 1, (6, 6)))
    train, evaluation = one, other
    x, y = -one.inputs["x"].numpy(), -other.inputs["x"].numpy()  # the samples' gradients at w = 0
    removed = [one.ids[i] for i in (1, 4)]
    found = ts.recipes.removal_effect(scope, train, removed, evaluation, learning_rate=0.1, n_random=30)

    def loss(w):
        return 0.5 * ((w + y) ** 2).sum(1).mean()

    kept = np.delete(x, [1, 4], 0)
    for name, rows in (("everything kept", x), ("removed", kept)):
        expected = loss(-0.1 * rows.mean(0)) - loss(0 * x[0])
        assert np.isclose(found["loss_change"].sel(selection=name)[0], expected, rtol=1e-5), name
    random = found["loss_change"].sel(selection="random").values
    assert np.isclose(found["difference"], expected - random.mean(), rtol=1e-4)
    assert np.isclose(found["p_value"], (1 + (random <= float(found["loss_change"][1, 0])).sum()) / 31)
    assert all((p == 0).all() for p in scope.model.parameters())
    plan = pd.DataFrame({"sample": removed, "reason": ["", ""]})
    assert ts.recipes.removal_effect(scope, train, plan, evaluation, learning_rate=0.1, n_random=30).equals(found)


def test_bad_input_gets_one_clear_line():
    scope, one, other = texts()
    found = ts.recipes.sample_conflicts(scope, one, other)
    for call, error, words in (
        (lambda: ts.recipes.sample_conflicts(scope, one, other, alpha=2), ValueError, "alpha is 2"),
        (lambda: ts.recipes.sample_conflicts(scope, one, other, tokens=-1), ValueError, "tokens is -1"),
        (lambda: ts.recipes.curate(found, keep="best"), ValueError, "keep is 'best': choose"),
        (lambda: ts.recipes.curate(ts.recipes.gradient_conflict(scope, one, other)), LookupError, "give a sample_conflicts"),
        (
            lambda: ts.recipes.conflict_tokens(ts.recipes.sample_conflicts(scope, one, other, tokens=0)),
            LookupError,
            "tokens= above 0",
        ),
        (lambda: ts.recipes.removal_effect(scope, one, ["x"], other), LookupError, "'x' is none of the training samples"),
        (lambda: ts.recipes.removal_effect(scope, one, one.ids[:1], one), ValueError, "evaluate on others"),
        (lambda: ts.recipes.removal_effect(scope, one, one.ids, other), ValueError, "5 of 5 samples are to be removed"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_sample_that_is_all_but_learned_keeps_its_direction():
    """Its squared gradient is no number in single precision; another one's beside it is."""
    g_a, g_b = rng.normal(size=(6, 8)), rng.normal(size=(5, 8))
    g_a[2] *= 1e-24
    g_b[3] *= 1e-30
    scope = ts.Scope(Point(8, 4), loss=half_square)
    one, other = (
        ts.Samples.tensors(torch.tensor(-g, dtype=torch.float32), torch.zeros(len(g)), task=t)
        for g, t in ((g_a, "one"), (g_b, "other"))
    )
    found = ts.recipes.sample_conflicts(scope, one, other)["cosine"]
    assert np.allclose(found, g_a @ g_b.T / np.linalg.norm(g_a, axis=1)[:, None] / np.linalg.norm(g_b, axis=1), atol=1e-6)


def test_a_side_without_tokens_of_its_own_takes_no_part_in_conflict_tokens():
    scope, one, other = texts("gpt2", 5, 4)
    begun = one.input_ids.index_fill(1, torch.tensor([0]), 7), other.input_ids.index_fill(1, torch.tensor([0]), 7)
    mask = one.attention_mask.clone()
    mask[:, 2:] = 0
    labels = begun[0].clone()
    labels[:, 0] = -100
    found = ts.recipes.sample_conflicts(
        scope, ts.Samples.tokens(begun[0], mask, labels, task="one"), ts.Samples.tokens(begun[1], task="other"), tokens=50
    )
    found["contribution_a"][:, 1:] = np.nan  # nothing but the first token
    tokens = ts.recipes.conflict_tokens(found)
    assert np.isclose(tokens["expected"].sum(), 1) and np.isclose(tokens["rate"].sum(), 1)


def test_conflicts_of_several_models_must_be_chosen_from():
    scope, one, other = texts("gpt2", 5, 4)
    found = ts.Study({"x": scope, "y": scope}, one + other).run(ts.recipes.sample_conflicts)["sample_conflicts"]
    for read in (ts.recipes.conflict_pairs, ts.recipes.curate, ts.recipes.conflict_tokens):
        with pytest.raises(ValueError, match=r"there is more than one of model here: choose one, such as ds.isel\(model=0\)"):
            read(found)
    assert len(ts.recipes.conflict_pairs(found.isel(model=1))) == 20


def test_a_step_of_a_model_in_half_precision_is_not_rounded_away():
    scope, one, other = texts("gpt2", 8, 4)
    half = copy.deepcopy(scope.model).to(torch.bfloat16)
    found, true = (
        ts.recipes.removal_effect(ts.Scope(model), one, [one.ids[2]], other, n_random=2)["loss_change_mean"]
        for model in (half, copy.deepcopy(half).float())
    )
    assert np.allclose(found, true, rtol=0.1)
    assert all(p.dtype == torch.bfloat16 for p in half.parameters())


def test_pairs_come_by_p_and_then_by_cosine_and_small_effects_are_not_curated():
    losses = [np.arange(8), np.arange(8)]
    ds = made([(0, 0), (1, 1), (2, 2)], losses)
    ds["cosine"][0, 0], ds["cosine"][1, 1], ds["p_value"][2, 2] = -0.4, -0.6, 1e-9
    pairs = ts.recipes.conflict_pairs(ds, significant=True)
    assert pairs["sample_a"].tolist() == ["a2", "a1", "a0"]
    ds["effect_size"][1, 1] = 2.0
    assert sorted(ts.recipes.curate(ds)["sample"].str[1]) == ["0", "2"]
    assert sorted(ts.recipes.curate(ds, min_effect_size=1.0)["sample"].str[1]) == ["0", "1", "2"]


def test_the_reason_is_the_lowest_cosine_and_names_the_other_sample():
    for edges, hub, other in (([(3, 0), (3, 1), (3, 2)], "a3", "b1"), ([(0, 3), (1, 3), (2, 3)], "b3", "a1")):
        ds = made(edges, [np.arange(8), np.arange(8)])
        ds["cosine"].loc[dict(zip(("sample_a", "sample_b"), sorted((hub, other))))] = -0.9
        (row,) = ts.recipes.curate(ds, keep="most").to_dict("records")
        assert row["sample"] == hub and row["n_pairs"] == 3 and row["reason"] == f"its cosine with {other!r} is -0.90"


def test_a_sample_that_agrees_with_the_other_task_is_not_against_it():
    q = np.ones(8)
    q[2] = 1e-5
    ds = made([], [np.arange(8), np.arange(8)], task_q=(q, np.ones(8)))
    ds["mean_cosine_a"][2] = 0.2
    assert ts.recipes.curate(ds).empty


def test_options_may_be_numbers_of_numpy():
    scope, one, other = texts("gpt2", 5, 4)
    found = ts.recipes.sample_conflicts(scope, one, other, alpha=np.float32(0.5), tokens=np.int64(2), skip_first=np.bool_(True))
    assert json.loads(found.attrs["tensorscope"])["alpha"] == 0.5 and found.sizes["pair"] == 2
    effect = ts.recipes.removal_effect(scope, one, [one.ids[0]], other, learning_rate=np.float32(0.5), n_random=np.int64(2))
    assert json.loads(effect.attrs["tensorscope"])["learning_rate"] == 0.5
