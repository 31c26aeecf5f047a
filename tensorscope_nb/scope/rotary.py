"""What a rotary embedding does to a query that stands some positions after its key, as a matrix of each layer."""

from __future__ import annotations

import sys
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import call
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

APPLY = "apply_rotary_pos_emb"  # of the module that defines an attention, in the transformers library


def rotations(model: nn.Module, anatomy: Anatomy, offset: int) -> list[Tensor]:
    """R (d_head, d_head) by layer, so that x Q R (y K)ᵀ is the score of a query ``offset`` positions after the key.

    The angles are those that the model hands to its attention in a short forward of two tokens so far apart.
    """
    if not isinstance(offset, Integral) or isinstance(offset, bool) or offset < 0:
        raise ValueError(f"offset is {offset!r}: give the number of positions from key to query, 0 or more")
    if anatomy.context and offset >= anatomy.context:
        raise ValueError(f"offset is {offset}: the context is {anatomy.context}, ask for at most {anatomy.context - 1}")
    angles = _angles(model, anatomy, offset)
    found = []
    whole = torch.eye(anatomy.d_head, dtype=torch.float64)
    for path in anatomy.attention_paths:
        apply = getattr(sys.modules[type(model.get_submodule(path)).__module__], APPLY, None)
        if path not in angles or apply is None:
            raise UnsupportedModel(f"{path} has no rotary embedding that can be read: leave offset out")
        cos, sin = (angle.double().cpu() for angle in angles[path])
        n = cos.shape[-1]  # a partial embedding turns the first dimensions of a head
        basis = whole[None, :n, None, :n].expand(-1, -1, 2, -1)  # (1, direction, position, d)
        turned = apply(basis, basis, cos, sin)[0][0]
        found.append(torch.block_diag(turned[:, 1] @ turned[:, 0].T, whole[n:, n:]))
    return found


def _angles(model: nn.Module, anatomy: Anatomy, offset: int) -> dict[str, Any]:
    """(cos, sin) of the positions 0 and ``offset`` as each attention module gets them."""
    found: dict[str, Any] = {}
    hooks = []
    for path in anatomy.attention_paths:

        def keep(module: nn.Module, args: tuple, kwargs: dict, path: str = path) -> None:
            if kwargs.get("position_embeddings") is not None:
                found[path] = kwargs["position_embeddings"]

        hooks.append(model.get_submodule(path).register_forward_pre_hook(keep, with_kwargs=True))
    try:
        if anatomy.positions and anatomy.n_vocab:
            ids, positions = torch.zeros(1, 2, dtype=torch.long), torch.tensor([[0, int(offset)]])
            samples = Samples.tokens(ids, more={"position_ids": positions})
            with preserved(model), torch.no_grad():
                call(model, samples, anatomy)
    finally:
        for hook in hooks:
            hook.remove()
    return found
