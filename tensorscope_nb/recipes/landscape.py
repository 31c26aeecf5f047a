"""The loss around the weights, on a plane through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorscope_nb.numerics.intervals import ratio_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.directions import Normalize, Plane, random_plane
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.moved import moved
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.gradients import Reduction
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

RING = 9  # the centre and its eight neighbours: less is no landscape
UNITS = {"filter": "norms of each filter", "layer": "norms of each parameter", "none": "units of weight"}


@recipe(
    question="What does the loss look like around these weights?", source="Li et al. 2018, arXiv:1712.09913", needs=("losses",)
)
def loss_landscape(
    scope: Scope,
    samples: Any,
    *,
    n_points: int = 25,
    span: float = 1.0,
    normalize: Normalize | None = None,
    directions: Literal["random"] = "random",
    per_sample: bool = False,
    reduction: Reduction = "mean",
    seed: int | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The mean loss on a square grid of a plane through the weights, with an interval of how far it rises above the centre.

    What it answers: how wide and how even the basin is in which the weights lie.
    Equation: L(θ + x δ + y η) for x and y from −``span`` to ``span``, L = Σ_i w_i ℓ_i / Σ_i w_i with w_i = 1, or with
    ``reduction="sum"`` the predicted tokens of sample i; increase = L(θ + x δ + y η) − L(θ). δ and η are Gaussian, drawn by
    ``seed`` and then, by ``normalize``: ``"filter"`` (the default), each filter of δ gets the norm of that filter of θ, a
    filter being the weights into one output (a row of a Linear or an embedding, a column of a Conv1D, the kernels of an output
    channel); ``"layer"``, each parameter tensor of δ gets the norm of that tensor of θ, as in the paper's code; ``"none"``,
    each weight moves by its own standard normal number. Biases and the weights of norms (parameters of one axis) stay where
    they are with the first two; frozen weights, and those outside of ``modules``, always do. Tied weights move once.
    Source: Li et al. 2018.

    Result: ``[x, y] loss, increase, increase_ci_low, increase_ci_high`` (95 % Student interval over samples of the paired
    differences, of their ratio to the tokens with ``"sum"``); scalars ``centre_loss``, ``norm_x``, ``norm_y`` and
    ``cos_angle`` of δ and η (they are not made orthogonal), ``n_valid`` points and ``roughness``: the root mean square of what
    the best quadratic a + b x + c y + d x² + e x y + f y² leaves of the loss, over the standard deviation of the loss on the
    grid; 0 for a quadratic bowl, near 1 for a surface without one (NaN unless all points are valid). x and y count
    norms of filters (or of parameters, or units of weight). With ``per_sample`` also ``[sample, x, y] increase_by_sample``.
    A point at which the loss of any sample is infinite or not a number is NaN as a whole, and counted in the notes. Points are
    taken from the centre outwards: where the work is stopped the middle is there, and NaN around it.
    Errors: ValueError for an even ``n_points``, which has no point at the centre; UnsupportedModel in half precision.
    Cost: a forward of all samples per point, and three more copies of the weights.
    How to read it: with ``"filter"`` the picture does not change where the same function is written with other scales of
    weights, so that models can be compared. When not to trust it: two directions among millions are two; a plane that looks
    convex does not say that the loss is, and ``roughness`` depends on ``span`` and ``n_points``. In single precision an
    increase below 1e-6 of the loss is rounding.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> landscape = ts.recipes.loss_landscape(scope, ts.datasets.shakespeare(scope, n=4, length=16), n_points=5)
    >>> landscape["loss"].dims, float(landscape["increase"].sel(x=0, y=0))
    (('x', 'y'), 0.0)
    """
    samples = scope.samples(samples)
    if isinstance(n_points, bool) or not isinstance(n_points, int) or n_points < 3 or n_points % 2 == 0:
        raise ValueError(f"n_points is {n_points!r}: give an odd whole number from 3 on, so that the centre is on the grid")
    if not (span > 0 and math.isfinite(span)):
        raise ValueError(f"span is {span!r}: give how far the grid reaches to each side, a number above 0")
    if directions != "random":
        raise ValueError(f"directions is {directions!r}: choose 'random'")
    scaling = "filter" if normalize is None else normalize
    if scaling not in UNITS:
        raise ValueError(f"normalize is {normalize!r}: choose among {', '.join(UNITS)}")
    seed = current().seed if seed is None else seed
    objective = Objective(scope, samples, modules=modules, reduction=reduction)
    grid = Grid(objective, lambda: random_plane(scope, objective.chosen, scaling, seed), n_points, span, chunk)
    yield Work(grid, "points of the landscape", progress, least=RING)
    variables, coords = grid.variables(UNITS[scaling])
    if per_sample:
        by_sample = np.moveaxis(grid.differences(), -1, 0)
        variables["increase_by_sample"] = (("sample", "x", "y"), by_sample, "increase of the sample's loss", "loss")
        coords |= sample_coords(samples)
    said = {"seed": seed, "normalize": scaling, "n_used": len(samples), "n_available": len(samples)}
    result = dataset(variables, coords, **said, n_weights=grid.plane.size, n_points_done=grid.n_done, notes=grid.notes)
    result["increase"].attrs["interval"] = f"95 % Student interval over {len(samples)} samples"
    return result


class Grid:
    """The loss of each sample at the points of a plane, the nearest to the centre first."""

    plane: Plane  # from the first step on

    def __init__(self, objective: Objective, make: Callable[[], Plane], n_points: int, span: float, chunk: int | None) -> None:
        self.objective, self._make, self._chunk = objective, make, chunk
        half = n_points // 2
        self.axis = span * np.arange(-half, half + 1) / half  # exactly zero in the middle
        self.losses = np.full((n_points, n_points, len(objective.samples)), np.nan)  # all of a point, or none
        self.n_done = 0

    @property
    def total(self) -> float:
        return len(self.axis) ** 2

    @property
    def nbytes(self) -> float:
        return self.losses.nbytes + 3 * sum(p.nbytes for p in self.objective.parameters)

    def steps(self) -> Iterator[None]:
        objective = self.objective
        parts = objective.parts(self._chunk)
        objective.check_apart(parts[0])
        self.plane = self._make()
        for i, j in self.order():
            with moved(objective.scope.model, self.plane.parameters, self.plane.at(self.axis[i], self.axis[j])):
                losses = objective.by_sample(parts)
            if not self.n_done:  # further out a loss may be anything
                check_finite(losses, objective.samples, objective.scope.model)
            self.losses[i, j] = losses if bool(losses.isfinite().all()) else np.nan
            self.n_done += 1
            yield

    def order(self) -> list[tuple[int, int]]:
        """All points by their distance to the centre."""
        half, every = len(self.axis) // 2, range(len(self.axis))
        return sorted(((i, j) for i in every for j in every), key=lambda at: (at[0] - half) ** 2 + (at[1] - half) ** 2)

    @property
    def valid(self) -> np.ndarray:
        return np.isfinite(self.losses[..., 0])

    @property
    def notes(self) -> list[str]:
        lost = self.n_done - int(self.valid.sum())
        return [f"at {lost} points the loss of a sample is no finite number: they are NaN; a smaller span= stays nearer"] * bool(
            lost
        )

    def differences(self) -> np.ndarray:
        """ℓᵢ at each point minus ℓᵢ at the centre (x, y, sample)."""
        half = len(self.axis) // 2
        return self.losses - self.losses[half, half]

    def variables(self, unit: str) -> tuple[dict[str, Variable], dict[str, Any]]:
        """What can be said of the points that are done, and the coordinates."""
        weights = self.objective.weights.numpy()
        loss, half = self.losses @ weights / weights.sum(), len(self.axis) // 2
        rise = np.full((3, *loss.shape), np.nan)
        differences = self.differences()
        for at in zip(*self.valid.nonzero(), strict=True):
            rise[:, *at] = ratio_interval(weights * differences[at], weights)
        dims, words, (norm_x, norm_y) = ("x", "y"), "increase of the loss over the centre", self.plane.norms
        variables: dict[str, Variable] = {
            "loss": (dims, loss, "loss", "loss"),
            "increase": (dims, rise[0], words, "loss"),
            "increase_ci_low": (dims, rise[1], f"{words}, lower end of the 95 % interval", "loss"),
            "increase_ci_high": (dims, rise[2], f"{words}, upper end of the 95 % interval", "loss"),
            "centre_loss": ((), loss[half, half], "loss at the centre", "loss"),
            "norm_x": ((), norm_x, "norm of the direction x", "units of weight"),
            "norm_y": ((), norm_y, "norm of the direction y", "units of weight"),
            "cos_angle": ((), self.plane.cosine, "cosine of the angle between the directions", ""),
            "roughness": ((), roughness(loss, self.axis), "share of the loss's variation that no quadratic has", ""),
            "n_valid": ((), int(self.valid.sum()), "points at which the loss is finite", "points"),
        }
        return variables, {dim: (dim, self.axis, {"long_name": f"distance along {dim}", "units": unit}) for dim in dims}


def roughness(loss: np.ndarray, axis: np.ndarray) -> float:
    """What the best quadratic leaves of a surface, over its standard deviation; NaN where points are missing, or all equal."""
    if not np.isfinite(loss).all():
        return float("nan")
    x, y = (each.ravel() for each in np.meshgrid(axis / axis[-1], axis / axis[-1], indexing="ij"))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    values = loss.ravel() - loss.mean()
    spread = values.std()
    left = values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]
    return float(np.sqrt((left**2).mean()) / spread) if spread > 0 else float("nan")
