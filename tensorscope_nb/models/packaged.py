"""Where the packaged transformer lives, and how its files are read."""

from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "tiny"
CHECKPOINT_STEPS = (0, 200, 600, 900, 1000, 1200, 1800, 3000)
SEEDS = (0, 1, 2)


def checkpoint_file(seed: int, step: int) -> Path:
    return FOLDER / f"seed{seed}" / f"step{step:06d}.safetensors"


@cache
def packaged_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
