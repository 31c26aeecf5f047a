"""The weights of heads as linear maps of the residual stream, with the norms around them folded in.

In row vectors, and with x − its mean for x where the norm before attention is a LayerNorm: x Q, x K and x V are a head's query,
key and value, z O is what it adds to the stream. Left out is what depends on the position or on nothing at all: the scales
of the norms, and biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.readout import output_weights

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

NORMS_OF = {"Q": "q_norm", "K": "k_norm"}  # inside an attention module, by the names of the transformers library


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """Of one layer, in double precision; heads of a group have their shared K and V each."""

    Q: Tensor  # (head, d_model, d_head)
    K: Tensor
    V: Tensor
    O: Tensor  # (head, d_head, d_model)


def head_weights(model: nn.Module, anatomy: Anatomy, layer: int) -> HeadWeights:
    """Folded in: the gain and the centring of the last norm before attention (Q, K, V), of norms of q and k, and of a norm
    behind attention, through which goes what all heads write together (O)."""
    anatomy.require_heads()
    read = reading_norm(model, anatomy, layer)
    weights = {"O": output_weights(model, anatomy, layer).double()}
    for block in ("Q", "K", "V"):
        gained = read.gain[:, None] * _normed(model, anatomy, layer, block, _stacked(model, anatomy, layer, block))
        weights[block] = gained - gained.mean(1, keepdim=True) if read.centres else gained
    weights["O"] = Norm.of(model, anatomy.norm_behind_attention(layer), anatomy.d_model).folded(weights["O"])
    return HeadWeights(**weights)


def reading_norm(model: nn.Module, anatomy: Anatomy, layer: int) -> Norm:
    """The last norm on the way from the heads below to what attention reads; in a post-norm model it stands behind the sum
    of the layer below."""
    path = anatomy.attention_norm(layer)
    if not path and layer and _post_norm(anatomy):
        assert anatomy.table is not None
        path = f"{anatomy.names[layer - 1]}.{anatomy.table.after_mlp}"
    return Norm.of(model, path, anatomy.d_model)


def norms_through(model: nn.Module, anatomy: Anatomy, layer: int) -> list[Norm]:
    """The norms that the stream of a post-norm model goes through from where ``layer`` − 1 has added its MLP to where
    ``layer`` has added what its heads write; none in other models, whose stream is never normalised."""
    if not layer or not _post_norm(anatomy):
        return []
    assert anatomy.table is not None
    paths = f"{anatomy.names[layer - 1]}.{anatomy.table.after_mlp}", f"{anatomy.names[layer]}.{anatomy.table.after_attention}"
    return [Norm.of(model, path, anatomy.d_model) for path in paths]


def _post_norm(anatomy: Anatomy) -> bool:
    return anatomy.table is not None and anatomy.table.residual == "post"


def _stacked(model: nn.Module, anatomy: Anatomy, layer: int, block: str) -> Tensor:
    """(head, d_model, d_head) of Q, K or V."""
    parts = []
    for head in range(anatomy.n_heads):
        piece = anatomy.slice(layer, block, head)
        part = piece.of(model.get_parameter(piece.parameter).detach()).double()
        parts.append(part if piece.axis == 1 else part.T)
    return torch.stack(parts)


def _normed(model: nn.Module, anatomy: Anatomy, layer: int, block: str, weights: Tensor) -> Tensor:
    """With the norm of q or k, where there is one: of each head, or of all heads of the projection together."""
    name = NORMS_OF.get(block, "")
    module = model.get_submodule(anatomy.attention_paths[layer])._modules.get(name)
    if module is None:
        return weights
    width = cast(Tensor, module.weight).numel()
    norm = Norm.of(model, f"{anatomy.attention_paths[layer]}.{name}", width)
    if width == anatomy.d_head:
        return norm.folded(weights)
    group = anatomy.n_heads // (anatomy.n_kv_heads if block == "K" else anatomy.n_heads)
    together = weights[::group].transpose(0, 1)  # (d_model, head, d_head)
    folded = norm.folded(together.flatten(1)).unflatten(1, together.shape[1:])
    return folded.transpose(0, 1).repeat_interleave(group, 0)
