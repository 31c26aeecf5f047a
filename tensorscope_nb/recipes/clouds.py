"""What the tests of a cloud of points take: the points, which of them, and the window of neighbours, each checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensorscope_nb.numerics.bundles import FEWEST, Window

MANY = 20_000  # points, from which on the wider window is taken


def numbers(given: Any, n: int, name: str, of: str) -> NDArray[np.integer]:
    """Different numbers below n, ascending."""
    found = np.unique(np.asarray(given))
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise ValueError(f"{name} is {given!r}: give whole numbers, at least one")
    if found[0] < 0 or found[-1] >= n:
        wrong = found[0] if found[0] < 0 else found[-1]
        raise ValueError(f"{name} has {wrong}: there are {n} {of}, numbered from 0")
    return found.astype(np.int64)


def as_points(points: Any) -> Tensor:
    try:
        cloud = points.detach() if isinstance(points, Tensor) else torch.as_tensor(np.array(points))
    except (TypeError, ValueError) as error:
        raise TypeError(f"points is a {type(points).__name__} that is no array of numbers: give one of shape (n, d)") from error
    if cloud.ndim != 2 or not cloud.shape[1] or cloud.is_complex() or cloud.dtype == torch.bool:
        raise ValueError(f"points has shape {tuple(cloud.shape)} and dtype {cloud.dtype}: give real numbers (n, d)")
    if not cloud.is_floating_point():
        return cloud.double()
    return cloud.float() if cloud.dtype in (torch.float16, torch.bfloat16) else cloud


def check_finite(points: Tensor, kind: str) -> None:
    bad = (~points.isfinite()).any(1).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(points)} {kind}s have coordinates that are no finite numbers, the first is number "
            f"{int(bad[0])}: distances to them mean nothing; mend them or leave them out"
        )


def window_of(n: int, k_min: int | None, k_max: int | None, reach: float | None, kind: str) -> Window:
    usual = (10, 100) if n >= MANY else (1, 50)
    low, high = (default if given is None else given for default, given in zip(usual, (k_min, k_max), strict=True))
    for name, value in (("k_min", low), ("k_max", high)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: give the number of a neighbour, from 1 on")
    if high - low < FEWEST:
        raise ValueError(f"k_min={low} and k_max={high} leave {max(high - low, 0)} spacings: the tests need at least {FEWEST}")
    if high >= n:
        least = f"pass a k_max below {n}" if n > low + FEWEST else f"they need at least {low + FEWEST + 1}"
        raise ValueError(f"there are {n} different {kind}s and the tests look at {high} neighbours of each: {least}")
    if reach is not None and (isinstance(reach, bool) or not isinstance(reach, int | float) or not reach > 0):
        raise ValueError(f"reach is {reach!r}: give a distance above 0, or None")
    return Window(int(low), int(high), np.inf if reach is None else float(reach))
