"""Which model a command works on, and where."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.usage import UseError

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

DTYPES = ("float32", "bfloat16", "float16", "float64")


def add_model(parser: argparse.ArgumentParser, *, required: bool, default: str = "") -> None:
    parser.add_argument(
        "--model", required=required, metavar="M",
        help="tiny (packaged), a folder, an id of the model hub such as gpt2 or EleutherAI/pythia-70m, or a short name "
        f"such as pythia-70m{default}",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="a training step of the packaged model, such as 600")
    parser.add_argument("--revision", help="a branch, tag or commit of a hub model")
    parser.add_argument(
        "--device", type=_device, default="auto", metavar="{auto,cpu,cuda}",
        help="where the model runs: cuda (or cuda:1), cpu, or auto: cuda where there is one (default: auto)",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights (default: as they were saved)")


def _device(text: str) -> str:
    if text.partition(":")[0] == "mps":
        raise argparse.ArgumentTypeError("mps computes in single precision at most, and sums are taken in double here: use cpu")
    if text not in ("auto", "cpu", "cuda") and not (text.startswith("cuda:") and text[5:].isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no device: choose auto, cpu, cuda or cuda:N")
    return text


def said_of_model(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as ``loaded`` takes it."""
    return {name: getattr(given, name) for name in ("model", "checkpoint", "revision", "device", "dtype")}


def loaded(model: str, *, checkpoint: int | None, revision: str | None, device: str, dtype: str | None) -> Scope:
    import torch

    from tensorscope_nb.models import load

    there = torch.cuda.is_available()
    if device.startswith("cuda") and not there:
        raise UseError("--device is cuda, and there is none that torch can use: use cpu, or auto")
    options: dict[str, Any] = {"device": ("cuda" if there else "cpu") if device == "auto" else device}
    if dtype is not None:
        options["dtype"] = getattr(torch, dtype)
    if revision is not None:
        options["revision"] = revision
    try:
        return load(model, checkpoint=checkpoint, **options)
    except TypeError as error:  # an option that the packaged model does not take
        raise UseError(str(error)) from error
