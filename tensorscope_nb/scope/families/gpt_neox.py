"""GPT-NeoX (Pythia): Q, K and V of one head stand together in the fused projection; attention and MLP in parallel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tensorscope_nb.scope.families.family import Family, has
from tensorscope_nb.scope.point import Point

if TYPE_CHECKING:
    from torch import nn

PARALLEL = Family(
    name="gpt_neox",
    layers="layers",
    embed="embed_in",
    final_norm="final_layer_norm",
    attention="attention",
    before_attention="input_layernorm",
    sites={"embed": Point("embed_in"), "final_norm": Point("final_layer_norm")},
    layer_sites={
        "resid_pre": Point("", "input"),
        "attn.z": Point("attention.dense", "input", "heads"),
        "attn.out": Point("attention"),
        "mlp.pre": Point("mlp.dense_h_to_4h"),
        "mlp.post": Point("mlp.dense_4h_to_h", "input"),
        "mlp.out": Point("mlp"),
        "resid_post": Point(""),
    },
    blocks={
        "QKV": "attention.query_key_value",
        "O": "attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    },
    residual="parallel",
    lacks={"mlp.pre_linear": "its MLP is not gated", "resid_mid": "attention and MLP read the same stream (parallel residual)"},
    fused=("Q", "K", "V"),
    interleaved=True,
)
SEQUENTIAL = replace(
    PARALLEL,
    residual="sequential",
    layer_sites=PARALLEL.layer_sites | {"resid_mid": Point("post_attention_layernorm", "input")},
    lacks={"mlp.pre_linear": "its MLP is not gated"},
)


def recognise(body: Any, model_type: str) -> Family | None:
    if model_type != "gpt_neox" or not has(body, "embed_in", "layers", "final_layer_norm"):
        return None
    first: nn.Module = body.layers[0]
    return PARALLEL if getattr(first, "use_parallel_residual", True) else SEQUENTIAL
