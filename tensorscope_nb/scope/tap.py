"""The attention tap: an attention function of our own, through which q, k, v, scores and pattern can be seen and edited.

While a model is tapped, each of its attention modules carries one parameterless module per site; a tensor of the site
passes through it, so that hooks and nnsight find attention internals where they find everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.scope.point import TAP, TAPPED

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

NAME = "tensorscope"
# arguments that say nothing about the numbers (a sliding window is in the mask already)
HARMLESS = {
    "is_causal", "use_cache", "output_attentions", "output_hidden_states", "return_dict", "position_ids", "cache_position",
    "position_embeddings", "sliding_window",
}  # fmt: skip


class Site(nn.Module):
    """The identity, at a place where a tensor can be seen."""

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor


def tapped_attention(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with every step in the open: softmax(q kᵀ scaling + mask) v; (batch, head, position, d_head) in.

    ``softcap`` c, where a model has one, makes c tanh(scores / c) of the scores before the mask.
    """
    unknown = sorted(name for name, value in more.items() if value is not None and name not in HARMLESS)
    if unknown:
        raise UnsupportedModel(
            f"the attention of {type(module).__name__} takes {', '.join(unknown)}, which the tap does not know"
        )
    sites = getattr(module, TAP)
    q, k, v = sites["q"](q), sites["k"](k), sites["v"](v)
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, 1).transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = sites["scores"](scores if mask is None else scores + mask[..., : k.shape[-2]])
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    pattern = sites["pattern"](scores.softmax(-1, dtype=wide).to(q.dtype))
    weights = nn.functional.dropout(pattern, dropout, module.training)
    out = weights @ v.repeat_interleave(groups, 1)
    return out.transpose(1, 2).contiguous(), pattern


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, tapped_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def tapped(model: Any, anatomy: Anatomy) -> Iterator[None]:
    """Routes the model's attention through the tap for a block, and puts its own implementation back afterwards."""
    _register()
    before = model.config._attn_implementation
    attentions = [model.get_submodule(path) for path in anatomy.attention_paths]
    if any(TAP in attention._modules for attention in attentions):
        raise ValueError("the attention of this model is tapped already, by a trace or a recording of a model that it is part of")
    try:
        for attention in attentions:
            attention.add_module(TAP, nn.ModuleDict({name: Site() for name in TAPPED}))
        model.set_attn_implementation(NAME)
        yield
    finally:
        for attention in attentions:
            attention._modules.pop(TAP, None)
        model.set_attn_implementation(before)
