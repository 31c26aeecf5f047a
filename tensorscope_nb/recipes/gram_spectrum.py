"""Eigenpairs of a Fisher matrix from inner products of gradients: exact, in one sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.krylov import ROUNDING
from tensorscope_nb.numerics.lanczos import Pairs
from tensorscope_nb.recipes.covered import said, sequences
from tensorscope_nb.recipes.eigenpairs import add_samples, add_vectors, eigen_dataset, eigen_variables
from tensorscope_nb.recipes.search import check_k
from tensorscope_nb.scope.flat import flat
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.faults import too_much
from tensorscope_nb.sweep.objective import Objective
from tensorscope_nb.sweep.reducers import Gram
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

MOST = 4096  # gradients: their matrix of inner products takes a minute to decompose


def gram_serves(scope: Scope, samples: Samples, unit: str, modules: Any) -> bool:
    """Whether the inner products of so many gradients fit: a matrix per module, in double precision."""
    n = len(samples) if unit == "sequence" else int(scope.rule.n_terms(scope.rule.prepared(samples)).sum())
    n_modules = len({name.rpartition(".")[0] for name in chosen_parameters(scope, modules)})
    return n <= MOST and 8 * n * n * n_modules <= current().memory


def by_gram(
    scope: Scope, samples: Samples, words: str, measured_in: str, *, k: int, vectors: bool, per_sample: bool, **asked: Any
) -> Answered:
    """λ and u of the n × n matrix K / N, K[i, j] = ⟨g_i, g_j⟩; the eigenvectors are v = Gᵀu / √(N λ), and zero beyond rank n."""
    gram = Gram()
    objective = Objective(scope, samples, modules=asked["modules"], reduction=asked["reduction"])
    check_k(k, objective.size)
    covered = yield GradientRequest(samples, [gram], **asked)
    n = len(covered.samples)
    total = sum(k_ij[:n, :n] for k_ij in gram.values.values()) / covered.divisor
    values, u = torch.linalg.eigh(total)
    values, u = values.flip(0).clamp(min=0)[:k], u.flip(1)[:, :k]
    rounding = ROUNDING * torch.finfo(objective.parameters[0].dtype).eps * float(values[0])  # of the gradients, too
    found = np.zeros(k)
    found[: len(values)] = values.numpy()
    pairs = Pairs(found, np.full(k, rounding), np.ones(k, bool))
    variables, coords = eigen_variables(pairs, words, measured_in), dict[str, Any]()
    done = covered.samples
    if vectors:
        units = Objective(scope, covered.samples, modules=asked["modules"], reduction=asked["reduction"])
        coords |= add_vectors(variables, _vectors(units, found, u, rounding).cpu().numpy(), k, units)
    if per_sample:
        each = np.zeros((n, k))
        each[:, : len(values)] = (n * values * u**2).numpy()
        done, _, forms = sequences(samples, covered, each)
        coords |= add_samples(variables, forms, done, words, measured_in)
    elif covered.source is not None:
        done = samples[: int(covered.source.max()) + 1]
    return eigen_dataset(variables, coords, 0, "gram: exact", objective, **said(samples, done, covered))


def _vectors(objective: Objective, values: np.ndarray, u: Tensor, rounding: float) -> Tensor:
    """Gᵀu / √(N λ), one weighted backward each; beyond the rank any direction that no gradient has."""
    size = objective.parameters[0].element_size() * objective.size * len(values)
    if size > current().memory:
        raise too_much(f"{len(values)} eigenvectors of {objective.size:,} weights", size)
    parts, rank = objective.parts(), int((values > rounding).sum())
    rows = torch.empty(len(values), objective.size, dtype=objective.parameters[0].dtype)
    for i in range(rank):
        of_samples = objective.weights * u[:, i] / np.sqrt(float(objective.weights.sum()) * values[i])
        rows[i] = flat(objective.gradient(parts, of_samples))
    generator = torch.Generator().manual_seed(current().seed)
    for i in range(rank, len(values)):
        rows[i] = torch.randn(objective.size, generator=generator).to(rows)
        for _ in range(2):  # once leaves what rounding leaves
            rows[i] -= (rows[:i] @ rows[i]) @ rows[:i]
        rows[i] /= rows[i].norm()
    return rows
