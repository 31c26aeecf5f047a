"""TracIn by other libraries: run as a program, it prints what each finds for the histories that it is told as JSON.

They run in a process of their own: what they bring along is noticed by torch and transformers, which then work differently.
"""

import contextlib
import copy
import json
import sys
import tempfile
from functools import partial
from typing import NamedTuple

import torch
from tiny_models import Logits, random_gpt2
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

import tensorscope_nb as ts


class History(NamedTuple):
    """Models of one shape, one after the other, with the rate at which each was trained, and two sets of (input, target)."""

    models: list
    rates: list
    train: list
    test: list


def of_tokens(models, rates, train, test):
    for model in models:
        model.config.pad_token_id = None  # a warning about it would look at the tokens, which vmap does not allow
    pairs = lambda rows: [(ids, ids[1:]) for ids in rows]
    return History([Logits(model.double()).eval() for model in models], rates, pairs(train), pairs(test))


def random_history():
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(50, (13, 20), generator=draw)
    return of_tokens([random_gpt2(seed) for seed in range(3)], [0.3, 0.2, 0.1], ids[:8], ids[8:])


def ragged_history():
    """Each loss is the mean over as many tokens as its sequence has."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(50, (n,), generator=draw) for n in (20, 5, 12, 3, 17, 2, 9, 20, 4)]
    return of_tokens([random_gpt2(seed) for seed in range(3)], [0.3, 0.2, 0.1], rows[:6], rows[6:])


def tiny_history():
    history = ts.checkpoints("tiny")
    passages = ts.datasets.shakespeare(ts.load("tiny"), n=14, length=32).input_ids
    steps = range(1, len(history), 3)
    return of_tokens([history[i].model for i in steps], [history.learning_rates[i] for i in steps], passages[:8], passages[8:])


def perceptrons():
    """Linear layers alone, which are what two of the paths know."""
    draw = torch.Generator().manual_seed(2)
    models = [nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)).double() for _ in range(3)]
    for model in models:
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    x, y = torch.randn(14, 6, generator=draw, dtype=torch.float64), torch.randint(4, (14,), generator=draw)
    pairs = list(zip(x, y))
    return History(models, [0.3, 0.2, 0.1], pairs[:9], pairs[9:])


HISTORIES = {"random": random_history, "ragged": ragged_history, "tiny": tiny_history, "perceptron": perceptrons}


def mean_losses(outputs, targets):
    """Of each sample its mean over positions."""
    losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return losses.mean(1) if losses.ndim > 1 else losses


class CaptumLoss(nn.Module):
    """It asks how losses of samples are reduced: a loss that does it itself says so by this attribute."""

    def __init__(self, reduction):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets):
        losses = mean_losses(outputs, targets)
        return losses.sum() if self.reduction == "sum" else losses


def captum(history, *, fast=False, batch=1, load=None):
    """Its exact path takes one gradient at a time, its fast one the gradients of a batch by hooks.

    It loads every checkpoint again for every batch, here by pointers; ``load`` is another way, which returns the rate.
    """
    from captum.influence import TracInCP

    weights = [[p.detach().clone() for p in model.parameters()] for model in history.models]

    def pointed(model, i):
        for parameter, value in zip(model.parameters(), weights[int(i)]):
            parameter.data = value
        return history.rates[int(i)]

    return TracInCP(
        copy.deepcopy(history.models[0]), history.train, [str(i) for i in range(len(weights))], load or pointed,
        loss_fn=CaptumLoss("sum" if fast else "none"), batch_size=batch, sample_wise_grads_per_batch=fast,
    )  # fmt: skip


def captum_scores(history, **how):
    found = captum(history, **how)
    batch = how.get("batch", 1)
    return found.influence(DataLoader(history.test, batch_size=batch)).T, found.self_influence()


def dattri(history, *, batch=1):
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    model = copy.deepcopy(history.models[0])

    def loss(parameters, sample):
        x, y = sample
        return mean_losses(torch.func.functional_call(model, parameters, x[None]), y[None]).sum()

    weights = [{k: v.clone() for k, v in each.state_dict().items()} for each in history.models]
    task = AttributionTask(loss, model, weights)
    attributor = TracInAttributor(task, torch.tensor(history.rates, dtype=torch.float64), normalized_grad=False)
    attributor.projector_kwargs = None  # None in its place there means a random projection to 512 numbers
    loaders = [DataLoader(pairs, batch_size=batch) for pairs in (history.train, history.test)]
    return attributor, loaders


def dattri_scores(history, *, batch=1):
    attributor, loaders = dattri(history, batch=batch)
    with sdpa_kernel(SDPBackend.MATH):
        return attributor.attribute(*loaders), attributor.self_attribute(loaders[0])


def kronfluence_scores(history, *, batch=4, dtype=torch.float64):
    """An influence function, whose curvature can be the identity: then it is the inner product of gradients of linear layers."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class MeanLoss(Task):
        def compute_train_loss(self, batch, model, sample=False):
            inputs, targets = batch
            return mean_losses(model(inputs), targets).sum()

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    influence = own = 0
    identity, precision = FactorArguments(strategy="identity"), ScoreArguments(score_dtype=dtype)
    for model, rate in zip(history.models, history.rates):
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer("", prepare_model(model, MeanLoss()), MeanLoss(), cpu=True, disable_tqdm=True, output_dir=folder)
            analyzer.fit_all_factors("identity", history.train, per_device_batch_size=batch, factor_args=identity)
            how = {"factors_name": "identity", "train_dataset": history.train, "per_device_train_batch_size": batch}
            analyzer.compute_pairwise_scores(
                "pairs", query_dataset=history.test, per_device_query_batch_size=batch, score_args=precision, **how
            )
            analyzer.compute_self_scores("own", score_args=precision, **how)
            influence = influence + rate * analyzer.load_pairwise_scores("pairs")["all_modules"].T
            own = own + rate * analyzer.load_self_scores("own")["all_modules"]
    return influence, own


WAYS = {
    "captum": captum_scores,
    "captum fast": partial(captum_scores, fast=True, batch=4),
    "dattri": dattri_scores,
    "kronfluence": kronfluence_scores,
}


def ways(name):
    """Sequences of several lengths go in one by one, and one library knows linear layers alone."""
    return [way for way in WAYS if (way != "captum fast" or name != "ragged") and (way != "kronfluence" or name == "perceptron")]


def main(*names):
    found = {}
    for name in names:
        with contextlib.redirect_stdout(sys.stderr):
            found[name] = {way: [each.tolist() for each in WAYS[way](HISTORIES[name]())] for way in ways(name)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
