"""Composition of all pairs of heads: time and memory, and the same by TransformerLens from the same folded weights."""

import resource
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import tensorscope_nb as ts
from tensorscope_nb.recipes.composition import KINDS, compositions
from tensorscope_nb.recipes.copying import copying
from tensorscope_nb.scope.head_weights import head_weights

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import line, ratios

SMOLLM2 = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
)  # fmt: skip
MODELS = {
    "12 layers x 12 heads, width 768": lambda: GPT2LMHeadModel(GPT2Config()),
    "30 layers x 9 heads, width 576": lambda: LlamaForCausalLM(LlamaConfig(**SMOLLM2)),
}


SOURCES = 2  # layers whose heads the other library composes with all others: all at once it holds 8 GiB and more


def _lens(scope):
    """Its scores of the pairs of the first source layers in the three ways, from the same folded weights."""
    try:
        from transformer_lens import FactoredMatrix
        from transformer_lens.utilities import composition_scores
    except ImportError:
        return None
    by_layer = [head_weights(scope.model, scope.anatomy, i) for i in range(scope.anatomy.n_layers)]
    q, k, v, o = (torch.stack([getattr(w, block).float() for w in by_layer]) for block in "QKVO")
    o = o - o.mean(-1, keepdim=True) if scope.anatomy.family == "gpt2" else o  # what LayerNorms read

    def scores():
        right = FactoredMatrix(q, k.mT)
        found = []
        for other in (right, right.T, FactoredMatrix(v, o)):
            rows = [composition_scores(FactoredMatrix(v[i], o[i]), other) for i in range(SOURCES)]
            found.append(torch.cat(rows).flatten(1))  # (source head, target head)
        return found

    return scores


def _ours(scope):
    return compositions(scope, None, False).squared


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB


def main() -> None:
    torch.set_num_threads(1)
    for name, build in MODELS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            scope = ts.Scope(build().eval())
        before, start = _peak(), time.perf_counter()
        found = torch.tensor(_ours(scope)).sqrt().flatten(3).flatten(1, 2)
        print(line(f"{name}: seconds", time.perf_counter() - start, "-"))
        print(line(f"{name}: memory beyond what the model took before, GiB", _peak() - before, "-"))
        lens = _lens(scope)
        if lens is None:
            print("transformer_lens is not installed (extra bench): not compared")
            continue
        for kind, ours, other in zip(KINDS, found, lens(), strict=True):
            ours = ours[: len(other)]
            gap = (ours - other)[ours.isfinite()].abs().max()
            assert gap < 1e-5, (kind, gap)
        calls = {"ours": lambda scope=scope: _ours(scope), "copying": lambda scope=scope: copying(scope)}
        times = ratios(lens, calls, 1)
        share = SOURCES / scope.anatomy.n_layers
        print(line(f"{name}: composition / TransformerLens, all layers", times["ours"] * share, "<= 1.00"))
        print(line(f"{name}: copying by eigenvalues / the same", times["copying"] * share, "-"))


if __name__ == "__main__":
    main()
