"""One table per family of models: where its parts live. Adding an architecture is adding a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tensorscope_nb.scope.sites import Point

HEADS: Final = "heads"


@dataclass(frozen=True)
class Family:
    """Paths below ``layer_sites``, ``attention`` and ``blocks`` are relative to a block; ``""`` is the block itself."""

    name: str
    layers: str
    embed: str
    final_norm: str
    unembed: str
    attention: str
    sites: dict[str, Point]
    layer_sites: dict[str, Point]
    blocks: dict[str, str]
    lacks: dict[str, str] = field(default_factory=dict)  # standard sites that the family does not have, and why
    fused: tuple[str, ...] = ()  # the order of Q, K and V along the output axis of a fused projection
    transposed: bool = False  # weights are (in, out)


GPT2 = Family(
    name="gpt2",
    layers="transformer.h",
    embed="transformer.wte",
    final_norm="transformer.ln_f",
    unembed="lm_head",
    attention="attn",
    sites={
        "embed": Point("transformer.drop"),
        "final_norm": Point("transformer.ln_f"),
        "logits": Point("lm_head"),
    },
    layer_sites={
        "resid_pre": Point("", "input"),
        "attn.z": Point("attn.c_proj", "input", HEADS),
        "attn.out": Point("attn"),
        "resid_mid": Point("ln_2", "input"),
        "mlp.pre": Point("mlp.c_fc"),
        "mlp.post": Point("mlp.c_proj", "input"),
        "mlp.out": Point("mlp"),
        "resid_post": Point(""),
    },
    blocks={"QKV": "attn.c_attn", "O": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj", "norm": "ln_1"},
    lacks={"mlp.pre_linear": "its MLP is not gated"},
    fused=("Q", "K", "V"),
    transposed=True,
)

FAMILIES = {"gpt2": GPT2}  # by config.model_type
