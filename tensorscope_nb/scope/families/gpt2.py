"""GPT-2: Conv1D projections, whose weights are (in, out), and one fused projection for Q, K and V."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.scope.families.family import Family, has
from tensorscope_nb.scope.point import Point

if TYPE_CHECKING:
    from torch import nn

GPT2 = Family(
    name="gpt2",
    layers="h",
    embed="wte",
    final_norm="ln_f",
    attention="attn",
    before_attention="ln_1",
    sites={"embed": Point("drop"), "final_norm": Point("ln_f")},
    layer_sites={
        "resid_pre": Point("", "input"),
        "attn.z": Point("attn.c_proj", "input", "heads"),
        "attn.out": Point("attn"),
        "resid_mid": Point("ln_2", "input"),
        "mlp.pre": Point("mlp.c_fc"),
        "mlp.post": Point("mlp.c_proj", "input"),
        "mlp.out": Point("mlp"),
        "resid_post": Point(""),
    },
    blocks={"QKV": "attn.c_attn", "O": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"},
    lacks={"mlp.pre_linear": "its MLP is not gated"},
    fused=("Q", "K", "V"),
    transposed=True,
)


def recognise(body: nn.Module, model_type: str) -> Family | None:
    return GPT2 if model_type == "gpt2" and has(body, "wte", "drop", "h", "ln_f") else None
