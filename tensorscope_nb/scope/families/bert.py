"""BERT: an encoder whose norms stand behind each sum (post-norm)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.scope.families.family import Family, has
from tensorscope_nb.scope.point import Point

if TYPE_CHECKING:
    from torch import nn

BERT = Family(
    name="bert",
    layers="encoder.layer",
    embed="embeddings.word_embeddings",
    attention="attention.self",
    sites={"embed": Point("embeddings")},
    layer_sites={
        "resid_pre": Point("", "input"),
        "attn.z": Point("attention.output.dense", "input", "heads"),
        "attn.out": Point("attention.output.dense"),
        "resid_mid": Point("attention.output"),
        "mlp.pre": Point("intermediate.dense"),
        "mlp.post": Point("output.dense", "input"),
        "mlp.out": Point("output.dense"),
        "resid_post": Point(""),
    },
    blocks={
        "Q": "attention.self.query", "K": "attention.self.key", "V": "attention.self.value", "O": "attention.output.dense",
        "mlp_in": "intermediate.dense", "mlp_out": "output.dense",
    },
    residual="post",
    after_attention="attention.output.LayerNorm",
    after_mlp="output.LayerNorm",
    lacks={"mlp.pre_linear": "its MLP is not gated"},
)  # fmt: skip


def recognise(body: nn.Module, model_type: str) -> Family | None:
    return BERT if model_type == "bert" and has(body, "embeddings", "encoder") else None
