"""``ts.load``: the packaged model, a local folder, or any id of the model hub, as a Scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorscope_nb.models.packaged import CHECKPOINT_STEPS, FOLDER, SEEDS, checkpoint_file, packaged_tokenizer
from tensorscope_nb.scope import Scope


def load(name: str | Path, *, checkpoint: int | None = None, seed: int | None = None, **kwargs: Any) -> Scope:
    """Wraps a model by name.

    ``"tiny"`` is the packaged two-layer transformer; ``checkpoint=600`` gives it as it was at a training step (0, 200,
    600, 900, 1000, 1200, 1800 or 3000), ``seed=1`` or ``seed=2`` a replicate. Anything else is a folder written by
    ``save_pretrained`` or an id of the model hub; ``kwargs`` (``dtype=``, ``device_map=``, ``revision=`` …) go to
    ``AutoModelForCausalLM.from_pretrained``, ``device=`` to ``.to``. Files are read as safetensors or weights only:
    loading runs no code from them unless you pass ``trust_remote_code=True``.

    >>> import tensorscope_nb as ts
    >>> ts.load("tiny", checkpoint=600)
    Scope(tiny@600: gpt2: 2 layers, 4 heads of 24, width 96, context 128)
    """
    if str(name) == "tiny":
        if unknown := kwargs.keys() - {"device", "dtype"}:
            raise TypeError(f"the packaged model takes checkpoint=, seed=, device= and dtype=, not {', '.join(sorted(unknown))}=")
        return _packaged(checkpoint, seed or 0, **kwargs)
    if checkpoint is not None or seed is not None:
        raise ValueError(
            "checkpoint= and seed= choose a packaged model: they go with ts.load('tiny') only; a hub model takes revision="
        )
    return _pretrained(name, **kwargs)


def _packaged(step: int | None, seed: int, device: Any = None, dtype: Any = None) -> Scope:
    if seed not in SEEDS:
        raise LookupError(f"seed is {seed}: the packaged model has seeds {', '.join(map(str, SEEDS))}")
    last = CHECKPOINT_STEPS[-1]
    steps = CHECKPOINT_STEPS if seed == 0 else (last,)
    step = last if step is None else step
    if step not in steps:
        raise LookupError(f"checkpoint is {step}: seed {seed} has checkpoints at steps {', '.join(map(str, steps))}")
    name = "tiny" + (f"@{step}" if step != last else "") + (f" seed {seed}" if seed else "")
    model = from_safetensors(checkpoint_file(seed, step))
    return Scope(model.to(device=device, dtype=dtype), packaged_tokenizer(), name=name)


def from_safetensors(file: Path) -> Any:
    """A GPT-2 of the packaged shape, in single precision, with the weights of ``file``; no random number is drawn."""
    import torch
    from safetensors.torch import load_file
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        model = GPT2LMHeadModel(GPT2Config.from_pretrained(FOLDER))
    weights = {name: weight.float() for name, weight in load_file(file).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if name != "lm_head.weight"]  # tied to the embedding
    if missing or unexpected:
        raise ValueError(f"{file} does not fit the packaged model: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model.eval()


def _pretrained(name: str | Path, device: Any = None, **kwargs: Any) -> Scope:
    from transformers import AutoModelForCausalLM

    text = str(name)
    looks_local = text.startswith((".", "/", "~")) or Path(text).exists()
    folder = Path(text).expanduser()
    if looks_local and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {text!r}: give a folder written by save_pretrained, a hub id, or 'tiny'")
    if looks_local and not (folder / "config.json").exists():
        raise FileNotFoundError(f"{text!r} has no config.json: give a folder written by model.save_pretrained")
    source = str(folder) if looks_local else text
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **kwargs)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"the model {text!r} could not be loaded: {reason} Give a local folder, or 'tiny' for the packaged model."
        ) from error
    return Scope(
        model.to(device) if device is not None else model, _tokenizer(source, kwargs), name=folder.name if looks_local else text
    )


def _tokenizer(source: str, kwargs: dict[str, Any]) -> Any:
    """The tokenizer that was saved with the model, or None: texts then raise and say so, token ids work."""
    from transformers import AutoTokenizer

    shared = {k: v for k, v in kwargs.items() if k in ("revision", "trust_remote_code", "token", "cache_dir", "local_files_only")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **shared)
    except (OSError, ValueError):
        return None
    # where there are no files, the library makes a tokenizer without a vocabulary, which reads every text as nothing
    return tokenizer if tokenizer("a", add_special_tokens=False)["input_ids"] else None
