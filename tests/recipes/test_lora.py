"""Where to put LoRA: the ranking, the budgets of the controls, and peft itself on the modules that were chosen."""

import copy
import itertools
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from model_zoo import build
from peft import LoraConfig, get_peft_model

import tensorscope_nb as ts
from tensorscope_nb.recipes.lora_budget import lowest_near, random_near

IDS = torch.randint(1, 50, (9, 12), generator=torch.Generator().manual_seed(1))
SCORES = {
    "mean": lambda q, size, a, b: q / size,
    "total": lambda q, size, a, b: q,
    "per_parameter": lambda q, size, a, b: q / (8 * (a + b)),
}


def fisher_of(scope):
    if scope.anatomy.task == "masked":
        return ts.recipes.grouped_fisher(scope, ts.Samples.tokens(IDS, labels=IDS))
    return ts.recipes.grouped_fisher(scope, IDS)


def with_adapters(model, targets, r=8):
    """What peft makes of a copy, and the modules that got an adapter."""
    peft_model = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=targets, r=r))
    found = [n.removeprefix("base_model.model.") for n, m in peft_model.named_modules() if hasattr(m, "lora_A")]
    return peft_model, found


def a_and_b(model, name):
    shape = model.get_submodule(name).weight.shape
    return int(shape[0]), int(shape[1])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "bert"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")
def test_peft_adapts_exactly_the_modules_of_a_plain_ranking(name, score):
    scope = ts.Scope(build(name))
    fisher = fisher_of(scope)
    targets = ts.recipes.lora_targets(scope, fisher, n=4, score=score)

    layers = ("transformer.h.", "model.layers.", "gpt_neox.layers.", "bert.encoder.layer.")
    linear = [m for m in fisher["module"].values if m.startswith(layers) and scope.model.get_submodule(m).weight.ndim == 2]
    q, size = (dict(zip(fisher["module"].values, fisher[v].values)) for v in ("importance", "n_parameters"))
    scores = np.array([SCORES[score](q[m], size[m], *a_and_b(scope.model, m)) for m in linear])
    assert list(targets) == [linear[i] for i in np.argsort(-scores, kind="stable")[:4]]
    assert np.allclose(targets.table["score"], np.sort(scores)[::-1], rtol=1e-12)
    assert set(targets.table.index) == set(linear)

    for r in (2, 8):
        peft_model, found = with_adapters(scope.model, targets, r)
        assert sorted(found) == sorted(targets)
        trained = {n: p.numel() for n, p in peft_model.named_parameters() if p.requires_grad}
        assert sum(trained.values()) == targets.trainable(r) == sum(r * sum(a_and_b(scope.model, m)) for m in targets)
        assert all("lora_" in n for n in trained)
    for control in (targets.bottom(), targets.random(seed=3)):
        assert sorted(with_adapters(scope.model, control)[1]) == sorted(control)


def test_the_seeds_snippet_runs_and_its_freeze_loop_changes_nothing(capsys):
    scope = ts.Scope(build("llama"))
    model = copy.deepcopy(scope.model)
    target_modules = ts.recipes.lora_targets(scope, fisher_of(scope), n=4)
    config = LoraConfig(target_modules=target_modules, r=8, lora_alpha=16, lora_dropout=0.05)
    model = get_peft_model(model, config)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        if not any(t in name for t in target_modules):
            p.requires_grad_(False)
    assert before == {name: p.requires_grad for name, p in model.named_parameters()}
    print(f"Trainable params: {sum(p.numel() for p in model.parameters() if p.requires_grad):,}")
    assert f"{target_modules.trainable(8):,}" in capsys.readouterr().out


def test_norms_embeddings_and_the_unembedding_take_no_place():
    """By the mean they come first, which left the earlier tool with an empty list: here they are not ranked at all."""
    scope = ts.load("tiny")
    fisher = ts.recipes.grouped_fisher(scope, ts.datasets.maths(scope, n=16))
    mean = (fisher["importance"] / fisher["n_parameters"]).to_series()
    assert mean.nlargest(4).index.str.contains("ln_").any()
    targets = ts.recipes.lora_targets(scope, fisher, n=8)
    assert sorted(targets) == sorted(
        f"transformer.h.{i}.{m}" for i in (0, 1) for m in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    )
    with pytest.raises(ValueError, match="n is 9 and 8 eligible modules have a Fisher mass: ask for at most 8"):
        ts.recipes.lora_targets(scope, fisher, n=9)


def test_the_table_says_what_is_within_the_noise_of_the_cut():
    scope = ts.Scope(build("llama"))
    fisher = fisher_of(scope)
    names = list(ts.recipes.lora_targets(scope, fisher, n=14))
    masses = np.arange(14, 0, -1.0)
    for i, name in enumerate(names):
        fisher["importance"].loc[name] = masses[i]
        fisher["ci_low"].loc[name], fisher["ci_high"].loc[name] = masses[i] - 0.4, masses[i] + 0.4
    assert ts.recipes.lora_targets(scope, fisher, n=3, score="total").cut_overlaps is False
    fisher["ci_low"].loc[names[1]] = 11.3  # reaches the fourth's interval
    fisher["ci_high"].loc[names[7]] = 11.6  # reaches the third's
    targets = ts.recipes.lora_targets(scope, fisher, n=3, score="total")
    assert list(targets) == names[:3] and targets.cut_overlaps is False
    assert targets.table["overlaps_cut"].tolist() == [i in (1, 7) for i in range(14)]
    fisher["ci_low"].loc[names[2]] = 11.3
    targets = ts.recipes.lora_targets(scope, fisher, n=3, score="total")
    assert targets.cut_overlaps is True and "overlap" in repr(targets)
    assert targets.table["chosen"].tolist() == [True] * 3 + [False] * 11
    assert targets.bottom().cut_overlaps is None and targets.bottom().table["overlaps_cut"].isna().all()
    fisher["ci_low"].loc[names[3]] = fisher["ci_high"].loc[names[3]] = np.nan
    targets = ts.recipes.lora_targets(scope, fisher, n=3, score="total")
    assert targets.cut_overlaps is None and "overlap" not in repr(targets)
    everything = ts.recipes.lora_targets(scope, fisher, n=14)
    assert everything.cut_overlaps is None


def test_intervals_are_on_the_scale_of_the_score():
    scope = ts.Scope(build("gpt2"))
    fisher = fisher_of(scope)
    for score in SCORES:
        table = ts.recipes.lora_targets(scope, fisher, score=score, r=8).table
        over = table["importance"] / table["score"]
        assert np.allclose(table["ci_low"] / over, table["score_ci_low"]) and np.allclose(
            table["ci_high"] / over, table["score_ci_high"]
        )
    few = ts.recipes.grouped_fisher(scope, IDS[:4])  # too few for an interval
    assert ts.recipes.lora_targets(scope, few).cut_overlaps is None


@pytest.mark.parametrize("n", [1, 3, 4])
def test_controls_have_the_budget_of_the_chosen(n):
    """Every shape is there four or six times: few modules leave others of an equal budget."""
    scope = ts.Scope(build("llama"))
    targets = ts.recipes.lora_targets(scope, fisher_of(scope), n=n)
    bottom = targets.bottom()
    assert bottom.trainable(8) == targets.trainable(8) and not set(bottom) & set(targets)
    draws = [targets.random(seed=seed) for seed in range(12)]
    assert {draw.trainable(3) for draw in draws} == {targets.trainable(3)}
    assert len({tuple(draw) for draw in draws}) > 1 and all(set(draw) != set(targets) for draw in draws)
    assert draws[5] == targets.random(seed=5) and len(set(draws[5])) == len(draws[5])
    assert targets.random(r=2).r == 2 and targets.random(r=2) == targets.random()
    assert targets.trainable() == targets.trainable(8) == 2 * targets.trainable(4)
    table = targets.table
    assert table["adapter_parameters"][table["chosen"]].sum() == targets.trainable()


def test_the_lowest_set_is_that_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    for _ in range(60):
        widths = rng.choice([6, 9, 10, 24, 25], size=rng.integers(1, 10))
        scores, budget = rng.random(len(widths)), int(rng.integers(1, 80))
        sets = [list(s) for k in range(1, len(widths) + 1) for s in itertools.combinations(range(len(widths)), k)]
        best = min(sets, key=lambda s: (abs(widths[s].sum() - budget), (widths[s] * scores[s]).sum()))
        assert sorted(lowest_near(widths, scores, budget).tolist()) == best


def test_random_sets_of_one_budget_are_drawn_evenly():
    """Four modules of width 2 and two of width 4: of budget 4 are the six pairs and the two single ones."""
    widths = np.array([2, 2, 2, 2, 4, 4])
    drawn = [tuple(sorted(random_near(widths, 4, seed, {4}).tolist())) for seed in range(1500)]
    assert all(widths[list(d)].sum() == 4 for d in drawn) and (4,) not in drawn
    pairs = np.array([drawn.count(pair) for pair in itertools.combinations(range(4), 2)])
    expected = pairs.sum() / 6
    assert len(set(drawn)) == 7 and ((pairs - expected) ** 2 / expected).sum() < 20  # χ² with 5 degrees: p = .001


def test_controls_that_cannot_be_fair_are_said():
    scope = ts.load("tiny")
    fisher = ts.recipes.grouped_fisher(scope, ts.datasets.maths(scope, n=8))
    six = ts.recipes.lora_targets(scope, fisher, n=6)
    with pytest.warns(UserWarning, match=r"no bottom set of modules comes nearer to 14,592 adapter parameters than"):
        assert len(six.bottom()) == 2
    everything = ts.recipes.lora_targets(scope, fisher, n=8)
    for control in (everything.random, everything.bottom):
        with pytest.raises(ValueError, match="all 8 eligible modules are chosen"):
            control()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ts.recipes.lora_targets(scope, fisher, n=4).bottom()


def test_an_mlp_and_the_paths_that_peft_would_match_twice():
    scope = ts.Scope(build("mlp"))
    data = (torch.rand(12, 10, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    targets = ts.recipes.lora_targets(scope, ts.recipes.grouped_fisher(scope, data), n=2, r=2)
    peft_model, found = with_adapters(scope.model, targets, r=2)
    assert sorted(found) == sorted(targets)
    assert sum(p.numel() for p in peft_model.parameters() if p.requires_grad) == targets.trainable()

    nested = torch.nn.Sequential(
        torch.nn.Linear(10, 8), torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()), torch.nn.Linear(8, 3)
    )
    scope = ts.Scope(nested)
    fisher = ts.recipes.grouped_fisher(scope, data)
    assert sorted(with_adapters(nested, ["0"])[1]) == ["0", "1.0"]  # peft itself
    with pytest.raises(ValueError, match=r"peft would match '0' to '1\.0' too, by the end of the path"):
        ts.recipes.lora_targets(scope, fisher, n=3)
    fisher["importance"].loc["0"] = 0
    assert sorted(ts.recipes.lora_targets(scope, fisher, n=2)) == ["1.0", "2"]


def test_a_module_that_is_never_called_is_not_adapted():
    class Attending(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.read = torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.read(self.attention(x, x, x, need_weights=False)[0].mean(1))

    scope = ts.Scope(Attending())
    fisher = ts.recipes.grouped_fisher(scope, (torch.rand(9, 5, 8), torch.arange(9) % 3))
    assert list(ts.recipes.lora_targets(scope, fisher, n=1).table.index) == ["read"]


@pytest.mark.parametrize(("name", "n_linear"), [("falcon", 8), ("gptj", 12)])  # of GPT-J the unembedding has its own weights
def test_where_the_layers_are_not_known_all_but_the_unembedding_is_ranked(name, n_linear):
    scope = ts.Scope(build(name))
    assert not scope.anatomy.n_layers
    targets = ts.recipes.lora_targets(scope, fisher_of(scope), n=2)
    assert len(targets.table) == n_linear and targets.table.index.str.startswith("transformer.h.").all()
    assert sorted(with_adapters(scope.model, targets)[1]) == sorted(targets)


def test_the_list_survives_json_pickle_and_copies():
    import json

    scope = ts.Scope(build("llama"))
    targets = ts.recipes.lora_targets(scope, fisher_of(scope), n=3)
    for again in (pickle.loads(pickle.dumps(targets)), copy.deepcopy(targets)):
        assert again == targets and again.trainable() == targets.trainable() and again.table.equals(targets.table)
    assert json.loads(json.dumps(targets)) == list(targets)
    said = json.loads(targets.bottom().attrs["tensorscope"])
    assert said["options"]["n"] == 3 and said["fisher"]["recipe"] == "grouped_fisher" and said["control"] == "bottom"


def test_what_cannot_be_ranked_is_said_in_one_line():
    scope = ts.load("tiny")
    samples = ts.datasets.maths(scope, n=8)
    fisher = ts.recipes.grouped_fisher(scope, samples)

    def refused(error, words, fisher=fisher, scope=scope, **options):
        with pytest.raises(error, match=words) as caught:
            ts.recipes.lora_targets(scope, fisher, **options)
        assert "\n" not in str(caught.value)

    refused(ValueError, "score is 'max': choose among mean, total, per_parameter", score="max")
    refused(ValueError, "n is 0: ask for at least 1", n=0)
    refused(ValueError, "r is 0: the rank", r=0)
    by = {g: ts.recipes.grouped_fisher(scope, samples, granularity=g) for g in ("head", "layer", "channel")}
    refused(ValueError, "fisher is by layer, head, block: lora_targets takes the Dataset of grouped_fisher", by["head"])
    refused(ValueError, "fisher is by layer: lora_targets takes", by["layer"])
    refused(ValueError, "fisher is by module, channel: lora_targets takes", by["channel"])
    refused(ValueError, "fisher has no importance", ts.recipes.gradient_health(scope, samples))
    refused(TypeError, "fisher is a Samples", samples)
    along = ts.Study(ts.checkpoints("tiny"), samples).run(ts.recipes.grouped_fisher)["grouped_fisher"]
    refused(ValueError, "fisher has a checkpoint besides the module: choose one, fisher.sel", along)
    assert ts.recipes.lora_targets(scope, along.sel(checkpoint=3000)) == ts.recipes.lora_targets(scope, fisher)
    refused(ValueError, "has no module 'transformer.wte': give the grouped_fisher of this model", scope=ts.Scope(build("llama")))
    broken = fisher.copy(deep=True)
    broken["importance"].loc["transformer.h.0.mlp.c_fc"] = np.nan
    refused(ValueError, "the importance of transformer.h.0.mlp.c_fc is nan", broken)
    norms = ts.recipes.grouped_fisher(scope, samples, modules="*ln_*")
    refused(ts.UnsupportedModel, "tiny has no Linear or Conv1D with a Fisher mass in its layers", norms)
    adapted = ts.Scope(build("gpt2"))
    before = fisher_of(adapted)
    get_peft_model(adapted.model, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    refused(ValueError, "already carries an adapter .transformer.h.0.attn.c_attn.: get_peft_model changes", before, adapted)


def test_peft_is_not_imported_with_the_package():
    code = "import sys, tensorscope_nb as ts; ts.recipes.lora_targets; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
