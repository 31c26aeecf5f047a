"""Whether a head's values raise the tokens that they are of: the eigenvalues of W_U W_OV W_E, from the weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.composed import Array
from tensorscope_nb.recipes.composition import finite
from tensorscope_nb.scope.forward import cause_of_nan
from tensorscope_nb.scope.head_weights import head_weights
from tensorscope_nb.scope.norms import Norm

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

TOKENS = 8192  # of the vocabulary at a time


@dataclass(frozen=True)
class Copying:
    """(layer, head): Σλ / Σ|λ|, its standard deviation by chance, and why there are none where there are none."""

    score: Array
    chance: Array
    reason: str = ""


def copying(scope: Scope) -> Copying:
    """The eigenvalues are those of O (W_U W_E) V, d_head × d_head, but for zeros.

    By chance: with a random rotation R of what the head writes, Σλ = tr(R X), whose variance is ‖X‖² / d.
    """
    model, anatomy = scope.model, scope.anatomy
    shape = anatomy.n_layers, anatomy.n_heads
    if anatomy.task != "causal" or not anatomy.unembed:
        there_is = "no head that predicts the next token" if anatomy.task != "causal" else "no unembedding"
        return Copying(np.full(shape, np.nan), np.full(shape, np.nan), f"{scope.name} has {there_is}")
    embed, unembed = (model.get_parameter(f"{path}.weight").detach() for path in (anatomy.embed, anatomy.unembed))
    if not bool(embed.isfinite().all() and unembed.isfinite().all()):
        raise ValueError(f"the embeddings of {scope.name} make no eigenvalues: {cause_of_nan(model)}")
    through = torch.zeros(anatomy.d_model, anatomy.d_model, dtype=torch.float64, device=embed.device)
    for start in range(0, len(embed), TOKENS):
        through += unembed[start : start + TOKENS].float().T @ embed[start : start + TOKENS].float()
    final = Norm.of(model, anatomy.final_norm, anatomy.d_model)
    score, chance = np.full(shape, np.nan), np.full(shape, np.nan)
    for layer in range(anatomy.n_layers):
        weights = finite(head_weights(model, anatomy, layer), scope)
        out, values = weights.O, final.gain[:, None] * (through @ weights.V)
        if final.centres:
            out, values = out - out.mean(-1, keepdim=True), values - values.mean(-2, keepdim=True)
        spread = _product_norm(values, out) / (anatomy.d_model - final.centres) ** 0.5
        for head, matrix in enumerate(out @ values):
            eigenvalues = _eigenvalues(matrix)
            if (size := float(eigenvalues.abs().sum())) > 0:
                score[layer, head] = float(eigenvalues.real.sum()) / size
                chance[layer, head] = float(spread[head]) / size
    return Copying(score, chance)


def _eigenvalues(matrix: Tensor) -> Tensor:
    """Of what single precision tells from zero: the usual algorithm may fail on a matrix of low rank and rounding."""
    u, s, v = torch.linalg.svd(matrix)
    kept = s > torch.finfo(torch.float32).eps * s.max()
    return torch.linalg.eigvals((v[kept] @ u[:, kept]) * s[kept])


def _product_norm(left: Tensor, right: Tensor) -> Tensor:
    """‖left right‖ (head) of left (head, d, d_head) and right (head, d_head, d), nothing d × d being formed."""
    return ((left.mT @ left) * (right @ right.mT)).sum((-2, -1)).clamp(min=0).sqrt()
