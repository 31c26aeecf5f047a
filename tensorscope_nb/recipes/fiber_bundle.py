"""Whether points lie on something smooth: local dimensions of a cloud, and where they change with the radius."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensorscope_nb.numerics.bundles import FEWEST, LocalTests, gaussian_like
from tensorscope_nb.numerics.many import holm, q_values
from tensorscope_nb.numerics.neighbours import Distinct
from tensorscope_nb.recipes.clouds import as_points, check_finite, numbers, window_of
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    import xarray as xr

Correction = Literal["holm", "bh"]
CORRECTIONS = {"holm": ("Holm", holm), "bh": ("Benjamini–Hochberg", q_values)}
LEAST_RATIO = 2.0  # of the dimensions on both sides of a change that is worth a flag


@dataclass(frozen=True)
class Rule:
    """When a point is flagged."""

    alpha: float
    correction: Correction

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha!r}: give the level of the tests, between 0 and 1")
        if not isinstance(self.correction, str) or self.correction not in CORRECTIONS:
            raise ValueError(f"correction is {self.correction!r}: choose 'holm' or 'bh'")

    def flags(self, values: dict[str, Any]) -> dict[str, Any]:
        adjust = CORRECTIONS[self.correction][1]
        manifold, fiber = adjust(values["p_manifold"]), adjust(values["p_fiber"])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.maximum(values["dim_ratio"], 1 / values["dim_ratio"])
            no_manifold = (manifold <= self.alpha) & (ratio >= LEAST_RATIO)
            no_fiber = no_manifold & (fiber <= self.alpha) & (values["increase_ratio"] >= LEAST_RATIO)
        return {
            "p_manifold_adjusted": manifold, "p_fiber_adjusted": fiber,
            "violates_manifold": no_manifold, "violates_fiber": no_fiber,
        }  # fmt: skip

    def rates(self, values: dict[str, Any], prefix: str = "") -> dict[str, float]:
        """Shares of the points with a p: of flags, and of p below α as they are."""
        known = np.isfinite(values["p_manifold"])
        flags = self.flags(values)
        of = {
            "rate_manifold": flags["violates_manifold"], "rate_fiber": flags["violates_fiber"],
            "raw_rate_manifold": values["p_manifold"] <= self.alpha, "raw_rate_fiber": values["p_fiber"] <= self.alpha,
        }  # fmt: skip
        return {prefix + name: float(each[known].mean()) if known.any() else np.nan for name, each in of.items()}


class Bundle:
    """The tests of a cloud, and after them those of its Gaussian surrogate; equal points are one place."""

    def __init__(
        self,
        points: Tensor,
        of: NDArray[np.integer],
        k_min: int | None,
        k_max: int | None,
        reach: float | None,
        surrogate: bool,
        seed: int,
        kind: str = "point",
    ) -> None:
        check_finite(points, kind)
        self.distinct = Distinct.of(points)
        self.window = window_of(len(self.distinct.first), k_min, k_max, reach, kind)
        self.points, self.of, self.kind, self.seed = points, of, kind, seed
        self.places = torch.unique(self.distinct.place[torch.as_tensor(of)])
        self.tests: LocalTests | None = None
        self.surrogate: LocalTests | None = None
        self._with_surrogate = surrogate

    @property
    def total(self) -> float:
        return self.tests.n_blocks * (1 + self._with_surrogate) if self.tests else 1

    @property
    def nbytes(self) -> float:
        return current().memory + 2.0 * self.points.nbytes + 4.0 * len(self.places) * self.window.k_max

    def steps(self) -> Iterator[None]:
        memory = current().memory
        first = self.distinct.first
        there = self.points if len(first) == len(self.points) else self.points[first.to(self.points.device)]
        self.tests = LocalTests(there, self.places, self.window, memory)
        yield from self.tests.steps()
        if self._with_surrogate:
            drawn = gaussian_like(there, self.seed)
            del there
            self.surrogate = LocalTests(drawn, torch.arange(len(self.places)), self.window, memory)
            yield from self.surrogate.steps()

    def result(self, rule: Rule, dim: str, shown: NDArray[np.integer], coords: dict[str, Any], **more: Any) -> xr.Dataset:
        """The Dataset of the points of these numbers, which are among those tested."""
        assert self.tests is not None
        place = self.distinct.place.numpy()
        values = self.tests.values | rule.flags(self.tests.values)
        row = np.full(len(self.distinct.first), -1)
        row[self.places.numpy()] = np.arange(len(self.places))
        values["density"] = self._density(values["violates_manifold"], row)
        values["n_duplicates"] = self.distinct.count.numpy()[self.places.numpy()] - 1
        at = row[place[shown]]
        variables: dict[str, Variable] = {name: ((dim,), values[name][at], *WORDS[name]) for name in WORDS}
        every = row[place[self.of]]
        rates = rule.rates({name: values[name][every] for name in RATED})
        ended = self.surrogate is not None and self.surrogate.done == len(self.places)
        assumed = rule.rates(self.surrogate.values, "surrogate_") if ended and self.surrogate else {}
        for name, words in RATES.items():
            variables[name] = ((), rates[name], f"share of {self.kind}s {words}", "")
            if self._with_surrogate:
                prefixed = f"surrogate_{name}"
                variables[prefixed] = ((), assumed.get(prefixed, np.nan), f"the same of Gaussian points: {words}", "")
        said = {
            "method": "renyi", "k_min": self.window.k_min, "k_max": self.window.k_max, "n_used": self.tests.done,
            "n_available": len(self.places), "counted": f"places of {self.kind}s", "n_points": len(place),
            "n_different": len(row), "notes": self._notes(values),
        }  # fmt: skip
        result = dataset(variables, {**coords}, **said, **more)
        result.attrs |= {"method": "renyi", "correction": CORRECTIONS[rule.correction][0]}
        result["dim"].attrs["interval"] = "exact 95 % interval where one dimension holds"
        words = f"adjusted p ({CORRECTIONS[rule.correction][0]}) at most {rule.alpha:g}, dimensions apart by {LEAST_RATIO:g}"
        for name in ("violates_manifold", "violates_fiber"):
            result[name].attrs["rule"] = f"{words} or more"
        return result

    def _density(self, flagged: NDArray[np.bool_], row: NDArray[np.integer]) -> NDArray[np.floating]:
        """NaN where some neighbour was not tested."""
        assert self.tests is not None
        of_place = np.full(len(row) + 1, np.nan)  # the last one stands for a neighbour that is not known
        done = np.arange(len(flagged)) < self.tests.done
        of_place[self.places.numpy()[done]] = flagged[done]
        return of_place[self.tests.neighbours].mean(1)

    def _notes(self, values: dict[str, Any]) -> list[str]:
        assert self.tests is not None
        done = np.arange(len(self.places)) < self.tests.done
        few = done & (values["n_spacings"] < FEWEST)
        tied = done & ~few & np.isnan(values["p_manifold"])
        notes = []
        if few.any():
            notes.append(f"fewer than {FEWEST} spacings within reach={self.window.reach:g} around {few.sum()} places: NaN")
        if tied.any():
            notes.append(f"equal distances, as on a lattice, around {tied.sum()} places: NaN")
        if len(self.places) < (n := len(self.distinct.first)):
            notes.append(f"density is NaN where a neighbour was not tested ({len(self.places)} of {n} places were)")
        if not done.all():
            notes.append(f"interrupted after {self.tests.done} of {len(done)} places: corrections are over these, the others NaN")
        elif self._with_surrogate and not (self.surrogate and self.surrogate.done == len(done)):
            notes.append("interrupted before the surrogate was done: its rates are NaN")
        return notes


RATED = ("p_manifold", "p_fiber", "dim_ratio", "increase_ratio")
RATES = {
    "rate_manifold": "that violate the manifold hypothesis",
    "rate_fiber": "that violate the fiber-bundle hypothesis",
    "raw_rate_manifold": "with p_manifold at most α, uncorrected",
    "raw_rate_fiber": "with p_fiber at most α, uncorrected",
}
WORDS = {
    "dim": ("local dimension", "dimensions"),
    "dim_ci_low": ("local dimension, lower end of the 95 % interval", "dimensions"),
    "dim_ci_high": ("local dimension, upper end of the 95 % interval", "dimensions"),
    "dim_ratio": ("change of the dimension, as a ratio", ""),
    "p_manifold": ("p of one dimension at all radii", ""),
    "p_fiber": ("p of no increase of the dimension", ""),
    "p_fiber_small": ("p_fiber, where the increase is at small radii, else 1", ""),
    "p_fiber_large": ("p_fiber, where the increase is at large radii, else 1", ""),
    "p_manifold_adjusted": ("p of one dimension, corrected for all tests", ""),
    "p_fiber_adjusted": ("p of no increase, corrected for all tests", ""),
    "violates_manifold": ("no manifold around it", ""),
    "violates_fiber": ("no fiber bundle around it", ""),
    "transition_radius": ("radius of the likeliest change of dimension", "distance"),
    "dim_small": ("inner dimension", "dimensions"),
    "dim_large": ("outer dimension", "dimensions"),
    "increase_ratio": ("increase of the dimension, as a ratio", ""),
    "density": ("share of its neighbours that violate the manifold hypothesis", ""),
    "nearest": ("distance to the nearest", "distance"),
    "knn_radius": ("distance to neighbour number k_max", "distance"),
    "n_spacings": ("spacings in the window", "spacings"),
    "n_ties": ("spacings below the rounding of distances", "spacings"),
    "n_duplicates": ("other points at the same place", "points"),
}


def fiber_bundle_test(
    points: Any,
    *,
    alpha: float = 1e-3,
    k_min: int | None = None,
    k_max: int | None = None,
    reach: float | None = None,
    correction: Correction = "holm",
    rows: Any = None,
    surrogate: bool = True,
    seed: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Around each point of a cloud: its dimension, and whether that changes with the radius as no manifold's does.

    What it answers: which points see the cloud with one dimension at all radii of a window (as on a smooth manifold), with a
    dimension that falls as the radius grows (as in a fiber bundle with noise around a smaller base), or with one that rises
    (in neither).
    Equation: with r_i the distance to neighbour number i, E_i = i log(r_{i+1} / r_i), k_min ≤ i < k_max, are independent and
    exponential with mean 1/d where the density is uniform in d dimensions (Rényi). ``dim`` = 1 / mean(E) (Levina & Bickel
    2004) with its exact interval. The test is that of a change of the mean of E: the largest log-likelihood ratio over all
    splits with 5 spacings on each side (``p_manifold``), and over those behind which the dimension is higher (``p_fiber``).
    One simulated null (200,000 draws, beyond their 99 % quantile an exponential tail) serves all points, of any dimension.
    ``p_fiber_small`` is ``p_fiber`` where the likeliest increase lies in the lower half of the window's spacings and 1
    elsewhere, ``p_fiber_large`` the other way round; of several increases at one point the strongest counts alone.
    Source: the hypotheses are those of Robinson, Dey & Chiang 2025, arXiv:2504.01002; the test is our variant
    (``method="renyi"``) and not theirs: what it finds is not to be set against the rates of the paper.

    ``k_min`` and ``k_max`` are by default 1 and 50, from 20,000 points on 10 and 100; k_max should stay below a third of the
    smallest cluster. Neighbours beyond ``reach`` (a distance) are left out; below 30 spacings all is NaN, and ``notes`` say
    so. Equal points are one place: it is tested once, counts once as a neighbour, and ``n_duplicates`` says how many more
    there are. Where more than a tenth of the spacings are ties (a lattice) all is NaN. ``rows`` chooses the points to test,
    by number; their neighbours are sought among all.

    Result: ``[point] dim, dim_ci_low, dim_ci_high``; ``dim_small, dim_large``, the dimensions below and beyond the likeliest
    change, at ``transition_radius`` (there is always a likeliest one: p says whether it is one), and ``dim_ratio``, the second
    over the first (chosen to differ: without a change their ratio is still not 1); ``increase_ratio`` of the likeliest
    increase; ``p_manifold, p_fiber, p_fiber_small, p_fiber_large``; ``p_manifold_adjusted, p_fiber_adjusted`` (Holm over the
    places tested, or ``correction="bh"``); ``violates_manifold``: adjusted p ≤ α and the dimensions apart by a factor of 2;
    ``violates_fiber``: that, and the same of the increase; ``density``, the share of its k_max neighbours that are flagged
    ``violates_manifold`` (NaN where one was not tested); ``nearest, knn_radius, n_spacings, n_ties, n_duplicates``. Scalars:
    ``rate_manifold, rate_fiber``, and ``raw_rate_…`` of p ≤ α uncorrected, each beside the same of as many Gaussian points
    with the cloud's mean and covariance (``surrogate_rate_manifold`` …; ``surrogate=False`` halves the cost).
    Errors: ValueError for points that are not a finite (n, d) array, or too few for k_max. Cost: n² d multiplications in
    blocks that fit the memory option, twice with the surrogate; n × k_max neighbours are held.
    How to read it: a rejection says "not one power law in this window"; the dimension says more than the flag. Look at rates
    beside those of the surrogate. When not to trust it: a gradient of the density looks like a change of dimension, and so do
    clusters, the edge of the cloud, and its curvature in a wide window. Equal points count once, nearly equal ones do not: with
    k_min = 1 a single copy but for rounding makes its point violate both (``nearest`` shows it, k_min = 2 leaves it out).
    Measured on balls, spheres, Gaussians of 3 to 50 dimensions, a torus and a swiss roll, p ≤ .05 and ≤ .001 came at most this
    often: .06 and .003 of 5,000 points with k 1–50, .065 and .002 of 20,000 with k 10–100 (the defaults), .33 and .04 of 5,000
    with k 10–400 (in the swiss roll .55 and .44, and of 500 there with k 1–50 .26 and .02: its sheets are neighbours). What is
    not rejected is not shown to be a manifold: p_fiber ≤ .001 comes with probability .5 where dimensions apart by 3 meet in the
    middle of 49 spacings, and .9 of 90; after Holm far less, and dimensions apart by just 2 are flagged half as often as they are
    found. High dimensions come out too low, as of any estimator from few points (30 for 50, with 20,000 points). Tests of
    neighbouring points share their distances, so that rates have no interval.

    >>> import numpy as np
    >>> import tensorscope_nb as ts
    >>> plane = np.random.default_rng(0).uniform(size=(400, 2)) @ np.random.default_rng(1).normal(size=(2, 10))
    >>> found = ts.recipes.fiber_bundle_test(plane)
    >>> round(float(found["dim"].median())), float(found["rate_manifold"])
    (2, 0.0)
    """
    rule = Rule(alpha, correction)
    cloud = as_points(points)
    of = np.arange(len(cloud)) if rows is None else numbers(rows, len(cloud), "rows", "points")
    seed = current().seed if seed is None else seed
    bundle = Bundle(cloud, of, k_min, k_max, reach, surrogate, seed)
    if Work(bundle, "neighbours", progress).run().interrupted:
        raise KeyboardInterrupt
    return bundle.result(rule, "point", of, {"point": of}, alpha=alpha, reach=reach, correction=correction, seed=seed)
