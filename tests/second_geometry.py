"""Local dimensions by another library: run as a program, it prints those of the clouds here as JSON.

It runs in a process of its own: what it brings along is noticed by torch and transformers, which then work differently.
"""

import json

import numpy as np

K = 50


def uniform_ball(n, d, rng):
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(size=(n, 1)) ** (1 / d)


def clouds():
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(400, 3))
    return {
        "ball of 5": uniform_ball(400, 5, rng),
        "plane in 20": uniform_ball(400, 2, rng) @ rng.normal(size=(2, 20)) + 3,
        "sphere": sphere / np.linalg.norm(sphere, axis=1, keepdims=True),
        "Gaussian in 60": rng.normal(size=(600, 60)),
    }


def main():
    import skdim

    found = {}
    for name, points in clouds().items():
        mle = skdim.id.MLE().fit(points, n_neighbors=K).dimension_pw_
        lpca = skdim.asPointwise(points, skdim.id.lPCA(), n_neighbors=K)
        found[name] = {"mle": mle.tolist(), "lpca": lpca.tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
