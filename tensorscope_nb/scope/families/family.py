"""What a table says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope.point import Point


@dataclass(frozen=True)
class Family:
    """Paths are relative to the body; those of ``layer_sites``, ``attention`` and ``blocks`` to a block (``""``: itself).

    ``residual`` says how the parts of a block are added up, which is what validation checks:

    - ``sequential``: resid_pre + attn.out = resid_mid, resid_mid + mlp.out = resid_post
    - ``sandwich``: the same, with each part normalised before it is added (``after_attention``, ``after_mlp``)
    - ``post``: each sum is normalised, norm(resid_pre + attn.out) = resid_mid
    - ``parallel``: resid_pre + attn.out + mlp.out = resid_post
    """

    name: str
    layers: str
    embed: str
    attention: str  # the module that calls the attention function
    sites: dict[str, Point]
    layer_sites: dict[str, Point]
    blocks: dict[str, str]
    final_norm: str = ""
    before_attention: str = ""  # the norm of what attention reads; empty where it reads the stream as it is
    residual: Literal["sequential", "sandwich", "post", "parallel"] = "sequential"
    after_attention: str = ""
    after_mlp: str = ""
    lacks: dict[str, str] = field(default_factory=dict)  # standard sites that the family does not have, and why
    fused: tuple[str, ...] = ()  # the order of Q, K and V along the output axis of a fused projection
    interleaved: bool = False  # of a fused projection: Q, K and V of one head stand together
    transposed: bool = False  # weights are (in, out)


def has(module: nn.Module, *names: str) -> bool:
    """Whether a module has all these children."""
    return all(name in module._modules for name in names)
