"""The loss around the weights, on a plane through them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorscope_nb.numerics.intervals import ratio_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit, sample_coords
from tensorscope_nb.recipes.directions import Normalize, Plane, random_plane
from tensorscope_nb.recipes.eigenpairs import CURVATURE, eigen_variables
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.search import Search
from tensorscope_nb.scope.flat import shaped
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.moved import moved
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.gradients import Reduction
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import FORWARD, Work

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope

RING = 9  # the centre and its eight neighbours: less is no landscape
UNITS = {"filter": "filter norms", "layer": "parameter norms", "none": "units of weight"}
TOLERANCE = 1e-4  # of the eigenvectors, as in hessian_eigenvalues


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
    directions: Literal["random", "eigen"] = "random",
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
    ``directions="eigen"``: δ and η are the eigenvectors of the two largest eigenvalues of the Hessian of L over all these
    weights, as long as 1 and not normalised, found as in ``hessian_eigenvalues``; near the centre L(θ + x δ + y η) is then
    L(θ) + x ⟨g, δ⟩ + y ⟨g, η⟩ + ½ (λ₁ x² + λ₂ y²).
    Source: Li et al. 2018.

    Result: ``[x, y] loss, increase, increase_ci_low, increase_ci_high`` (95 % Student interval over samples of the paired
    differences, of their ratio to the tokens with ``"sum"``); scalars ``centre_loss``, ``norm_x``, ``norm_y`` and
    ``cos_angle`` of δ and η (they are not made orthogonal), ``n_valid`` points and ``roughness``: the root mean square of what
    the best quadratic a + b x + c y + d x² + e x y + f y² leaves of the loss, over the standard deviation of the loss on the
    grid; 0 for a quadratic bowl, near 1 for a surface without one (NaN unless all points are valid). x and y count
    norms of filters (or of parameters, or units of weight). With ``"eigen"`` also ``[component] eigenvalue, residual,
    converged`` of x and of y, in this order. With ``per_sample`` also ``[sample, x, y] increase_by_sample``.
    A point at which the loss of any sample is infinite or not a number is NaN as a whole, and counted in the notes. Points are
    taken from the centre outwards: where the work is stopped the middle is there, and NaN around it.
    Errors: ValueError for an even ``n_points``, which has no point at the centre; UnsupportedModel in half precision.
    Cost: a forward of all samples per point, and three more copies of the weights; ``"eigen"`` first costs some ten to a
    hundred products with the Hessian, and up to 100 vectors the size of the model, or 10 where the memory option allows no more.
    How to read it: with ``"filter"`` the picture does not change where the same function is written with other scales of
    whole layers, so that models can be compared. When not to trust it: two directions among millions are two; a plane that
    looks convex does not say that the loss is, and ``roughness`` depends on ``span`` and ``n_points``. Single precision rounds
    increases by about 1e-7 of the loss.

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
    if directions not in ("random", "eigen"):
        raise ValueError(f"directions is {directions!r}: choose 'random' or 'eigen'")
    scaling: Normalize = normalize or ("filter" if directions == "random" else "none")
    if scaling not in UNITS:
        raise ValueError(f"normalize is {normalize!r}: choose among {', '.join(UNITS)}")
    if directions == "eigen" and scaling != "none":
        raise ValueError(f"normalize is {normalize!r}: eigenvectors are as long as 1 and stay so, leave it out")
    seed = current().seed if seed is None else seed
    objective = Objective(scope, samples, modules=modules, reduction=reduction)
    make: Callable[[], Plane] = partial(random_plane, scope, objective.chosen, scaling, seed)
    axes: dict[str, Variable] = {}
    notes: list[str] = []
    if directions == "eigen":
        plane, axes, notes = yield from _eigen_plane(objective, n_points**2, seed, chunk, progress)
        make = lambda: plane
    grid = Grid(objective, make, n_points, span, chunk)
    yield Work(grid, "points of the landscape", progress, least=RING)
    unit = loss_unit(scope)
    variables, coords = grid.variables(unit) | axes, grid.coords(UNITS[scaling])
    if per_sample:
        by_sample = np.moveaxis(grid.differences(), -1, 0)
        variables["increase_by_sample"] = (("sample", "x", "y"), by_sample, "increase of the sample's loss", unit)
        coords |= sample_coords(samples)
    if lost := grid.n_overflowed:
        notes.append(f"at {lost} points the loss of a sample is no finite number: they are NaN; a smaller span= stays nearer")
    said = {"seed": seed, "normalize": scaling, "n_used": len(samples), "n_available": len(samples)}
    result = dataset(variables, coords, **said, n_weights=grid.plane.size, n_points_done=grid.n_done, notes=notes)
    result["increase"].attrs["interval"] = f"95 % Student interval over {len(samples)} samples"
    return result


def _eigen_plane(
    objective: Objective, n_points: int, seed: int, chunk: int | None, progress: bool | None
) -> Generator[Work, Any, tuple[Plane, dict[str, Variable], list[str]]]:
    """Along the two sharpest directions; what is known of their eigenvalues, and what to say of them."""
    search = Search(Curvature(objective, "hessian", chunk=chunk), 2, "LA", TOLERANCE, None, seed)
    yield Work(
        search, "hessian products", progress, least=sys.maxsize, more=n_points * FORWARD
    )  # axes that are half found are none
    pairs, notes = search.found.pairs, objective.notes
    if not pairs.converged.all():
        notes.append(f"the eigenvectors have not converged in {search.lanczos.n_products} products: see their residuals")
    delta, eta = (shaped(vector, objective.parameters) for vector in search.vectors.clone())  # the basis itself is let go
    return Plane(objective.parameters, delta, eta), eigen_variables(pairs, "Hessian", CURVATURE), notes


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
    def n_overflowed(self) -> int:
        """Points that were looked at, and have no finite loss."""
        return self.n_done - int(self.valid.sum())

    def differences(self) -> np.ndarray:
        """ℓᵢ at each point minus ℓᵢ at the centre (x, y, sample)."""
        half = len(self.axis) // 2
        return self.losses - self.losses[half, half]

    def coords(self, unit: str) -> dict[str, Any]:
        return {dim: (dim, self.axis, {"long_name": f"distance along {dim}", "units": unit}) for dim in ("x", "y")}

    def variables(self, unit: str) -> dict[str, Variable]:
        """What can be said of the points that are done."""
        weights = self.objective.weights.numpy()
        loss, half = self.losses @ weights / weights.sum(), len(self.axis) // 2
        rise = np.full((3, *loss.shape), np.nan)
        differences = self.differences()
        for at in zip(*self.valid.nonzero(), strict=True):
            rise[:, *at] = ratio_interval(weights * differences[at], weights)
        dims, words, (norm_x, norm_y) = ("x", "y"), "increase of the loss over the centre", self.plane.norms
        return {
            "loss": (dims, loss, "loss", unit),
            "increase": (dims, rise[0], words, unit),
            "increase_ci_low": (dims, rise[1], f"{words}, lower end of the 95 % interval", unit),
            "increase_ci_high": (dims, rise[2], f"{words}, upper end of the 95 % interval", unit),
            "centre_loss": ((), loss[half, half], "loss at the centre", unit),
            "norm_x": ((), norm_x, "norm of the direction x", "units of weight"),
            "norm_y": ((), norm_y, "norm of the direction y", "units of weight"),
            "cos_angle": ((), self.plane.cosine, "cosine of the angle between the directions", ""),
            "roughness": ((), roughness(loss, self.axis), "share of the loss's variation that no quadratic has", ""),
            "n_valid": ((), int(self.valid.sum()), "points at which the loss is finite", "points"),
        }


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
