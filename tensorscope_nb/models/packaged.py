"""Where the packaged models live, and how their files are named."""

from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "tiny"
CHECKPOINT_STEPS = (0, 200, 600, 900, 1000, 1200, 1800, 3000)
SEEDS = (0, 1, 2)
DIGITS = Path(__file__).parent / "data" / "digits"
DIGITS_STEPS = (0, 360, 450, 675, 900, 1350, 2700)  # what comes before 360 is a plateau


def checkpoint_file(seed: int, step: int) -> Path:
    return step_file(FOLDER / f"seed{seed}", step)


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step{step:06d}.safetensors"


@cache
def packaged_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
