"""From the units that a sweep went through back to the samples, and what a result says of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.sweep.gradients import Coverage


def sequences(samples: Samples, covered: Coverage, values: np.ndarray) -> tuple[Samples, np.ndarray, np.ndarray]:
    """The samples that are done, their means over their own units, and what each adds to the mean over all units."""
    if covered.source is None:
        return covered.samples, values, values
    source = covered.source.numpy()
    counts = np.bincount(source)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, source, values)
    each = counts.reshape(-1, *[1] * (values.ndim - 1))
    return samples[: len(counts)], sums / each, sums * len(counts) / len(values)


def said(samples: Samples, done: Samples, covered: Coverage) -> dict[str, Any]:
    """What every gradient result says of how it was found."""
    found: dict[str, Any] = {"n_used": len(done), "n_available": len(samples)}
    found |= {} if covered.source is None else {"n_units": len(covered.samples)}
    found["n_weights"] = sum(p.tensor.nelement() for p in covered.parameters)
    return found | {"by_reference": covered.by_reference}
