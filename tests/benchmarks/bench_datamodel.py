"""What TracIn says of the packaged digits history, against models that were trained again without some of the samples."""

import time

import numpy as np
import torch

import tensorscope_nb as ts
from tensorscope_nb.models.digits import train_digits
from tensorscope_nb.numerics import t_interval
from tensorscope_nb.numerics.datamodel import datamodeling_score, rank_agreement

N_SUBSETS, N_IMAGES, LEFT_OUT = 100, 30, 72  # 72 is one in twenty


def losses(model, test):
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(test.inputs["x"]), test.labels, reduction="none").double().numpy()


def trained_on(train, rows, test, seed=0):
    return losses(train_digits(train[np.asarray(rows).tolist()], seed=seed), test)


def similarity(train, test):
    """⟨x, x'⟩; and that as a proponent where the classes are the same, as an opponent where they are not."""
    x, there = train.inputs["x"].double().numpy(), test.inputs["x"].double().numpy()
    plain = x @ there.T
    return plain, np.where(train.labels.numpy()[:, None] == test.labels.numpy(), plain, -plain)


def scores(train, test):
    """Each (samples, test samples)."""
    history = ts.checkpoints("digits")
    influence = lambda *scopes: ts.recipes.tracin(*scopes, train, test, progress=False)["influence"].values
    plain, by_class = similarity(train, test)
    return {
        "tracin, all checkpoints": influence(history),
        "gradient product, last checkpoint": influence(history[-1]),
        "similarity of images": plain,
        "similarity of images, signed by class": by_class,
        "random": np.random.default_rng(1).normal(size=plain.shape),
    }


def halves(n):
    rng = np.random.default_rng(0)
    chosen = np.zeros((N_SUBSETS, n), bool)
    for row in chosen:
        row[rng.permutation(n)[: n // 2]] = True
    return chosen


def datamodels(by, train, test):
    chosen = halves(len(train))
    start = time.perf_counter()
    measured = [-np.stack([trained_on(train, np.flatnonzero(row), test, seed) for row in chosen]) for seed in (0, 1)]
    print(f"{2 * N_SUBSETS} models trained on halves: {time.perf_counter() - start:.0f} s", flush=True)
    said = lambda name, found: print(f"{name:<44} {found.score:6.3f}   [{found.low:.3f}, {found.high:.3f}]", flush=True)
    print(f"linear datamodeling score, {N_SUBSETS} halves of {len(train)}, {len(test)} test images, one run each:")
    for name, influence in by.items():
        said(name, datamodeling_score(influence, chosen, measured[0]))
    said("tracin, mean of two runs each", datamodeling_score(by["tracin, all checkpoints"], chosen, sum(measured)))
    said("another run on the same half (a ceiling)", rank_agreement(measured[1], measured[0]))


def removals(by, train, test):
    """The loss of a test image after training without the samples that lead its list, over that without as many random ones."""
    rng = np.random.default_rng(2)
    images = rng.permutation(len(test))[:N_IMAGES]
    names = ["tracin, all checkpoints", "gradient product, last checkpoint", "similarity of images, signed by class"]
    whole = trained_on(train, np.arange(len(train)), test)
    rose = {name: [] for name in ["random", *names]}
    for image in images:
        lists = {name: by[name][:, image].argsort()[::-1] for name in names} | {"random": rng.permutation(len(train))}
        for name, order in lists.items():
            rose[name].append(trained_on(train, np.sort(order[LEFT_OUT:]), test)[image] - whole[image])
    print(f"rise of the loss of {N_IMAGES} test images, each trained without {LEFT_OUT} samples (nats):")
    for name, values in rose.items():
        more = np.array(values) - rose["random"]
        mean, low, high = t_interval(more)
        beside = (
            "" if name == "random" else f"   over random: {mean:.3f} [{low:.3f}, {high:.3f}], more in {np.mean(more > 0):.0%}"
        )
        print(f"{name:<44} mean {np.mean(values):6.3f}, median {np.median(values):6.3f}{beside}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    train, test = ts.datasets.digits("train"), ts.datasets.digits("test")
    by = scores(train, test)
    datamodels(by, train, test)
    removals(by, train, test)


if __name__ == "__main__":
    main()
