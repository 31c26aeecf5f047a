"""TracIn over the packaged history beside bare passes of the same samples, a loop over samples, and other libraries."""

import contextlib
import copy
import importlib.util
import io
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from transformers.pytorch_utils import Conv1D

import tensorscope_nb as ts
from tensorscope_nb.scope.forward import inputs

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from influence_by_others import History, captum, dattri, kronfluence_scores
from other_libraries import FOLDER
from side_by_side import line, ratios
from tiny_models import Logits

sys.path.append(str(FOLDER))  # only now: torch, when it is imported, takes notice of what is there
N_TRAIN, N_TEST, CHUNK = 256, 32, 64
GOALS = {128: {"bare passes": ">= 0.8", "loop": ">= 1.4"}, 32: {"loop": ">= 2.5"}}
FROM_FILES = {128: {"captum": ">= 3.3"}, 32: {"captum": ">= 4.2"}}


class Setting:
    """The checkpoints but the first, all loaded, and the samples."""

    def __init__(self, length):
        self.history = ts.checkpoints("tiny")
        self.rates = self.history.learning_rates[1:]
        self.scopes = self.loaded()
        self.train = ts.datasets.shakespeare(self.scopes[0], n=N_TRAIN, length=length, split="train")
        self.test = ts.datasets.shakespeare(self.scopes[0], n=N_TEST, length=length)

    def loaded(self):
        return [self.history[i] for i in range(1, len(self.history))]

    def for_others(self, model=copy.deepcopy):
        pairs = lambda samples: [(ids, ids[1:]) for ids in samples.input_ids]
        models = [Logits(model(scope.model)) for scope in self.scopes]
        for each in models:
            each.model.config.pad_token_id = None  # a warning about it would look at the tokens, which vmap does not allow
        return History(models, list(self.rates), pairs(self.train), pairs(self.test))


def ours(at, scopes=None):
    found = ts.recipes.tracin(scopes or at.scopes, at.train, at.test, learning_rates=at.rates, progress=False)
    return found["influence"].values


def bare(at):
    for scope in at.scopes:
        parameters = list(scope.model.parameters())
        for samples in (at.train, at.test):
            for start in range(0, len(samples), CHUNK):
                part = samples[start : start + CHUNK]
                batch = inputs(part, scope.anatomy, "cpu", torch.float32)
                torch.autograd.grad(scope.rule.per_sample(scope.model(**batch).logits, part).sum(), parameters)


def loop(at):
    """One gradient at a time; those of the test samples are kept for a checkpoint."""
    total = 0
    for scope, rate in zip(at.scopes, at.rates):
        parameters = list(scope.model.parameters())

        def gradient(sample, scope=scope, parameters=parameters):
            logits = scope.model(**inputs(sample, scope.anatomy, "cpu", torch.float32)).logits
            loss = scope.rule.per_sample(logits, sample).sum()
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

        held = torch.stack([gradient(at.test[j]) for j in range(len(at.test))])
        total = total + rate * torch.stack([held @ gradient(at.train[i]) for i in range(len(at.train))])
    return total.numpy()


def by_captum(history, batch=1, load=None):
    return captum(history, batch=batch, load=load).influence(DataLoader(history.test, batch_size=batch)).T.numpy()


def from_files(history, folder):
    """What loads a checkpoint there, as its users have them."""
    for i, model in enumerate(history.models):
        torch.save(model.state_dict(), Path(folder) / f"{i}.pt")

    def load(model, i):
        model.load_state_dict(torch.load(Path(folder) / f"{i}.pt"))
        return history.rates[int(i)]

    return load


def by_dattri(history):
    """It takes the gradients of all test samples again for each batch of training samples; larger batches take longer."""
    attributor, loaders = dattri(history, batch=N_TEST)
    attributor.weight_list = torch.tensor(history.rates)
    with sdpa_kernel(SDPBackend.MATH), contextlib.redirect_stderr(io.StringIO()):  # its progress
        return attributor.attribute(*loaders).numpy()


def linear(model):
    """A copy whose Conv1D are linear layers."""
    model = copy.deepcopy(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            made = nn.Linear(*module.weight.shape)
            made.weight.data, made.bias.data = module.weight.data.T.contiguous(), module.bias.data
            model.set_submodule(path, made)
    return model


def by_kronfluence(at):
    """Of its linear layers alone, and with the self-influence; what it has wrapped it does not take again."""
    return partial(lambda: kronfluence_scores(at.for_others(linear), batch=CHUNK, dtype=torch.float32))


def installed(library):
    found = importlib.util.find_spec(library) is not None
    if not found:
        print(f"{library} is not installed")
    return found


def best_batch(history, load=None):
    """Of Captum's exact path: what it takes for some of the samples, at batches of several sizes."""
    few = history._replace(models=history.models[:2], rates=history.rates[:2], train=history.train[:64], test=history.test[:16])
    seconds = {}
    for batch in (1, 2, 4, 8):
        start = time.process_time()
        by_captum(few, batch, load)
        seconds[batch] = time.process_time() - start
    print("captum, seconds of CPU at a batch of " + ", ".join(f"{batch}: {value:.2f}" for batch, value in seconds.items()))
    return min(seconds, key=seconds.get)


def measured(length, rounds):
    at = Setting(length)
    what = f"7 checkpoints x {N_TRAIN} x {N_TEST}, T={length}"
    others = {"loop": partial(loop, at)}
    if installed("captum"):
        history = at.for_others()
        others["captum"] = partial(by_captum, history, best_batch(history))
    slow = {}
    if length == 32 and installed("dattri"):
        slow["dattri"] = partial(by_dattri, at.for_others())
    truth = ours(at)
    for name, call in (others | slow).items():
        off = abs(call() - truth).max() / abs(truth).max()
        assert off < 1e-4, f"{name} is off by {off:.1e} of the largest influence"
    if length == 32 and installed("kronfluence"):
        slow["kronfluence, linear layers"] = by_kronfluence(at)
    compared(what, "tracin", partial(ours, at), {"bare passes": partial(bare, at), **others}, GOALS.get(length, {}), rounds)
    if slow:
        compared(what, "tracin", partial(ours, at), slow, {}, 1)
    if "captum" in others:
        with tempfile.TemporaryDirectory() as folder:
            load = from_files(history, folder)
            calls = {"captum": partial(by_captum, history, best_batch(history, load), load)}
            compared(what, "tracin, from files", lambda: ours(at, at.loaded()), calls, FROM_FILES.get(length, {}), rounds)


def compared(what, name, baseline, calls, goals, rounds):
    for other, value in ratios(baseline, calls, rounds, time.process_time).items():
        print(line(f"{what}: {other} / {name}", value, goals.get(other, "-")), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    for length in (128, 64, 32):
        measured(length, 2)


if __name__ == "__main__":
    main()
