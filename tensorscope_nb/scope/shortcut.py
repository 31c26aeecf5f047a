"""Attention in a trace: in the open where the block asks for q, k, v, scores or pattern, and fused everywhere else.

The model waits for the block, so when an attention module runs it is known whether any of its sites will be read.
Where gradients are on, attention stays in the open: the fused one has no second derivative on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.scope.point import TAP
from tensorscope_nb.scope.run import current_run
from tensorscope_nb.scope.tap import HARMLESS, tapped, tapped_attention

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

NAME = "tensorscope_trace"


def traced_attention(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    run = current_run()
    places: list[Any] = [(site, "output") for site in getattr(module, TAP).values()]
    needed = {name for name, value in options.items() if value is not None and name not in HARMLESS}
    if run is None or torch.is_grad_enabled() or run.wants(places) or not needed <= {"scaling", "dropout"}:
        return tapped_attention(module, q, k, v, _additive(module, q, k, mask), **options)
    run.pass_by(places)
    return sdpa_attention_forward(module, q, k, v, mask, **options)


def _additive(module: nn.Module, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
    """What the fused attention makes of its mask: no mask over several queries is a causal one, where the module is causal."""
    if mask is None and q.shape[2] > 1 and getattr(module, "is_causal", True):
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros((), dtype=q.dtype, device=q.device).where(mask, torch.finfo(q.dtype).min)


@contextmanager
def tapped_on_demand(model: Any, anatomy: Anatomy) -> Iterator[None]:
    """``tapped``, for a model whose own attention is fused as well."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if any(TAP in model.get_submodule(path)._modules for path in anatomy.attention_paths):
        raise ValueError("parts of the model are in the middle of a run of another model: end that one before this trace")
    fused = model.config._attn_implementation == "sdpa"
    with tapped(model, anatomy):
        if fused:
            AttentionInterface.register(NAME, traced_attention)
            AttentionMaskInterface.register(NAME, sdpa_mask)
            model.set_attn_implementation(NAME)
        yield
