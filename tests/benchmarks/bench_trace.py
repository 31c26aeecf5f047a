"""``scope.trace`` of all residual streams, and of all patterns, against the bare forward, raw nnsight and TransformerLens."""

import copy
import importlib.util
import sys
import tempfile
from pathlib import Path

import nnsight
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tensorscope_nb as ts
from tensorscope_nb.scope.forward import inputs

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios


def _streams(scope, samples):
    with scope.trace(samples):
        return [layer.resid_post for layer in scope.layers]


def _patterns(scope, samples):
    with scope.trace(samples):
        return [layer.attn.pattern for layer in scope.layers]


def _nnsight_streams(wrapped, batch):
    with wrapped.trace(**batch):
        streams = nnsight.save([block.output for block in wrapped.transformer.h])
    return streams


def _nnsight_patterns(wrapped, batch):
    with wrapped.trace(**batch):
        patterns = nnsight.save([block.attn.output[1] for block in wrapped.transformer.h])
    return patterns


def _lens(model):
    """The same model in TransformerLens, or None where that library is missing."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:  # it wants a name that it can read the configuration from
        model.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=copy.deepcopy(model), tokenizer=None)


def _lens_reads(lens, ids, names):
    found = lens.run_with_cache(ids, names_filter=lambda name: name in names)[1]
    assert len(found) >= len(names)
    return found


def _report(name, scope, samples, rounds):
    batch = inputs(samples, scope.anatomy, "cpu", torch.float32)
    own = scope.model
    nn_plain, nn_eager, lens = nnsight.NNsight(_copy(own, "sdpa")), nnsight.NNsight(_copy(own, "eager")), _lens(own)
    calls = {
        "again": lambda: own(**batch).logits,
        "streams": lambda: _streams(scope, samples),
        "patterns": lambda: _patterns(scope, samples),
        "nnsight streams": lambda: _nnsight_streams(nn_plain, batch),
        "nnsight patterns": lambda: _nnsight_patterns(nn_eager, batch),
    }
    if lens is not None:
        for what, hook in (("streams", "hook_out"), ("patterns", "attn.hook_pattern")):
            names = [f"blocks.{i}.{hook}" for i in range(len(scope.layers))]
            calls[f"lens {what}"] = lambda names=names: _lens_reads(lens, samples.input_ids, names)
    with torch.no_grad():
        found = ratios(lambda: own(**batch).logits, calls, rounds)
    print(line(f"{name}: the bare forward again (the noise)", found["again"], "1"))
    for what in ("streams", "patterns"):
        print(line(f"{name}: trace all {what} / bare forward (SDPA)", found[what], "-"))
        print(line(f"{name}: the same / raw nnsight", found[what] / found[f"nnsight {what}"], "<= 1.00"))
        if lens is not None:
            print(line(f"{name}: the same / TransformerLens", found[what] / found[f"lens {what}"], "-"))


def _copy(model, attention):
    copied = copy.deepcopy(model)
    copied.set_attn_implementation(attention)
    return copied


def main() -> None:
    torch.set_num_threads(1)
    if importlib.util.find_spec("transformer_lens") is None:
        print("transformer_lens is not installed (extra bench): not compared")
    tiny = ts.load("tiny")
    _report("tiny, 32 x 128", tiny, ts.datasets.shakespeare(tiny, n=32, length=128), 31)
    ids = torch.randint(50257, (4, 128), generator=torch.Generator().manual_seed(0))
    model = GPT2LMHeadModel(GPT2Config()).eval()  # 124M parameters
    _report("124M, 4 x 128", ts.Scope(model), ts.Samples.tokens(ids), 7)


if __name__ == "__main__":
    main()
