"""One line for what goes wrong with a model's files: which file, what it is, what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open

from tensorscope_nb.models.short_names import no_owner


def check_config(folder: Path, shown: str) -> None:
    """Raises where a folder has no ``config.json``, or one that holds no JSON object."""
    file = folder / "config.json"
    if not file.is_file():
        single = next(iter(sorted(folder.glob("*.gguf"))), None)
        give = f"it holds {single.name}: give that file" if single else "give a folder written by model.save_pretrained"
        raise FileNotFoundError(f"{shown!r} has no config.json: {give}")
    json_object(file)


def json_object(file: Path) -> dict[str, Any]:
    """What a JSON file beside weights holds."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): save the model again, or fetch the file again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}, not the settings of a model: save or fetch it again")
    return found


def explained(error: Exception, shown: str, folder: Path | None, gguf: str | None = None) -> Exception:
    """The error to raise from ``error`` when the model in ``folder`` (or in its file ``gguf``) could not be loaded."""
    said = str(error)
    reason = re.sub(r"\s+", " ", said.strip().splitlines()[0]) if said.strip() else type(error).__name__
    kind = OSError if isinstance(error, OSError) else ValueError
    if gguf:
        return kind(f"{gguf} could not be read ({reason}): it is cut off, or no model that transformers reads")
    tensors = sorted(folder.glob("model*.safetensors")) if folder else []
    for file in tensors:
        if problem := safetensors_problem(file):
            return problem
    for file in sorted(folder.glob("pytorch_model*.bin")) if folder and not tensors else []:
        if fault := _pickle_fault(file):
            return fault
    if "no file named" in said:
        return FileNotFoundError(
            f"{shown!r} holds no weights: give a folder with model.safetensors (model.save_pretrained writes one)"
        )
    if "trust_remote_code" in said:
        return ValueError(
            f"{shown!r} is a model whose own code would have to run: none was run; pass trust_remote_code=True where you trust it"
        )
    if "ignore_mismatched_sizes" in said:
        return ValueError(
            f"the weights of {shown!r} do not have the shapes that its config.json says: one of the two is of another model"
        )
    if "not a valid model identifier" in said:
        return OSError(
            f"the model hub has no {shown!r} that you may read{no_owner(shown)}: check the name; "
            "a private or gated model needs token="
        )
    if "couldn't connect" in said:
        return OSError(
            f"{shown!r} was not downloaded whole, and the hub cannot be asked now: load it once with a network, or give a folder"
        )
    return kind(f"the model {shown!r} could not be loaded: {reason}")


def safetensors_problem(file: Path) -> OSError | None:
    """What keeps a file from being read as safetensors."""
    try:
        with safe_open(file, framework="pt"):
            return None
    except (SafetensorError, OSError) as error:
        said = str(error).splitlines()[0].removeprefix("Error while deserializing header: ")
        problem = OSError(f"{file} cannot be read as safetensors ({said}): it is cut off or another kind of file; fetch it again")
        problem.__cause__ = error
        return problem


def _pickle_fault(file: Path) -> Exception | None:
    """What keeps a .bin file from being read as weights and nothing else; no number of it is kept."""
    import torch

    try:
        torch.load(file, map_location="meta", weights_only=True)
    except (UnpicklingError, OSError, RuntimeError, EOFError, LookupError) as error:
        return pickle_problem(file, error)
    return None


def pickle_problem(file: Path, error: Exception) -> Exception:
    """The error to raise from ``error``, with which a file of ``torch.save`` could not be read as weights only."""
    if isinstance(error, UnpicklingError) and _is_pickle(file):
        asked = re.search(r"GLOBAL (\S+)", str(error))
        wants = f"it asks for {asked[1]}" if asked else "it holds something else"
        return ValueError(
            f"{file} is not weights only ({wants}), and to read the rest could run code: nothing was run; "
            "get the model as safetensors, or save its state_dict() alone where you trust it"
        )
    return OSError(f"{file} cannot be read: it is cut off or another kind of file; fetch it again")


def _is_pickle(file: Path) -> bool:
    """Whether it begins as a pickle or as the archive that torch puts one into."""
    with file.open("rb") as opened:
        return opened.read(1) in (b"\x80", b"P")
