"""Trains the packaged classifier of handwritten digits: ``python -m tensorscope_nb.models.digits``.

An MLP 64-64-64-10 with tanh, small enough to be trained again hundreds of times: to leave samples out, to prune, to start
elsewhere. Its initial weights are a tenth of the usual, so that nothing is learned for some 300 steps, and then most of it
within as many. Every batch is a pure function of ``(seed, step)`` and of which samples there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tensorscope_nb.models.packaged import DIGITS, DIGITS_STEPS, step_file
from tensorscope_nb.samples import Samples, datasets

WIDTHS = (64, 64, 64, 10)
N_STEPS, BATCH, LEARNING_RATE, SHRUNK = 2700, 32, 0.2, 0.1


def new_digits_model(seed: int = 0) -> nn.Sequential:
    """The untrained model of a seed; no random number is drawn but from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(WIDTHS):
        layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
        bound = SHRUNK / n_in**0.5  # without SHRUNK: what nn.Linear does
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).eval()


def train_digits(
    samples: Samples,
    *,
    seed: int = 0,
    n_steps: int = N_STEPS,
    save_at: Collection[int] = (),
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """The model after ``n_steps`` of plain gradient descent on the samples, all or any of ``ts.datasets.digits("train")``.

    What it was before the updates ``save_at`` and after the last is written to ``folder`` in ``dtype``, for
    ``ts.checkpoints(folder, new_digits_model())``. ``n_steps`` are the same however few the samples: 45 go through all 1437
    once. Cost: half a second.

    >>> import tensorscope_nb as ts
    >>> from tensorscope_nb.models.digits import train_digits
    >>> model = train_digits(ts.datasets.digits("train", n=320), n_steps=900)
    >>> test = ts.datasets.digits("test")
    >>> bool((model(test.inputs["x"]).argmax(1) == test.labels).float().mean() > 0.8)
    True
    """
    if (samples.labels is None) or list(samples.inputs) != ["x"]:
        raise ValueError("train_digits takes images with their classes: ts.datasets.digits('train'), or some of them")
    if late := [step for step in save_at if not 0 <= step <= n_steps]:
        raise ValueError(f"save_at holds {late[0]}: the training has steps 0 to {n_steps}")
    if bool(save_at) != (folder is not None):
        raise ValueError("save_at= says when to save and folder= where: give both, or neither")
    model = new_digits_model(seed)
    parameters = list(model.parameters())
    x, y, keys = samples.inputs["x"], samples.labels, id_keys(samples.ids)
    step = epoch = 0
    while True:
        order = epoch_order(keys, seed, epoch)
        for rows in order.split(BATCH):
            if folder is not None and step in save_at:
                save_step(model, Path(folder), step, dtype)
            if step == n_steps:
                return model
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=LEARNING_RATE)
            step += 1
        epoch += 1


def id_keys(ids: Collection[str]) -> np.ndarray:
    """A number for each id, which has nothing to do with the other ids."""
    hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids]
    return np.frombuffer(b"".join(hashes), "<u8")


def epoch_order(keys: np.ndarray, seed: int, epoch: int) -> Tensor:
    """The rows in the order of an epoch: random, but such that any two samples come in the same order whoever else is there.

    With a sample left out, the others move up by one place: that keeps two such trainings alike but for the sample.
    """
    salt = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8).digest()
    mixed = keys ^ np.frombuffer(salt, "<u8")
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy(np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable"))


def save_step(model: nn.Module, folder: Path, step: int, dtype: torch.dtype) -> None:
    """Writes the weights as safetensors that say their step and learning rate."""
    from safetensors.torch import save_file

    file = step_file(folder, step)
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to(dtype) for name, weight in model.named_parameters()}
    save_file(weights, file, metadata={"step": str(step), "learning_rate": str(LEARNING_RATE)})


def main() -> None:
    train_digits(datasets.digits("train"), save_at=DIGITS_STEPS, folder=DIGITS, dtype=torch.float16)


if __name__ == "__main__":
    main()
