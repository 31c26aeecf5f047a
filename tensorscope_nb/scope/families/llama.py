"""Llama-shaped models, known by their structure and not their name.

Llama, Mistral, Qwen 2 and 3, SmolLM, Gemma 2 and 3, Phi-3, OLMo 2: blocks of ``self_attn`` with ``o_proj`` and a gated
``mlp`` with ``down_proj``, between norms whose places tell how the residual stream is added up.
"""

from __future__ import annotations

from typing import Any

from tensorscope_nb.scope.families.family import Family, has
from tensorscope_nb.scope.point import Point


def recognise(body: Any, model_type: str) -> Family | None:
    if not has(body, "embed_tokens", "layers", "norm") or not len(body.layers):
        return None
    block = body.layers[0]
    if not has(block, "self_attn", "mlp") or not has(block.self_attn, "o_proj") or not has(block.mlp, "down_proj"):
        return None
    attention, fused = _attention(block)
    mlp, pre = _mlp(block)
    if not attention or not mlp:
        return None
    norms = _norms(block)
    layer_sites = {
        "resid_pre": Point("", "input"),
        "attn.z": Point("self_attn.o_proj", "input", "heads"),
        "attn.out": Point("self_attn"),
        **norms.pop("sites"),
        **pre,
        "mlp.post": Point("mlp.down_proj", "input"),
        "mlp.out": Point("mlp"),
        "resid_post": Point(""),
    }
    return Family(
        name="llama",
        layers="layers",
        embed="embed_tokens",
        final_norm="norm",
        attention="self_attn",
        before_attention="input_layernorm" if has(block, "input_layernorm") else "",
        sites={"embed": Point("embed_tokens"), "final_norm": Point("norm")},
        layer_sites=layer_sites,
        blocks=attention | {"O": "self_attn.o_proj"} | mlp | {"mlp_out": "mlp.down_proj"},
        fused=fused,
        **norms,
    )


def _attention(block: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    if has(block.self_attn, "q_proj", "k_proj", "v_proj"):
        return {"Q": "self_attn.q_proj", "K": "self_attn.k_proj", "V": "self_attn.v_proj"}, ()
    if has(block.self_attn, "qkv_proj"):
        return {"QKV": "self_attn.qkv_proj"}, ("Q", "K", "V")
    return {}, ()


def _mlp(block: Any) -> tuple[dict[str, str], dict[str, Point]]:
    if has(block.mlp, "gate_proj", "up_proj"):
        sites = {"mlp.pre": Point("mlp.gate_proj"), "mlp.pre_linear": Point("mlp.up_proj")}
        return {"mlp_gate": "mlp.gate_proj", "mlp_in": "mlp.up_proj"}, sites
    if has(block.mlp, "gate_up_proj"):
        both = "mlp.gate_up_proj"
        sites = {"mlp.pre": Point(both, part=(0, 2)), "mlp.pre_linear": Point(both, part=(1, 2))}
        return {"mlp_in": both}, sites
    return {}, {}


def _norms(block: Any) -> dict[str, Any]:
    """Where the stream between attention and MLP can be seen, and which norms stand behind the two."""
    if has(block, "pre_feedforward_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"):  # Gemma 2, 3
        mid = Point("pre_feedforward_layernorm", "input")
    elif has(block, "input_layernorm", "post_attention_layernorm"):
        return {"sites": {"resid_mid": Point("post_attention_layernorm", "input")}}
    elif has(block, "post_attention_layernorm", "post_feedforward_layernorm"):  # OLMo 2: no norm before either part
        mid = Point("mlp", "input")
    else:
        return {
            "sites": {},
            "residual": "parallel",
            "lacks": {"resid_mid": "attention and MLP read the same stream (parallel residual)"},
        }
    after = {"after_attention": "post_attention_layernorm", "after_mlp": "post_feedforward_layernorm"}
    return {"sites": {"resid_mid": mid}, "residual": "sandwich", **after}
