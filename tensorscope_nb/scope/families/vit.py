"""ViT: an encoder of image patches, pre-norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.scope.families.family import Family, has
from tensorscope_nb.scope.point import Point

if TYPE_CHECKING:
    from torch import nn

VIT = Family(
    name="vit",
    layers="layers",
    embed="embeddings",
    final_norm="layernorm",
    attention="attention",
    before_attention="layernorm_before",
    sites={"embed": Point("embeddings"), "final_norm": Point("layernorm")},
    layer_sites={
        "resid_pre": Point("", "input"),
        "attn.z": Point("attention.o_proj", "input", "heads"),
        "attn.out": Point("attention"),
        "resid_mid": Point("layernorm_after", "input"),
        "mlp.pre": Point("mlp.fc1"),
        "mlp.post": Point("mlp.fc2", "input"),
        "mlp.out": Point("mlp"),
        "resid_post": Point(""),
    },
    blocks={
        "Q": "attention.q_proj", "K": "attention.k_proj", "V": "attention.v_proj", "O": "attention.o_proj",
        "mlp_in": "mlp.fc1", "mlp_out": "mlp.fc2",
    },
    lacks={"mlp.pre_linear": "its MLP is not gated"},
)  # fmt: skip


def recognise(body: nn.Module, model_type: str) -> Family | None:
    return VIT if model_type == "vit" and has(body, "embeddings", "layers", "layernorm") else None
