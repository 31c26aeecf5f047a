"""The packaged classifier of digits, and the training that made it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tensorscope_nb as ts
from tensorscope_nb.models import digits
from tensorscope_nb.models.digits import epoch_order, id_keys, new_digits_model, train_digits
from tensorscope_nb.models.packaged import DIGITS, DIGITS_STEPS, step_file


@pytest.fixture(scope="module")
def train():
    return ts.datasets.digits("train")


def flat(weights):
    return torch.cat([weight.double().flatten() for weight in weights])


def accuracy(model, samples):
    return float((model(samples.inputs["x"]).argmax(1) == samples.labels).float().mean())


def test_training_again_gives_the_packaged_weights(train, tmp_path):
    torch.randn(3)
    state = torch.get_rng_state()
    train_digits(train, save_at=DIGITS_STEPS, folder=tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    for step in DIGITS_STEPS:
        again, packaged = (load_file(step_file(folder, step)) for folder in (tmp_path, DIGITS))
        assert again.keys() == packaged.keys()
        a, b = (flat(weights[name] for name in sorted(weights)) for weights in (again, packaged))
        assert float((a - b).norm() / b.norm()) < 2e-3  # half precision rounds by 2e-4; single against double training 2e-6


def test_the_packaged_model_is_what_its_card_says(train):
    scope, test = ts.load("digits"), ts.datasets.digits("test")
    assert sum(p.numel() for p in scope.model.parameters()) == 8_970 and scope.name == "digits"
    assert 0.95 <= accuracy(scope.model, test) <= 0.97 and accuracy(scope.model, train) > 0.99
    start = ts.load("digits", checkpoint=0)
    assert start.name == "digits@0" and abs(float(start.losses(test).mean()) - np.log(10)) < 0.002
    card = (DIGITS / "README.md").read_text()
    measured = [float(ts.load("digits", checkpoint=step).losses(test).mean()) for step in DIGITS_STEPS]
    assert f"| test loss | {' | '.join(f'{loss:.3f}' for loss in measured)} |" in card
    assert "python -m tensorscope_nb.models.digits" in card


def test_the_start_is_a_tenth_of_what_linear_layers_start_from():
    for seed in range(3):
        layers = [layer for layer in new_digits_model(seed) if isinstance(layer, torch.nn.Linear)]
        for layer in layers:
            bound = 0.1 / layer.in_features**0.5
            assert (
                0.95 * bound < float(layer.weight.detach().abs().max()) <= bound
                and float(layer.bias.detach().abs().max()) <= bound
            )
    assert not torch.equal(new_digits_model(0)[0].weight, new_digits_model(1)[0].weight)


def test_training_is_gradient_descent_on_the_batches_of_the_epoch(train):
    some = train[:70]  # batches of 32, 32 and 6
    model = new_digits_model(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    keys = id_keys(some.ids)
    batches = [rows for epoch in (0, 1) for rows in epoch_order(keys, 3, epoch).split(32)]
    assert [len(rows) for rows in batches] == [32, 32, 6] * 2
    for rows in batches[:5]:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(some.inputs["x"][rows]), some.labels[rows]).backward()
        optimizer.step()
    trained = train_digits(some, seed=3, n_steps=5)
    assert torch.allclose(flat(trained.parameters()), flat(model.parameters()), rtol=1e-6, atol=1e-9)
    assert not torch.allclose(flat(trained.parameters()), flat(train_digits(some, seed=3, n_steps=4).parameters()), rtol=1e-6)


def test_the_order_of_an_epoch_is_random_and_depends_on_no_other_sample(train):
    ids = np.array(train.ids)
    order = epoch_order(id_keys(train.ids), 0, 0).numpy()
    assert sorted(order) == list(range(1437))
    without = np.delete(ids, order[100])
    shorter = without[epoch_order(id_keys(without), 0, 0).numpy()]
    assert shorter.tolist() == np.delete(ids[order], 100).tolist()
    turned = ids[::-1]
    assert turned[epoch_order(id_keys(turned), 0, 0).numpy()].tolist() == ids[order].tolist()
    # random: no rank correlation between epochs, seeds and the given order beyond 4 standard errors
    others = [epoch_order(id_keys(train.ids), *which).numpy() for which in ((0, 1), (1, 0), (7, 59))]
    ranks = [np.arange(1437), *(np.argsort(o) for o in (order, *others))]
    assert np.abs(np.corrcoef(ranks)[~np.eye(5, dtype=bool)]).max() < 4 / 1437**0.5


def test_seeds_and_missing_samples_change_what_is_trained_and_nothing_else_does(train):
    few = train[:320]
    first = flat(train_digits(few, n_steps=400).parameters())
    torch.randn(5)
    assert torch.equal(first, flat(train_digits(few[list(range(319, -1, -1))], n_steps=400).parameters()))
    assert not torch.equal(first, flat(train_digits(few, seed=1, n_steps=400).parameters()))
    assert not torch.equal(first, flat(train_digits(few[1:], n_steps=400).parameters()))


def test_leaving_one_sample_out_moves_the_test_loss_less_than_another_seed_does(train):
    test = ts.datasets.digits("test")
    loss = lambda model: float(torch.nn.functional.cross_entropy(model(test.inputs["x"]), test.labels).detach())
    whole = loss(train_digits(train))
    without = max(abs(loss(train_digits(train[[*range(i), *range(i + 1, 1437)]])) - whole) for i in (0, 5))
    assert without < abs(loss(train_digits(train, seed=1)) - whole) / 3


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: train_digits(s, n_steps=10, save_at=(11,), folder="x"), ValueError, "save_at holds 11: the training has steps 0 to 10"),
        (lambda s: train_digits(s, save_at=(10,)), ValueError, "give both, or neither"),
        (lambda s: train_digits(ts.Samples.tensors(s.inputs["x"])), ValueError, "takes images with their classes"),
        (lambda s: ts.load("digits", checkpoint=1), LookupError, "the digits have checkpoints at steps 0, 360, 450"),
        (lambda s: ts.load("digits", seed=1), LookupError, "the packaged digits have seed 0"),
        (lambda s: ts.load("digits", revision="x"), TypeError, "not revision="),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(train, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(train)
    assert "\n" not in str(caught.value)


def test_the_script_writes_the_packaged_files(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "DIGITS", tmp_path)
    monkeypatch.setattr(digits, "DIGITS_STEPS", (0, 360))
    digits.main()
    weights = load_file(step_file(tmp_path, 360))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step000000.safetensors", "step000360.safetensors"]
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
