"""What later heads read of what earlier heads write, from the weights alone: the composition of every two heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.composed import Array
from tensorscope_nb.scope.forward import cause_of_nan
from tensorscope_nb.scope.head_weights import HeadWeights, head_weights, norms_through, reading_norm
from tensorscope_nb.scope.rotary import rotations
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import bar

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.scope.norms import Norm

KINDS = ("Q", "K", "V")


@dataclass(frozen=True)
class Compositions:
    """(kind, source layer, source head, target layer, target head); NaN where the target cannot read the source."""

    squared: Array  # ‖A B‖² / (‖A‖² ‖B‖²)
    source_purity: Array  # Σσ⁴ of the squared singular values as shares of their sum
    target_purity: Array
    source_cubes: Array  # Σσ⁶ of the same shares
    target_cubes: Array
    dimensions: Array  # of the stream that the target can see


class Factors:
    """Maps of rank d_head by head, d_head numbers in or out, that have the norms and singular values of larger ones."""

    def __init__(self, maps: Tensor) -> None:
        """(head, d_head, d_model), in double precision."""
        gram = maps @ maps.mT
        self.maps = maps.float()
        self.squared = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        self.purity = (gram**2).sum((-2, -1)) / self.squared**2
        self.cubes = ((gram @ gram) * gram).sum((-2, -1)) / self.squared**3


def written(weights: HeadWeights) -> Tensor:
    """W_OV of each head with its reading side rotated away: ‖written B‖ = ‖W_OV B‖ for every B."""
    return torch.linalg.qr(weights.V).R @ weights.O


def read(weights: HeadWeights, norm: Norm) -> dict[str, Tensor]:
    """(head, d_head, d_model) by kind: what the queries, keys and values of each head read, the other side rotated away."""
    return {
        "Q": torch.linalg.qr(weights.K).R @ weights.Q.mT,
        "K": torch.linalg.qr(weights.Q).R @ weights.K.mT,
        "V": torch.linalg.qr(visible(weights.O, norm).mT).R @ weights.V.mT,
    }


def visible(maps: Tensor, norm: Norm) -> Tensor:
    """What is written (…, d_model) without the mean, where norms such as ``norm`` read the stream: they take it off."""
    return maps - maps.mean(-1, keepdim=True) if norm.centres else maps


def compositions(scope: Scope, offset: int | None, progress: bool | None = None) -> Compositions:
    """Of every two heads of different layers; the stacks of as many source layers are held as the memory option allows."""
    model, anatomy = scope.model, scope.anatomy
    n_layers, n_heads = anatomy.n_layers, anatomy.n_heads
    turned = None if offset is None else rotations(model, anatomy, offset)
    shape = (len(KINDS), n_layers, n_heads, n_layers, n_heads)
    found = Compositions(*(np.full(shape, np.nan) for _ in range(6)))
    at_a_time = max(1, current().memory // (12 * n_heads * anatomy.d_head * anatomy.d_model))
    starts = range(0, n_layers - 1, at_a_time)
    with bar(sum(n_layers - 1 - start for start in starts), "composition", progress) as done:
        for start in starts:
            block = range(start, min(start + at_a_time, n_layers - 1))
            sources: dict[int, Tensor] = {}
            for target in range(start + 1, n_layers):
                for norm in norms_through(model, anatomy, target - 1):
                    sources = {layer: norm.folded(maps) for layer, maps in sources.items()}
                if target - 1 in block:
                    sources[target - 1] = written(finite(head_weights(model, anatomy, target - 1), scope))
                weights = finite(head_weights(model, anatomy, target), scope)
                if turned is not None:
                    weights = HeadWeights(weights.Q @ turned[target].to(weights.Q), weights.K, weights.V, weights.O)
                _fill(found, sources, target, weights, reading_norm(model, anatomy, target))
                done.update(1)
    return found


def finite(weights: HeadWeights, scope: Scope) -> HeadWeights:
    """These, or an error that names the parameter that is not finite."""
    if not all(bool(w.isfinite().all()) for w in (weights.Q, weights.K, weights.V, weights.O)):
        raise ValueError(f"the weights of {scope.name} make no composition: {cause_of_nan(scope.model)}")
    return weights


def _fill(found: Compositions, sources: dict[int, Tensor], target: int, weights: HeadWeights, norm: Norm) -> None:
    by_kind = read(weights, norm)
    readers = [Factors(by_kind[kind]) for kind in KINDS]
    for source, maps in sources.items():
        writers = Factors(visible(maps, norm))
        flat = writers.maps.flatten(0, 1)
        for k, readers_of_kind in enumerate(readers):
            product = (flat @ readers_of_kind.maps.flatten(0, 1).T).unflatten(0, writers.maps.shape[:2])
            squares = (product.unflatten(-1, readers_of_kind.maps.shape[:2]).double() ** 2).sum((1, 3))
            both = writers.squared[:, None] * readers_of_kind.squared
            at = (k, source, slice(None), target, slice(None))
            found.squared[at] = torch.where(both > 0, squares / both, torch.nan).cpu().numpy()
            found.source_purity[at] = writers.purity[:, None].cpu().numpy()
            found.target_purity[at] = readers_of_kind.purity.cpu().numpy()
            found.source_cubes[at] = writers.cubes[:, None].cpu().numpy()
            found.target_cubes[at] = readers_of_kind.cubes.cpu().numpy()
            found.dimensions[at] = maps.shape[-1] - norm.centres
