"""One checkpoint as it lies on disk: its weights, and what it says of its step and its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope_nb.models.faults import json_object, pickle_problem, safetensors_problem
from tensorscope_nb.models.told import number, rate, whole

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
SAVED = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
NESTED = ("model", "state_dict", "model_state_dict")  # where a training script puts the weights
STEP = ("step", "global_step", "iteration", "iter_num")
RATE = ("lr", "learning_rate")
OPTIMIZER = ("optimizer", "optimizer_state_dict")


@dataclass
class Stored:
    """What a checkpoint holds; steps and rates by what tells them, for there may be several."""

    weights: dict[str, Tensor]
    steps: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


def read(path: Path) -> Stored:
    """A file of weights, or a folder that ``save_pretrained`` or the Trainer of the transformers library wrote."""
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}: check the path")
    if not path.is_dir():
        return _file(path)
    saved = next((path / name for name in SAVED if (path / name).is_file()), None)
    if saved is None:
        raise FileNotFoundError(f"{path} holds no weights: a checkpoint's folder has model.safetensors or pytorch_model.bin")
    files = _shards(saved) if saved.suffix == ".json" else [saved]
    if lost := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{saved} names {lost[0].name}, and there is no such file: fetch or save the checkpoint again")
    parts = [_file(file) for file in files]
    stored = Stored({name: weight for part in parts for name, weight in part.weights.items()}, parts[0].steps, parts[0].rates)
    _trainer(path / "trainer_state.json", stored)
    return stored


def _shards(index: Path) -> list[Path]:
    names = json_object(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} names no files of weights: fetch or save the checkpoint again")
    if outside := [name for name in names.values() if Path(name).name != name]:
        raise ValueError(f"{index} names {outside[0]!r}, which is not beside it: fetch or save the checkpoint again")
    return sorted({index.parent / name for name in names.values()})


def is_saved(folder: Path) -> bool:
    """Whether a folder is one checkpoint."""
    return any((folder / name).is_file() for name in SAVED)


def rates_beside(path: Path) -> dict[int, float]:
    """The learning rates by step that a ``history.json`` beside a checkpoint tells."""
    file = path.parent / "history.json"
    told = json_object(file).get("learning_rates") if file.is_file() else None
    if not isinstance(told, dict):
        return {}
    return {whole(step, f"a step in {file}"): rate(value, f"a learning rate in {file}") for step, value in told.items()}


def _file(file: Path) -> Stored:
    stored = _safetensors(file) if file.suffix == ".safetensors" else _pickle(file)
    if not stored.weights:
        raise ValueError(f"{file} holds no tensors: it is no checkpoint of a model")
    return stored


def _safetensors(file: Path) -> Stored:
    from safetensors import safe_open

    if problem := safetensors_problem(file):
        raise problem
    with safe_open(file, framework="pt") as opened:
        stored = Stored({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 (it is no mapping)
        _notes(opened.metadata() or {}, STEP, RATE, file, stored)
    return stored


def _pickle(file: Path) -> Stored:
    """A file of ``torch.save``, read as weights and nothing else: what would run code is refused."""
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the readers of a file that is cut off raise whatever they stumble over
        raise pickle_problem(file, error) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{file} holds a {type(found).__name__}, not weights by name: save model.state_dict()")
    nested = [name for name in NESTED if isinstance(found.get(name), Mapping)]
    if len(nested) > 1:
        raise ValueError(f"{file} has weights under {nested[0]!r} and under {nested[1]!r}: save the one that is meant alone")
    if nested:
        weights, notes = found[nested[0]], found
    else:
        notes = {name: value for name, value in found.items() if name in (*STEP, *RATE) and not isinstance(value, torch.Tensor)}
        weights = {name: value for name, value in found.items() if name not in notes}
    if other := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        under = f"under {nested[0]!r}" if nested else "where a state dict is expected"
        kind = type(weights[other[0]]).__name__
        raise ValueError(f"{file} has {other[0]!r}, a {kind}, {under}: save model.state_dict(), alone or under 'model'")
    if unnamed := [name for name in weights if not isinstance(name, str)]:
        raise ValueError(f"{file} has weights under {unnamed[0]!r}, which is no name: save model.state_dict()")
    stored = Stored(dict(weights))
    _notes(notes, STEP, RATE, file, stored)
    for name in OPTIMIZER if nested else ():
        groups = found[name].get("param_groups") if isinstance(found.get(name), Mapping) else None
        listed = groups if isinstance(groups, Sequence) else ()
        rates = {number(group.get("lr")) if isinstance(group, Mapping) else None for group in listed}
        if len(rates) == 1 and None not in rates:  # groups at different rates have no one rate
            stored.rates[f"its {name!r}"] = rate(rates.pop(), f"the learning rate of {file}")
    return stored


def _notes(found: Mapping[str, Any], steps: Iterable[str], rates: Iterable[str], file: Path, stored: Stored) -> None:
    for name in steps:
        if name in found:
            stored.steps[f"its {name!r}"] = whole(found[name], f"the {name!r} of {file}")
    for name in rates:
        if name in found:
            stored.rates[f"its {name!r}"] = rate(found[name], f"the {name!r} of {file}")


def _trainer(file: Path, stored: Stored) -> None:
    """What the Trainer says of the checkpoint: its step, and the rate that it logged at just that step."""
    if not file.is_file():
        return
    state = json_object(file)
    _notes({file.name: state["global_step"]} if "global_step" in state else {}, [file.name], [], file, stored)
    logged = state.get("log_history") or []
    if not isinstance(logged, list) or not all(isinstance(entry, dict) for entry in logged):
        raise ValueError(f"{file} has a 'log_history' that is no list of what was logged: fetch or save it again")
    for entry in logged:
        if "learning_rate" in entry and entry.get("step") == state.get("global_step"):
            stored.rates[f"its {file.name!r}"] = rate(entry["learning_rate"], f"a 'learning_rate' of {file}")
