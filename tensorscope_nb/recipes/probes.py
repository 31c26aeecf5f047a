"""The density of a curvature's eigenvalues, and its trace, from random vectors: steps that a recipe asks time for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorscope_nb.numerics.density import GRID, WIDTH, Density
from tensorscope_nb.recipes.dataset import Variable
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.curvature import Curvature
from tensorscope_nb.sweep.faults import too_much

PRODUCTS = 64  # of each random vector: what they resolve is about the range of the eigenvalues over so many
FEWEST = 16


class Probes:
    """Lanczos quadrature with ``n`` random vectors; what they say so far can be read after each step."""

    def __init__(self, curvature: Curvature, n: int, ends: tuple[float, float] | None, seed: int | None) -> None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise ValueError(f"density is {n!r}: give how many random vectors to take, a whole number (0 for no density)")
        if ends is not None and not (np.shape(ends) == (2,) and np.isreal(ends).all() and -np.inf < ends[0] < ends[1] < np.inf):
            raise ValueError(f"density_range is {ends!r}: give its lower and its upper end")
        if ends is not None and not n:
            raise ValueError("density_range= is of a density, and none is asked for: pass density=10 or so too")
        if n == 1:
            raise ValueError("density is 1: one random vector has no spread, and so no interval; take at least 2")
        self.curvature, self.n, self.ends = curvature, int(n), ends
        row = curvature.size * curvature.dtype.itemsize
        self.m = min(PRODUCTS, curvature.size, int(current().memory // row))
        if n and self.m < min(FEWEST, curvature.size):
            raise too_much(f"the {FEWEST} vectors that a density takes", FEWEST * row)
        self.seed = current().seed if seed is None else seed
        self._density: Density | None = None

    @property
    def density(self) -> Density:
        """Made when it is first needed: its basis is large."""
        if self._density is None:
            c = self.curvature
            options: dict[str, Any] = {"n_probes": self.n, "m": self.m, "seed": self.seed, "dtype": c.dtype, "device": c.device}
            self._density = Density(c, c.size, **options)
        return self._density

    @property
    def total(self) -> float:
        return self.n * self.m

    @property
    def nbytes(self) -> float:
        return self.curvature.nbytes + self.m * self.curvature.size * self.curvature.dtype.itemsize

    def steps(self) -> Iterator[None]:
        return self.density.steps()

    def variables(self, words: str, unit: str) -> tuple[dict[str, Variable], dict[str, Any]]:
        """``[curvature] density`` and ``trace``, each with its 95 % Student interval over the vectors; and the coordinates."""
        from scipy.stats import t

        found = self.density
        grid = None if self.ends is None else np.linspace(*self.ends, GRID)
        grid, mean, error = found.curve(grid, None if self.ends is None else WIDTH * (self.ends[1] - self.ends[0]))
        trace, trace_error = found.trace()
        n = len(found.nodes)
        half = float(t.ppf(0.975, n - 1)) if n > 1 else np.nan
        dims, long_name = ("curvature",), f"density of {words} eigenvalues"
        per = f"1 / ({unit})"
        variables: dict[str, Variable] = {
            "density": (dims, mean, long_name, per),
            "density_ci_low": (dims, np.maximum(mean - half * error, 0.0), f"{long_name}, lower end of the 95 % interval", per),
            "density_ci_high": (dims, mean + half * error, f"{long_name}, upper end of the 95 % interval", per),
            "trace": ((), trace, f"{words} trace", unit),
            "trace_ci_low": ((), trace - half * trace_error, f"{words} trace, lower end of the 95 % interval", unit),
            "trace_ci_high": ((), trace + half * trace_error, f"{words} trace, upper end of the 95 % interval", unit),
        }
        return variables, {"curvature": ("curvature", grid, {"long_name": "eigenvalue", "units": unit})}
