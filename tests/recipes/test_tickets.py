"""Iterative magnitude pruning: against a plain loop, bit by bit; its masks, its controls, and what it refuses."""

import copy
import json
import signal

import numpy as np
import pytest
import torch
from pruned_by_hand import by_hand, task
from scipy import stats
from tiny_models import random_gpt2
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

import tensorscope_nb as ts
from tensorscope_nb.numerics.schedule import kept_counts
from tensorscope_nb.recipes.recipe import run_together
from tensorscope_nb.recipes.ticket_result import _advantage, _winning
from tensorscope_nb.recipes.training import Batches
from tensorscope_nb.sweep.request import Unfinished

prune = ts.recipes.iterative_magnitude_pruning
N = 6 * 12 + 12 * 3


@pytest.fixture(autouse=True)
def quiet():
    with ts.options(progress=False):
        yield


def said(found):
    return json.loads(found.attrs["tensorscope"])


def flat(scope):
    return torch.cat([p.detach().flatten().clone() for p in scope.model.parameters() if p.ndim >= 2])


class Watch:
    """A train_fn that trains by an optimizer, and keeps what it saw."""

    def __init__(self, make=lambda p: torch.optim.SGD(p, 0.5), clip=None):
        self.make, self.clip = make, clip
        self.starts, self.ends, self.calls, self.worst, self.norms, self.states = [], [], [], 0.0, [], []

    def __call__(self, scope, train, steps, seed):
        out = flat(scope) == 0
        self.starts.append(flat(scope))
        self.states.append(copy.deepcopy(scope.model.state_dict()))
        self.calls.append((steps, seed))
        optimizer = self.make(scope.model.parameters())

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(scope.model(train.inputs["x"]), train.labels)
            loss.backward()
            if self.clip:
                self.norms.append(float(nn.utils.clip_grad_norm_(scope.model.parameters(), self.clip)))
            return loss

        for _ in steps:
            optimizer.step(closure)
            self.worst = max(self.worst, float(flat(scope)[out].abs().max()) if bool(out.any()) else 0.0)
        self.ends.append(flat(scope))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_default_training_is_that_of_a_plain_loop_bit_for_bit(optimizer):
    scope, samples = task()
    sparsities, steps = (0.4, 0.7), 30
    counts, ends = kept_counts(N, sparsities, 0.2)
    trained = []
    hook = scope.model.register_forward_pre_hook(  # goes with the copy: what is measured is the trained model
        lambda module, args: None if module.training else trained.append([p.detach().clone() for p in module.parameters()])
    )
    with ts.options(seed=3):
        options = {"sparsities": sparsities, "train_steps": steps, "optimizer": optimizer, "learning_rate": 0.05}
        found = prune(scope, samples, **options, controls=False, chunk=96)
    hook.remove()
    drawn = Batches(samples, torch.ones(96), 32, said(found)["order_seeds"][0])
    batches = [drawn.order(step // 3)[32 * (step % 3) : 32 * (step % 3) + 32] for step in range(steps)]
    make = {"sgd": lambda p: torch.optim.SGD(p, 0.05), "adam": lambda p: torch.optim.Adam(p, 0.05, fused=True)}[optimizer]
    expected = by_hand(scope, samples, counts, batches, make)
    trained = trained[-len(counts) :]  # before, the copy is wrapped
    assert all(torch.equal(a, b) for ours, (*_, weights) in zip(trained, expected) for a, b in zip(ours, weights))
    np.testing.assert_allclose(found["round_loss"][0], [loss for loss, *_ in expected], rtol=1e-6)
    assert found["round_accuracy"].values[0] == pytest.approx([accuracy for _, accuracy, *_ in expected])
    for sparsity, end in zip(sparsities, ends):
        assert all(torch.equal(mask, expected[end][2][name]) for name, mask in ts.recipes.masks(found)[sparsity].items())
        loss = found["loss"].sel(sparsity=sparsity, replicate=0)
        assert float(loss.sel(control="ticket")) == float(found["round_loss"][0, end])
        assert float(loss.sel(control="dense")) == float(found["round_loss"][0, 0])


def test_each_sparsity_leaves_exactly_its_share_and_masks_are_nested():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.9, 0.33, 0.5), train_steps=5)
    assert found["sparsity"].values.tolist() == [0.33, 0.5, 0.9]
    kept = found["mask"].values
    assert kept.dtype == bool and found["mask"].dims == ("sparsity", "parameter")
    assert kept.sum(1).tolist() == [N - round(s * N) for s in (0.33, 0.5, 0.9)] == found["n_kept"].values.tolist()
    assert (kept[0] | ~kept[1]).all() and (kept[1] | ~kept[2]).all()
    sizes = np.array([72, 36])
    np.testing.assert_allclose(found["density"].values @ sizes, kept.sum(1))
    assert found["module"].values.tolist() == ["0", "3"]
    assert torch.equal(torch.as_tensor(found["initial"].values), flat(scope))
    whole = ts.unflatten(found["initial"], scope)
    assert all(torch.equal(whole[name], dict(scope.model.named_parameters())[name]) for name in ("0.weight", "3.weight"))
    sparsity = found["round_sparsity"].values[0]
    assert (np.diff(sparsity) > 0).all() and (np.diff(sparsity) <= 0.2 * (1 - sparsity[:-1]) + 1 / N).all()


def test_by_layer_every_tensor_loses_the_same_share():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.5, 0.75), train_steps=5, pruning="layer")
    np.testing.assert_allclose(found["density"], [[0.5, 0.5], [0.25, 0.25]])
    assert not np.allclose(prune(scope, samples, sparsities=(0.5, 0.75), train_steps=5)["density"], found["density"])


class ByHand(torch.optim.Optimizer):
    """An optimizer of one's own, which moves every weight whatever its gradient."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            closure()
        for p in self.param_groups[0]["params"]:
            p.add_(torch.ones_like(p), alpha=0.01).sub_(p.grad)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.3, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.5, foreach=True),
        lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
        ByHand,
    ],
    ids=["momentum and decay", "adam", "adamw", "lbfgs", "by hand"],
)
def test_pruned_weights_are_zero_after_every_step_of_any_optimizer(make):
    scope, samples = task()
    watch = Watch(make)
    before = len(_global_optimizer_post_hooks)
    found = prune(scope, samples, sparsities=(0.6,), train_steps=6, train_fn=watch)
    assert watch.worst == 0.0 and len(_global_optimizer_post_hooks) == before
    assert [int((start == 0).sum()) for start in watch.starts[:-2]] == [N - n for n in kept_counts(N, (0.6,), 0.2)[0]]
    ticket, mask = watch.ends[len(watch.ends) - 3], torch.as_tensor(found["mask"].values[0])
    assert bool((ticket[~mask] == 0).all()) and bool((ticket[mask] != watch.starts[0][mask]).any())


def test_gradients_of_pruned_weights_do_not_count_where_gradients_are_clipped():
    scope, samples = task()
    watch = Watch(clip=1e-3)
    prune(scope, samples, sparsities=(0.6,), train_steps=1, train_fn=watch, controls=False)
    model = copy.deepcopy(scope.model)
    for start, norm in zip(watch.starts, watch.norms):
        weights = [p for p in model.parameters() if p.ndim >= 2]
        for p, piece in zip(weights, start.split([p.nelement() for p in weights])):
            p.data.copy_(piece.view_as(p))
        loss = nn.functional.cross_entropy(model.train()(samples.inputs["x"]), samples.labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        kept = [g * (p != 0) if p.ndim >= 2 else g for g, p in zip(gradients, model.parameters())]
        assert norm == pytest.approx(float(torch.cat([g.flatten() for g in kept]).norm()), rel=1e-5)


@pytest.mark.parametrize("rewind_step", [0, 3])
def test_survivors_start_each_round_where_they_started_bit_for_bit(rewind_step):
    scope, samples = task(norm=True)
    watch = Watch()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=8, rewind_step=rewind_step, train_fn=watch, controls=False)
    whole, first = range(rewind_step, 8), 1 if rewind_step else 0
    assert [steps for steps, _ in watch.calls] == ([range(3)] if rewind_step else []) + [whole] * (len(watch.calls) - first)
    assert len({seed for _, seed in watch.calls}) == 1
    theta = watch.ends[0] if rewind_step else flat(scope)
    assert torch.equal(watch.starts[0], flat(scope))
    for start in watch.starts[first:]:
        assert torch.equal(start[start != 0], theta[start != 0])
    assert len(watch.starts) - first == len(kept_counts(N, (0.5,), 0.2)[0])
    others = [name for name in watch.states[0] if name not in ("0.weight", "4.weight")]
    for state in watch.states[first:]:  # biases, and what the norm has counted
        assert all(torch.equal(state[name], watch.states[first][name]) for name in others)
    assert ("rewound" in found) == bool(rewind_step)
    if rewind_step:
        assert torch.equal(torch.as_tensor(found["rewound"].values), theta)
        assert int(watch.states[1]["1.num_batches_tracked"]) == 3


def test_the_weights_of_a_sparse_teacher_are_the_ticket():
    """A linear teacher with 5 of 25 weights: nothing but these can be the ticket, and others have nothing to learn by."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.zeros(25)
    teacher[[2, 7, 11, 18, 24]] = torch.tensor([2.0, -1.5, 1.0, 3.0, -2.5])
    x = torch.randn(300, 25, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(25, 1, bias=False)
    scope = ts.Scope(model, loss=lambda output, y: (output[:, 0] - y) ** 2)
    found = prune(scope, ts.Samples.tensors(x, x @ teacher), sparsities=(0.5, 0.8), train_steps=300, learning_rate=0.05)
    mask = ts.recipes.masks(found)[0.8]["weight"][0]
    assert torch.equal(mask, teacher != 0)
    loss = found["loss"].sel(sparsity=0.8, replicate=0)
    assert float(loss.sel(control="ticket")) < 1e-6 and float(loss.sel(control="random")) > 1
    assert np.isnan(found["accuracy"]).all() and any("accuracy is NaN" in note for note in said(found)["notes"])
    assert said(found)["criterion"] == "loss"


def test_controls_differ_from_the_ticket_in_one_thing_each():
    scope, samples = task()
    watch = Watch()
    found = prune(scope, samples, sparsities=(0.5, 0.8), train_steps=4, rewind_step=2, train_fn=watch)
    starts, seeds = watch.starts, {seed for _, seed in watch.calls}
    assert len(seeds) == 1  # one order for all
    theta, others = flat(scope), starts[2]  # after the first steps and the dense training
    assert not torch.equal(theta, others)
    edges = [72, 36]
    for a, b in zip(theta.split(edges), others.split(edges)):
        assert torch.equal(a.sort().values, b.sort().values)  # the same values in another order
    masks = torch.as_tensor(found["mask"].values)
    ends = kept_counts(N, (0.5, 0.8), 0.2)[1]
    for i, at in enumerate((ends[0] + 2, ends[1] + 2 + 2)):  # the ticket's training, and after it its controls
        ticket, reinit, random = starts[at : at + 3]
        assert torch.equal(ticket != 0, masks[i]) and torch.equal(reinit != 0, masks[i])
        assert torch.equal(reinit[masks[i]], watch.ends[2][masks[i]])  # the same rewinding
        assert not torch.equal(random != 0, masks[i])
        assert torch.equal(random[random != 0], watch.ends[0][random != 0])
        counts = [[int((piece != 0).sum()) for piece in start.split(edges)] for start in (ticket, random)]
        assert counts[0] == counts[1]
    without = prune(scope, samples, sparsities=(0.5,), train_steps=4, controls=False)
    assert without["control"].values.tolist() == ["ticket", "dense"]


def test_other_initial_weights_can_be_of_ones_own():
    scope, samples = task()
    seen = []

    def initialize(model, seed):
        seen.append(seed)
        for p in model.parameters():
            p.data.normal_()

    watch = Watch()
    prune(scope, samples, sparsities=(0.5,), train_steps=2, train_fn=watch, initialize=initialize, n_seeds=2)
    assert len(set(seen)) == len(seen) == 3  # for reinit in both, and for the second replicate
    assert torch.equal(watch.starts[0], flat(scope)) and float(flat(scope).abs().max()) < 1 < float(watch.starts[-2].abs().max())
    with pytest.raises(ValueError, match="initialize= left them as they are"):
        prune(scope, samples, sparsities=(0.5,), train_steps=2, initialize=lambda model, seed: None)


def test_order_is_a_function_of_seed_and_step_and_each_epoch_goes_once_through_the_samples():
    _, samples = task(n=70)
    batches = Batches(samples, torch.ones(70), 32, 5)
    forwards = [batches.at(step)[0].ids for step in range(8)]
    again = Batches(samples, torch.ones(70), 32, 5)
    assert [again.at(step)[0].ids for step in reversed(range(8))] == forwards[::-1]
    assert len(set(forwards[0] + forwards[1])) == 64 and forwards[:2] != forwards[2:4]
    assert Batches(samples, torch.ones(70), 32, 6).at(0)[0].ids != forwards[0]
    part, shares = again.at(3)
    assert torch.equal(part.inputs["x"], samples[list(part.ids)].inputs["x"]) and float(shares.sum()) == pytest.approx(1)


class Drawing(nn.Module):
    """Draws from the global generator in training, as a dropout does."""

    seen: list[float] = []

    def forward(self, x):
        if self.training:
            self.seen.append(float(torch.rand(())))
        return x


def test_what_a_dropout_draws_is_new_at_each_step_and_the_same_for_ticket_and_controls():
    scope, samples = task()
    scope.model.append(Drawing())
    Drawing.seen.clear()
    prune(scope, samples, sparsities=(0.2,), train_steps=45, n_seeds=2)
    assert len(Drawing.seen) == 2 * 4 * 45  # replicates, trainings (dense, ticket and two controls), steps
    drawn = np.array(Drawing.seen).reshape(2, 4, 45)
    assert (drawn == drawn[:, :1]).all() and len(set(drawn[:, 0].ravel())) == 90


def test_a_training_begins_without_gradients_of_the_last():
    scope, samples = task()

    def accumulates(copy_of, train, steps, seed):
        assert all(p.grad is None for p in copy_of.model.parameters())
        nn.functional.cross_entropy(copy_of.model(train.inputs["x"]), train.labels).backward()
        copy_of.model[0].bias.data.add_(0.01)

    prune(scope, samples, sparsities=(0.5,), train_steps=1, train_fn=accumulates)


def test_random_masks_are_nested_as_those_of_the_ticket_are():
    scope, samples = task()
    watch = Watch()
    found = prune(scope, samples, sparsities=(0.2, 0.4), prune_rate=0.9, train_steps=1, train_fn=watch)
    few, many = (watch.starts[i] == 0 for i in (3, 6))  # dense, ticket, reinit, random, ticket, reinit, random
    assert (int(few.sum()), int(many.sum())) == (22, 43) and bool((many | ~few).all())
    assert not np.array_equal(~few.numpy(), found["mask"].values[0])


def test_a_model_that_breaks_where_weights_are_zero_is_told_from_a_training_that_diverges():
    _, samples = task()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"the loss is nan before a step is taken: .*choose others by modules="):
        prune(ts.Scope(model.eval()), samples, sparsities=(0.9,), train_steps=3)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    scope, samples = task(dropout=0.3, norm=True)
    options = {"sparsities": (0.5,), "train_steps": 30, "n_seeds": 2, "rewind_step": 3}
    a = prune(scope, samples, **options)
    torch.rand(7)
    b, c = prune(scope, samples, **options), prune(scope, samples, **options, seed=1)
    for name in a.data_vars:
        assert a[name].equals(b[name]), name
    assert not a["loss"].equals(c["loss"])
    assert a["loss"].sel(replicate=0).values.tolist() != a["loss"].sel(replicate=1).values.tolist()
    assert a["mask"].dims == ("replicate", "sparsity", "parameter") and a["initial"].dims == ("replicate", "parameter")
    first, second = a["initial"].values
    assert not np.array_equal(first, second) and np.array_equal(np.sort(first[:72]), np.sort(second[:72]))
    masks = ts.recipes.masks(a, replicate=1)[0.5]
    assert np.array_equal(torch.cat([m.flatten() for m in masks.values()]), a["mask"].sel(replicate=1, sparsity=0.5))


def test_the_model_and_the_random_state_are_left_bit_for_bit():
    scope, samples = task(dropout=0.5, norm=True)
    scope.model.train()
    scope.model[0].weight.grad = torch.ones(12, 6)
    before = {name: value.clone() for name, value in scope.model.state_dict().items()}
    state = torch.get_rng_state()
    prune(scope, samples, sparsities=(0.5,), train_steps=25, rewind_step=2)
    assert all(torch.equal(value, before[name]) for name, value in scope.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and scope.model.training
    assert torch.equal(scope.model[0].weight.grad, torch.ones(12, 6)) and scope.model[0].bias.grad is None


def test_training_is_in_training_mode_and_what_is_measured_is_not():
    scope, samples = task(dropout=0.5)
    modes = []

    def note(module, args):
        modes.append((module.training, torch.is_grad_enabled(), len(args[0])))

    hook = scope.model.register_forward_pre_hook(note)  # goes with the copy
    prune(scope, samples[:40], test=samples[40:90], sparsities=(0.5,), train_steps=4, controls=False)
    hook.remove()
    assert {mode for mode in modes if mode[2] == 32} == {(True, True, 32)}
    assert {mode for mode in modes if mode[2] == 50} == {(False, False, 50)}


def test_it_is_measured_on_the_test_samples_and_says_so():
    scope, samples = task()
    options = {"sparsities": (0.5,), "train_steps": 10}
    own, other = prune(scope, samples[:64], **options), prune(scope, samples[:64], test=samples[64:], **options)
    assert said(own)["evaluated_on"] == "train" and any("give test=" in note for note in said(own)["notes"])
    assert said(other)["evaluated_on"] == "test" and said(other)["n_evaluated"] == 32
    assert not np.allclose(own["loss"], other["loss"]) and own["mask"].equals(other["mask"])


def test_a_language_model_is_scored_by_its_predicted_tokens():
    scope = ts.Scope(random_gpt2())
    ids = torch.randint(1, 50, (12, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, 6:] = 0
    samples = ts.Samples.tokens(ids, mask)
    found = prune(scope, samples, sparsities=(0.5,), train_steps=0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = scope.model(ids, attention_mask=mask, position_ids=positions).logits[:, :-1]
    seen = mask[:, 1:].bool()
    loss = nn.functional.cross_entropy(logits[seen], ids[:, 1:][seen])
    assert float(found["loss"].sel(control="dense")[0, 0]) == pytest.approx(float(loss), rel=1e-5)
    right = (logits.argmax(-1) == ids[:, 1:])[seen].float().mean()
    assert float(found["accuracy"].sel(control="dense")[0, 0]) == pytest.approx(float(right))
    trained = prune(scope, samples, sparsities=(0.3,), train_steps=30, learning_rate=0.01, controls=False)
    assert float(trained["loss"].sel(control="ticket")[0, 0]) < 0.8 * float(loss)


def test_a_language_model_trains_on_the_mean_over_predicted_tokens():
    scope = ts.Scope(random_gpt2())
    for module in scope.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ids = torch.randint(1, 50, (6, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, 4:] = 0
    samples = ts.Samples.tokens(ids, mask)
    found = prune(scope, samples, sparsities=(0.2,), train_steps=1, optimizer="sgd", learning_rate=1.0, controls=False)
    model, seen = copy.deepcopy(scope.model), mask[:, 1:].bool()

    def loss():
        logits = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, :-1]
        return nn.functional.cross_entropy(logits[seen], ids[:, 1:][seen])

    loss().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= p.grad
    assert float(found["round_loss"][0, 0]) == pytest.approx(loss().item(), rel=1e-5)


def test_density_is_the_mean_share_over_replicates():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=5, n_seeds=3, controls=False)
    first, last = found["mask"].values[:, 0, :72].mean(1), found["mask"].values[:, 0, 72:].mean(1)
    assert len(set(first)) > 1
    np.testing.assert_allclose(found["density"].values[0], [first.mean(), last.mean()])


def test_one_shot_pruning_trains_nothing_and_is_named_so():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.25, 0.6), train_steps=0)
    assert "one-shot" in said(found)["method"] and found.sizes["round"] == 3
    assert found["control"].values.tolist() == ["ticket", "random", "dense"]
    weights = flat(scope).abs()
    for sparsity in (0.25, 0.6):
        least = torch.argsort(weights, stable=True)[: round(sparsity * N)]
        assert not found["mask"].sel(sparsity=sparsity).values[least].any()
    model = copy.deepcopy(scope.model)
    for name, mask in ts.recipes.masks(found)[0.6].items():
        dict(model.named_parameters())[name].data.mul_(mask)
    assert float(found["loss"].sel(control="ticket", sparsity=0.6)[0]) == pytest.approx(
        float(ts.Scope(model).losses(samples).mean()), rel=1e-6
    )
    assert "one-shot" not in said(prune(scope, samples, sparsities=(0.25,), train_steps=1))["method"]
    assert [found[name].attrs["long_name"] for name in ("loss", "accuracy")] == ["loss after pruning", "accuracy after pruning"]


def test_advantages_are_paired_over_replicates_with_student_intervals():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=20, n_seeds=5)
    for name, sign in (("loss", 1), ("accuracy", -1)):
        for control in ("reinit", "random", "dense"):
            values = found[name].sel(sparsity=0.5)
            differences = sign * (values.sel(control=control) - values.sel(control="ticket")).values
            interval = stats.ttest_1samp(differences, 0).confidence_interval()
            at = {"control": control, "sparsity": 0.5}
            assert float(found[f"{name}_advantage"].sel(at)) == pytest.approx(differences.mean(), abs=1e-12)
            assert float(found[f"{name}_advantage_ci_low"].sel(at)) == pytest.approx(interval.low, abs=1e-9)
            assert float(found[f"{name}_advantage_ci_high"].sel(at)) == pytest.approx(interval.high, abs=1e-9)
        assert np.isnan(found[f"{name}_advantage"].sel(control="ticket")).all()
    assert found["winning"].dtype == bool and found["winning"].dims == ("sparsity",)


@pytest.mark.parametrize("n_seeds, controls", [(1, True), (4, True), (5, False)])
def test_nothing_is_called_winning_without_replicates_and_controls(n_seeds, controls):
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=2, n_seeds=n_seeds, controls=controls)
    assert "winning" not in found and not any("winning" in note for note in said(found)["notes"])
    if n_seeds == 1:
        assert all(np.isnan(found[name]).all() for name in found.data_vars if "advantage" in name)
        assert any("one replicate" in note for note in said(found)["notes"])


def test_winning_takes_both_controls_and_no_loss_against_the_dense_model():
    names = ("ticket", "reinit", "random", "dense")
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 6, 5))
    ticket = np.full(6, 0.9)
    #                  wins  reinit as good  random as good  dense better  dense as good  all alike
    reinit = np.array([0.7, 0.9, 0.7, 0.7, 0.7, 0.9])
    random = np.array([0.6, 0.6, 0.9, 0.6, 0.6, 0.9])
    dense = np.array([0.8, 0.8, 0.8, 0.99, 0.9, 0.9])
    accuracy = np.stack([ticket, reinit, random, dense])[..., None] + noise
    scores = np.stack([1 - accuracy, accuracy], -1)
    for i in (0, 1):
        assert _winning(_advantage(scores, i), names).tolist() == [True, False, False, False, True, False]


def test_by_chance_alone_hardly_anything_is_winning():
    """Where all four are alike, both intervals lie above 0 in less than 1 of 40 trials."""
    rng = np.random.default_rng(1)
    names = ("ticket", "reinit", "random", "dense")
    scores = rng.normal(size=(4, 20000, 5, 2))
    share = _winning(_advantage(scores, 0), names).mean()
    assert 0 < share < 0.025


def test_an_interrupt_keeps_the_sparsities_that_are_done():
    scope, samples = task()
    ended = []

    def stop(copy_of, train, steps, seed):
        copy_of.model[0].bias.data.add_(0.01)
        ended.append(1)
        if len(ended) == 10:
            signal.raise_signal(signal.SIGINT)

    options = {"sparsities": (0.3, 0.5, 0.8), "train_steps": 1, "train_fn": stop}
    with pytest.raises(Unfinished) as stopped:
        prune(scope, samples, **options)
    found = stopped.value.results[0]
    assert said(found)["partial"] and found["sparsity"].values.tolist() == [0.3, 0.5]
    assert np.isfinite(found["loss"]).all() and len(ended) == 10
    ended[:] = [1] * 20
    whole = prune(scope, samples, **options)
    assert whole["loss"].isel(sparsity=slice(2)).equals(found["loss"])
    ended[:] = [1] * 7
    with pytest.raises(Unfinished) as stopped:
        prune(scope, samples, **options)
    assert stopped.value.results == [None]  # nothing can be said yet


def test_an_interrupt_comes_in_the_middle_of_a_training_and_changes_nothing():
    scope, samples = task(dropout=0.2)
    before, state, steps = flat(scope), torch.get_rng_state(), []

    def stop(module, args):
        steps.append(module.training)
        if sum(steps) == 245:
            signal.raise_signal(signal.SIGINT)

    hook = scope.model.register_forward_pre_hook(stop)
    with pytest.raises(Unfinished) as stopped:
        prune(scope, samples, sparsities=(0.2, 0.6), train_steps=50)
    hook.remove()
    assert sum(steps) == 245 and stopped.value.results[0]["sparsity"].values.tolist() == [
        0.2
    ]  # four trainings, the fifth stopped
    assert torch.equal(flat(scope), before) and torch.equal(torch.get_rng_state(), state)
    assert not _global_optimizer_post_hooks


def test_an_interrupt_comes_in_the_middle_of_a_train_fn():
    scope, samples = task()
    calls = []

    def stop(copy_of, train, steps, seed):
        copy_of.model[0].bias.data.add_(0.01)
        calls.append("begun")
        if len(calls) == 11:
            signal.raise_signal(signal.SIGINT)
        calls.append("ended")

    with pytest.raises(Unfinished):
        prune(scope, samples, sparsities=(0.5,), train_steps=1, train_fn=stop)
    assert len(calls) == 11 and not _global_optimizer_post_hooks


def test_results_are_shown_on_the_way():
    scope, samples = task()
    shown = []

    def so_far(made):
        shown.extend(make() for make in made.values())

    [whole] = run_together(
        scope, [(prune, (samples,), {"sparsities": (0.2, 0.4), "train_steps": 5, "n_seeds": 2})], so_far=so_far
    )
    assert [found.sizes["sparsity"] for found in shown][:1] == [1] and shown[-1].sizes["replicate"] in (1, 2)
    assert shown[0]["loss"].equals(whole["loss"].isel(sparsity=slice(1), replicate=slice(1)))


def test_an_interrupt_keeps_whole_replicates():
    scope, samples = task()
    seeds = []

    def stop(copy_of, train, steps, seed):
        copy_of.model[0].bias.data.add_(0.01)
        seeds.append(seed)
        if len(set(seeds)) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Unfinished) as stopped:
        prune(scope, samples, sparsities=(0.5,), train_steps=1, train_fn=stop, n_seeds=6)
    found = stopped.value.results[0]
    assert found.sizes["replicate"] == 2 == said(found)["n_seeds"] and "winning" not in found


def test_it_runs_in_a_study_on_its_samples(tmp_path):
    scope, samples = task()
    study = ts.Study(scope, samples)
    recipe = prune.using(sparsities=(0.5,), train_steps=25, n_seeds=2)
    plan = study.plan(recipe)
    study.run(recipe)
    alone = recipe(scope, samples)
    assert study["iterative_magnitude_pruning"]["loss"].equals(alone["loss"])
    assert plan["passes"].item() == 2 * (1 + 4 + 2) * 2  # replicates, trainings, blocks of 20 steps
    again = ts.Study.open(study.save(tmp_path / "study"))["iterative_magnitude_pruning"]
    for name, mask in ts.recipes.masks(again, 1)[0.5].items():
        assert torch.equal(mask, ts.recipes.masks(alone, 1)[0.5][name])


def test_only_the_chosen_modules_are_pruned():
    scope, samples = task()
    watch = Watch()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=3, modules="0", train_fn=watch, controls=False)
    assert found["module"].values.tolist() == ["0"] and found.sizes["parameter"] == 72
    assert bool((watch.ends[-1][72:] != 0).all())
    with pytest.raises(LookupError, match="biases and norms only"):
        prune(task(norm=True)[0], samples, modules="1")


def test_frozen_weights_stay_and_are_not_pruned():
    scope, samples = task()
    scope.model[0].weight.requires_grad_(False)
    watch = Watch(lambda p: torch.optim.SGD([q for q in p if q.requires_grad], 0.5))
    found = prune(scope, samples, sparsities=(0.5,), train_steps=3, train_fn=watch)
    assert found["module"].values.tolist() == ["3"]
    assert all(torch.equal(end[:72], flat(scope)[:72]) for end in watch.ends)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"sparsities": ()}, ValueError, "sparsities is"),
        ({"sparsities": (0.0, 0.5)}, ValueError, "between 0 and 1, each once"),
        ({"sparsities": (1.0,)}, ValueError, "between 0 and 1, each once"),
        ({"sparsities": (0.5, 0.5)}, ValueError, "between 0 and 1, each once"),
        ({"sparsities": (0.5, float("nan"))}, ValueError, "between 0 and 1, each once"),
        ({"sparsities": (0.999,)}, ValueError, "0.999 leaves none of the 108 weights"),
        ({"sparsities": (0.001,)}, ValueError, "0.001 prunes none of the 108 weights"),
        ({"sparsities": (0.5, 0.501)}, ValueError, "0.5 and 0.501 are the same 54 of 108 weights"),
        ({"train_steps": -1}, ValueError, "train_steps is -1"),
        ({"train_steps": 2.5}, ValueError, "train_steps is 2.5"),
        ({"train_steps": 10, "rewind_step": 10}, ValueError, "nothing is left to train"),
        ({"train_steps": 0, "rewind_step": 1}, ValueError, "nothing is left to train"),
        ({"train_steps": 0, "n_seeds": 3}, ValueError, "train_steps=0 trains nothing"),
        ({"n_seeds": 0}, ValueError, "n_seeds is 0"),
        ({"prune_rate": 1.0}, ValueError, "prune_rate is 1.0"),
        ({"pruning": "tensor"}, ValueError, "choose 'global' or 'layer'"),
        ({"optimizer": "adma"}, ValueError, "optimizer is 'adma'"),
        ({"optimizer": torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)}, TypeError, "give a function that makes one"),
        ({"sparsities": 0.9}, ValueError, r"sparsities is 0\.9: give shares between 0 and 1, each once"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0.0"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"optimizer": torch.optim.SGD, "learning_rate": 0.1}, ValueError, "give your optimizer its own"),
        ({"optimizer": lambda p: None}, TypeError, "returned a NoneType: return a torch.optim.Optimizer"),
        ({"train_fn": lambda *a: None, "learning_rate": 0.1, "batch_size": 8}, ValueError, "leave out learning_rate, batch_size="),
        ({"optimizer": "sgd", "learning_rate": 1e38}, ValueError, r"at step \d+ the loss is \w+: take less than learning_rate=1e\+38"),
    ],
)  # fmt: skip
def test_bad_options_get_one_clear_line(options, error, words):
    scope, samples = task()
    with pytest.raises(error, match=words) as raised:
        prune(scope, samples, **{"train_steps": 10, **options})
    assert "\n" not in str(raised.value)


def _moves(scope, train, steps, seed):
    for p in scope.model.parameters():
        p.data.add_(0.01)


def _replaces(scope, train, steps, seed):
    scope.model[0].weight = nn.Parameter(torch.ones(12, 6))


def _reshapes(scope, train, steps, seed):
    scope.model[0].weight.data = torch.ones(13, 6)


def _adds(scope, train, steps, seed):
    scope.model.append(nn.Linear(3, 3))


def _trains_a_copy(scope, train, steps, seed):
    _moves(ts.Scope(copy.deepcopy(scope.model)), train, steps, seed)


def _breaks(scope, train, steps, seed):
    scope.model[0].weight.data[0, 0] = float("nan")


@pytest.mark.parametrize(
    "train_fn, words",
    [
        (_moves, r"ticket with \d+ of 108 weights, replicate 0: train_fn moved \d+ pruned weights of 0.weight"),
        (_replaces, "train_fn put another parameter in the place of 0.weight"),
        (_reshapes, r"train_fn changed the architecture: 0.weight was \(12, 6\) float32 and is \(13, 6\) float32"),
        (_adds, r"train_fn changed the architecture: 4\.\w+ came"),
        (_trains_a_copy, "the dense model, replicate 0: train_fn changed no weight: it must train the very scope.model"),
        (_breaks, "the dense model, replicate 0: the training diverged, after step 3 0.weight is not finite"),
    ],
)
def test_what_a_train_fn_must_not_do_is_said(train_fn, words):
    scope, samples = task()
    with pytest.raises(ValueError, match=words):
        prune(scope, samples, sparsities=(0.5,), train_steps=4, train_fn=train_fn)


def test_what_a_train_fn_freezes_and_swaps_in_place_is_put_back():
    scope, samples = task()

    def freezes(scope, train, steps, seed):
        assert all(p.requires_grad and p.grad is None for p in scope.model.parameters())
        scope.model[0].weight.requires_grad_(False)
        scope.model[3].weight.data = scope.model[3].weight.data * 1.5

    found = prune(scope, samples, sparsities=(0.5,), train_steps=4, train_fn=freezes)
    assert int(found["mask"].sum()) == N // 2


def test_half_precision_and_little_memory_are_refused_before_anything_runs():
    scope, samples = task()
    with pytest.raises(ts.UnsupportedModel, match="bfloat16"):
        prune(ts.Scope(copy.deepcopy(scope.model).bfloat16()), samples)
    with ts.options(memory=1000), pytest.raises(ValueError, match="masks and initial weights of all replicates"):
        prune(scope, samples, n_seeds=3)


def test_masks_are_read_from_a_result_and_nothing_else():
    scope, samples = task()
    found = prune(scope, samples, sparsities=(0.5,), train_steps=0)
    with pytest.raises(LookupError, match="there is no replicate 1: there are"):
        ts.recipes.masks(found, 1)
    with pytest.raises(ValueError, match="no result of iterative_magnitude_pruning"):
        ts.recipes.masks(found[["loss"]])
    several = ts.Study({"a": scope, "b": scope}, samples)
    several.run(prune.using(sparsities=(0.5,), train_steps=0))
    joined = several["iterative_magnitude_pruning"]
    with pytest.raises(ValueError, match="several models: pick one"):
        ts.recipes.masks(joined)
    assert torch.equal(ts.recipes.masks(joined.sel(model="b"))[0.5]["0.weight"], ts.recipes.masks(found)[0.5]["0.weight"])


@pytest.mark.slow
def test_on_digits_the_ticket_is_compared_with_other_initial_weights_over_paired_seeds(capsys):
    """Whatever comes out: the interval is that of 20 pairs of real trainings."""
    scope = ts.load("digits", checkpoint=0)
    train, test = ts.datasets.digits(split="train"), ts.datasets.digits(split="test")
    found = prune(scope, train, test=test, sparsities=(0.9,), train_steps=500, n_seeds=20)
    at = {"control": "reinit", "sparsity": 0.9}
    for name in ("loss", "accuracy"):
        mean, low, high = (float(found[f"{name}_advantage{end}"].sel(at)) for end in ("", "_ci_low", "_ci_high"))
        assert low < mean < high
        with capsys.disabled():
            print(
                f"\ndigits, 90 %, 500 steps of Adam, 20 seeds: {name} better than reinit by {mean:.4f} ({low:.4f} … {high:.4f})"
            )
    assert found["mask"].sum("parameter").values.ravel().tolist() == [883] * 20
    assert len(set(found["loss"].sel(control="ticket").values.ravel().tolist())) == 20  # each was trained for itself
    assert float(found["accuracy"].sel(control="dense").mean()) > 0.85
