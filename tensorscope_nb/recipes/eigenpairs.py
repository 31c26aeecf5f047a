"""Eigenpairs as a Dataset, found by products with a curvature."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.probes import Probes
from tensorscope_nb.recipes.search import Found, Search, Which
from tensorscope_nb.scope.flat import positions
from tensorscope_nb.sweep.curvature import Curvature, Matrix
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.work import Work

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.numerics.lanczos import Pairs
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.samples import Samples

CURVATURE = "loss per weight²"
PER_SAMPLE = 4  # products that what each sample adds costs per component, about
LANCZOS = "Lanczos, thick restart, full orthogonalisation"


def by_products(
    objective: Objective,
    matrix: Matrix,
    words: str,
    unit: str,
    *,
    n_samples: int,
    k: int,
    which: Which,
    tolerance: float,
    max_products: int | None,
    seed: int | None,
    chunk: int | None,
    vectors: bool,
    per_sample: bool,
    progress: bool | None,
    density: int = 0,
    density_range: tuple[float, float] | None = None,
) -> Answered:
    """The k pairs at the ends that ``which`` names, and what else is asked for; NaN where an interrupt came first."""
    curvature = Curvature(objective, matrix, chunk=chunk)
    search = Search(curvature, k, which, tolerance, max_products, seed)
    probes = Probes(curvature, density, density_range, seed)
    later = probes.total + (PER_SAMPLE * k if per_sample else 0)
    done = yield Work(search, f"{matrix} products", progress, more=later)
    complete = done is not None and done.complete
    found = search.found
    if complete:
        _warn([found])
    variables, coords = eigen_variables(found.pairs, words, unit), dict[str, Any]()
    variables["lowest"] = ((), found.lowest, "lowest curvature of all directions tried", unit)
    n_products = found.n_products
    if vectors:
        coords |= add_vectors(variables, search.vectors.cpu().numpy(), k, objective)
    if per_sample:
        forms = Forms(curvature, k)
        if complete:
            forms.vectors = search.vectors
            done = yield Work(forms, f"{matrix} by sample", progress, least=0)
            complete = done is not None and done.complete
        coords |= add_samples(variables, forms.found, objective.samples, words, unit)
    if probes.n and complete:
        done = yield Work(probes, f"{matrix} density", progress, least=0)
        if probes.density.nodes:
            more, grid = probes.variables(words, unit)
            variables, coords = variables | more, coords | grid
        n_products += probes.density.n_products
    said = _covered(objective, n_samples) | {"n_weights": objective.size, "tolerance": tolerance}
    return eigen_dataset(variables, coords, n_products, LANCZOS, objective, **said)


class Forms:
    """What each sample adds to the curvature along each of k directions, some samples after the other."""

    vectors: Tensor  # (k, size)

    def __init__(self, curvature: Curvature, k: int) -> None:
        self.curvature = curvature
        self.found = np.full((len(curvature.objective.samples), k), np.nan)

    @property
    def total(self) -> float:
        return len(self.curvature.parts)

    @property
    def nbytes(self) -> float:
        return self.curvature.nbytes

    def steps(self) -> Iterator[None]:
        for rows in self.curvature.parts:
            self.found[rows, : len(self.vectors)] = self.curvature.by_sample(self.vectors, rows).numpy()
            yield


def layer_by_layer(
    objectives: Sequence[Objective],
    matrix: Matrix,
    words: str,
    unit: str,
    *,
    progress: bool | None,
    chunk: int | None,
    **options: Any,
) -> Answered:
    """The k pairs of the diagonal block of each layer; NaN where an interrupt came first."""
    found: list[Found] = []
    total = 0.0
    for objective in objectives:  # what cannot be searched is refused before anything is
        total += Search(Curvature(objective, matrix, chunk=chunk), **options).total
    for layer, objective in enumerate(objectives):
        search = Search(Curvature(objective, matrix, chunk=chunk), **options)  # one basis at a time
        total -= search.total
        done = yield Work(search, f"{matrix} products, layer {layer}", progress, more=total)
        found.append(search.found)
        if done is None or not done.complete:
            break
    else:
        _warn(found)
    n, k = len(objectives), len(found[0].pairs.values)
    tables = {"eigenvalue": np.full((n, k), np.nan), "residual": np.full((n, k), np.nan), "converged": np.zeros((n, k), bool)}
    lowest = np.full(n, np.nan)
    for layer, each in enumerate(found):
        tables["eigenvalue"][layer], tables["residual"][layer] = each.pairs.values, each.pairs.residuals
        tables["converged"][layer], lowest[layer] = each.pairs.converged, each.lowest
    variables: dict[str, Variable] = {}
    for name, (_, _, long_name, units) in eigen_variables(found[0].pairs, words, unit).items():
        variables[name] = (("layer", "component"), tables[name], long_name, units)
    variables["top_eigenvalue"] = (("layer",), tables["eigenvalue"].max(1), f"largest {words} eigenvalue of the layer", unit)
    variables["lowest"] = (("layer",), lowest, "lowest curvature of all directions tried", unit)
    said = _covered(objectives[0], len(objectives[0].samples)) | {"tolerance": options["tolerance"]}
    said["n_weights"] = sum(objective.size for objective in objectives)
    n_products = sum(each.n_products for each in found)
    return eigen_dataset(variables, {"layer": np.arange(n)}, n_products, LANCZOS, objectives[0], **said)


def eigen_variables(pairs: Pairs, words: str, unit: str) -> dict[str, Variable]:
    dims = ("component",)
    return {
        "eigenvalue": (dims, pairs.values, f"{words} eigenvalue", unit),
        "residual": (dims, pairs.residuals, "‖C v − λ v‖: some eigenvalue lies within this of λ", unit),
        "converged": (dims, pairs.converged, "the residual is within the tolerance", ""),
    }


def add_vectors(variables: dict[str, Variable], vectors: np.ndarray, k: int, objective: Objective) -> dict[str, Any]:
    """Adds ``eigenvector``, NaN where there is none yet; its coordinates."""
    rows = np.full((k, objective.size), np.nan, dtype=vectors.dtype)
    rows[: len(vectors)] = vectors
    variables["eigenvector"] = (("component", "parameter"), rows, "eigenvector, of length 1", "")
    return {"parameter": positions(objective.scope.model, objective.chosen)}


def add_samples(variables: dict[str, Variable], forms: np.ndarray, samples: Samples, words: str, unit: str) -> dict[str, Any]:
    """Adds ``curvature_by_sample``; its coordinates."""
    long_name = f"{words} of the sample along the eigenvector, vᵀCᵢv"
    variables["curvature_by_sample"] = (("sample", "component"), forms, long_name, unit)
    return sample_coords(samples)


def eigen_dataset(
    variables: dict[str, Variable], coords: dict[str, Any], n_products: int, method: str, objective: Objective, **said: Any
) -> xr.Dataset:
    variables["n_products"] = ((), n_products, "products with vectors that it took", "")
    result = dataset(variables, coords, method=method, n_products=n_products, notes=objective.notes, **said)
    result.attrs |= {"n_products": n_products, "method": method}
    return result


def _covered(objective: Objective, n_samples: int) -> dict[str, Any]:
    units = {} if n_samples == len(objective.samples) else {"n_units": len(objective.samples)}
    return {"n_used": n_samples, "n_available": n_samples, **units}


def _warn(found: Sequence[Found]) -> None:
    missing = sum(int((~each.pairs.converged).sum()) for each in found)
    if not missing:
        return
    what = f"{missing} of {sum(len(each.pairs.values) for each in found)} eigenvalues have not converged"
    if any(each.unresolved for each in found):
        apart = max(each.asymmetry for each in found)
        remedy = (
            f"⟨u, C v⟩ and ⟨v, C u⟩ differ by {apart:.1g}: single precision resolves no more, so try model.double(); if they "
            "differ there too, a derivative is wrong"
        )
    else:
        remedy = "ask for fewer, raise max_products, or loosen tolerance"
    warnings.warn(f"{what} in {sum(each.n_products for each in found)} products: {remedy}", stacklevel=4)
