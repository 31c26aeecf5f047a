"""Composition scores by TransformerLens: run as a program, it prints those of the models that it is told as JSON.

It runs in a process of its own: what it brings along is noticed by torch and transformers, which then work differently.
"""

import copy
import json
import sys
import tempfile
from functools import partial

import torch
from model_zoo import build
from tiny_models import random_gpt2

import tensorscope_nb as ts


def without_gains(name, part, value):
    """A model whose norms of one kind have a gain of 1."""
    model = build(name)
    for path, module in model.named_modules():
        if path.endswith(part):
            torch.nn.init.constant_(module.weight, value)
    return model


MODELS = {
    "gpt2": partial(random_gpt2, n_layer=3, n_head=3),
    "tiny": lambda: ts.load("tiny").model,
    "qwen2": partial(build, "qwen2"),
    "gpt_neox": partial(build, "gpt_neox"),
    "qwen3": partial(build, "qwen3"),
    "qwen3 without gains of q and k": lambda: without_gains("qwen3", ("q_norm", "k_norm"), 1.0),
    "gemma2": partial(build, "gemma2"),
    "gemma2 without gains behind attention": lambda: without_gains("gemma2", "post_attention_layernorm", 0.0),
}


def bridge(model):
    """The same model there, with its norms folded into its weights and what it writes centred, as that library does it."""
    from transformer_lens.model_bridge import TransformerBridge

    with tempfile.TemporaryDirectory() as folder:  # it wants a name that it can read the configuration from
        model.save_pretrained(folder)
        there = TransformerBridge.boot_transformers(folder, hf_model=copy.deepcopy(model), tokenizer=None)
    there.enable_compatibility_mode(disable_warnings=True)
    return there


def main(*names):
    found = {}
    for name in names:
        there = bridge(MODELS[name]())
        scores = {kind: there.all_composition_scores(kind).scores for kind in "QKV"}  # (layer, head, layer, head)
        found[name] = {kind: s.flatten(2).flatten(0, 1).tolist() for kind, s in scores.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
