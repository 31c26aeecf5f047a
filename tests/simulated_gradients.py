"""Tables of inner products of simulated per-sample gradients."""

import numpy as np


def noise(rng, shape, kind="many directions"):
    """(tables, samples, weights) of mean zero; the size is that of one per weight."""
    x = rng.standard_normal(shape)
    if kind == "few directions":
        scale = 1 / np.arange(1, shape[-1] + 1)
        x *= scale / np.sqrt((scale**2).mean())
    if kind == "heavy norms":
        x *= np.exp(rng.standard_normal((*shape[:-1], 1)))
    if kind == "t3":
        x /= np.sqrt(rng.chisquare(3, (*shape[:-1], 1)) / 3)
    return x


def means(d, size, cosine):
    """Two means of ``size`` per weight, at a cosine."""
    u, v = np.linalg.qr(np.random.default_rng(5).standard_normal((d, 2)))[0].T
    return size * np.sqrt(d) * u, size * np.sqrt(d) * (cosine * u + np.sqrt(1 - cosine**2) * v)


def tasks(rng, times, n, m, d, kind="many directions", size=0.0, cosine=0.0):
    one, other = means(d, size, cosine)
    return noise(rng, (times, n, d), kind) + one, noise(rng, (times, m, d), kind) + other


def products(one, other):
    return one @ np.swapaxes(other, -1, -2)


def slack(alpha, times):
    """Three standard errors of a share of ``times`` trials."""
    return 3 * np.sqrt(alpha * (1 - alpha) / times)
