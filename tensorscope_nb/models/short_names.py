"""Short names of models on the hub: ``pythia-2.8b`` for ``EleutherAI/pythia-2.8b``."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from itertools import product

# Names as their owners spell them; {a,b} stands for either.
FAMILIES = {
    "EleutherAI": (
        "pythia-{14m,31m}", "pythia-{70m,160m,410m,1b,1.4b,2.8b,6.9b,12b}{,-deduped}",
        "gpt-neo-{125m,1.3B,2.7B}", "gpt-j-6b", "gpt-neox-20b",
    ),
    "facebook": ("opt-{125m,350m,1.3b,2.7b,6.7b,13b,30b,66b}",),
    "HuggingFaceTB": ("SmolLM{,2}-{135M,360M,1.7B}{,-Instruct}", "SmolLM3-3B{,-Base}"),
    "Qwen": (
        "Qwen2-{0.5B,1.5B,7B,72B}{,-Instruct}", "Qwen2.5-{0.5B,1.5B,3B,7B,14B,32B,72B}{,-Instruct}",
        "Qwen3-{0.6B,1.7B,4B,8B,14B}{,-Base}", "Qwen3-32B",
    ),
    "TinyLlama": ("TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B-intermediate-step-1431k-3T", "TinyLlama_v1.1"),
    "bigscience": ("bloom{,-560m,-1b1,-1b7,-3b,-7b1}",),
    "microsoft": ("phi-{1,1_5,2,4}",),
    "cerebras": ("Cerebras-GPT-{111M,256M,590M,1.3B,2.7B,6.7B,13B}",),
    "meta-llama": ("Llama-2-{7b,13b,70b}{,-chat}-hf", "Llama-3.1-{8B,70B}{,-Instruct}", "Llama-3.2-{1B,3B}{,-Instruct}"),
    "mistralai": ("Mistral-7B{,-Instruct}-v0.{1,3}",),
    "google": ("gemma-{2b,7b}{,-it}", "gemma-2-{2b,9b,27b}{,-it}"),
    "allenai": ("OLMo-{1B,7B}-hf",),
}  # fmt: skip


def hub_id(name: str) -> str:
    """The id of the hub that a short name stands for, however its letters are cased; any other name as it is.

    >>> hub_id("pythia-2.8b"), hub_id("smollm2-135m"), hub_id("gpt2")
    ('EleutherAI/pythia-2.8b', 'HuggingFaceTB/SmolLM2-135M', 'gpt2')
    """
    return _known().get(name.lower(), name)


def no_owner(name: str) -> str:
    """What to add where there is no model of that name: that no short name is spelled so, and which are near."""
    if "/" in name:
        return ""
    near = [_known()[key].rpartition("/")[2] for key in get_close_matches(name.lower(), _known(), n=3, cutoff=0.7)]
    return " (nor is that short for a known one" + (f"; near are {', '.join(near)})" if near else ")")


@cache
def _known() -> dict[str, str]:
    spelled = [(owner, name) for owner, patterns in FAMILIES.items() for pattern in patterns for name in _spelled(pattern)]
    return {name.lower(): f"{owner}/{name}" for owner, name in spelled}


def _spelled(pattern: str) -> list[str]:
    """All names that a pattern stands for."""
    parts = re.split(r"\{(.*?)\}", pattern)  # what is in braces has the odd places
    return ["".join(chosen) for chosen in product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts)))]
