"""``ts.load``: the packaged model, one that another package carries, a local folder or file, or an id of the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorscope_nb.models.fit import put
from tensorscope_nb.models.named import NAMED, locate
from tensorscope_nb.models.packaged import (
    CHECKPOINT_STEPS,
    DIGITS,
    DIGITS_STEPS,
    SEEDS,
    checkpoint_file,
    new_tiny_model,
    packaged_tokenizer,
    step_file,
)
from tensorscope_nb.models.pretrained import pretrained
from tensorscope_nb.models.stored import read
from tensorscope_nb.scope import Scope


def load(name: str | Path, *, checkpoint: int | None = None, seed: int | None = None, **kwargs: Any) -> Scope:
    """Wraps a model by name.

    ``"tiny"`` is the packaged two-layer transformer; ``checkpoint=600`` gives it as it was at a training step (0, 200,
    600, 900, 1000, 1200, 1800 or 3000), ``seed=1`` or ``seed=2`` a replicate. ``"digits"`` is the packaged classifier of
    ``ts.datasets.digits()``, with ``checkpoint=`` 0 (as initialised), 360, 450, 675, 900, 1350 or 2700.
    ``"smollm2"`` (after ``make smollm2``) is a language model of 135M parameters, ``"minilm"`` (after ``make minilm``) a BERT
    without a head. Anything else is a folder written by ``save_pretrained``, a ``.gguf`` file (or ``gguf_file=`` in a
    folder), or an id of the model hub, and loads as the class it was saved as; the owner may be left out of well-known ones
    (``"pythia-2.8b"``, ``"opt-125m"``), unless there is a folder of that name. ``device=`` goes to ``.to``, all else
    (``dtype=``, ``device_map=``, ``revision=`` …) to that class's ``from_pretrained``. Files are read as weights only: no
    code runs from them unless you pass ``trust_remote_code=True``. Without a network, what was downloaded before still loads.

    >>> import tensorscope_nb as ts
    >>> ts.load("tiny", checkpoint=600)
    Scope(tiny@600: gpt2: 2 layers, 4 heads × 24 dimensions, width 96, context 128)
    """
    if name in ("tiny", "digits"):
        if unknown := kwargs.keys() - {"device", "dtype"}:
            raise TypeError(f"the packaged model takes checkpoint=, seed=, device= and dtype=, not {', '.join(sorted(unknown))}=")
        return (_tiny if name == "tiny" else _digits)(checkpoint, seed or 0, **kwargs)
    if checkpoint is not None or seed is not None:
        raise ValueError(
            "checkpoint= and seed= choose a packaged model: they go with ts.load('tiny') and ts.load('digits'); "
            "a hub model takes revision="
        )
    if isinstance(name, str) and name in NAMED:
        model, tokenizer, _ = pretrained(locate(name), **kwargs)
        return Scope(model, tokenizer, name=name)
    model, tokenizer, called = pretrained(name, **kwargs)
    return Scope(model, tokenizer, name=called)


def _tiny(step: int | None, seed: int, device: Any = None, dtype: Any = None) -> Scope:
    if seed not in SEEDS:
        raise LookupError(f"seed is {seed}: the packaged model has seeds {', '.join(map(str, SEEDS))}")
    last = CHECKPOINT_STEPS[-1]
    steps = CHECKPOINT_STEPS if seed == 0 else (last,)
    step = last if step is None else step
    if step not in steps:
        raise LookupError(f"checkpoint is {step}: seed {seed} has checkpoints at steps {', '.join(map(str, steps))}")
    name = "tiny" + (f"@{step}" if step != last else "") + (f" seed {seed}" if seed else "")
    model = new_tiny_model()
    put(read(checkpoint_file(seed, step)).weights, model, checkpoint_file(seed, step))
    return Scope(model.to(device=device, dtype=dtype), packaged_tokenizer(), name=name)


def _digits(step: int | None, seed: int, device: Any = None, dtype: Any = None) -> Scope:
    from tensorscope_nb.models.digits import new_digits_model

    if seed:
        raise LookupError(f"seed is {seed}: the packaged digits have seed 0; others are trained by models.digits.train_digits")
    step = DIGITS_STEPS[-1] if step is None else step
    if step not in DIGITS_STEPS:
        raise LookupError(f"checkpoint is {step}: the digits have checkpoints at steps {', '.join(map(str, DIGITS_STEPS))}")
    model = new_digits_model()
    put(read(step_file(DIGITS, step)).weights, model, step_file(DIGITS, step))
    name = "digits" + (f"@{step}" if step != DIGITS_STEPS[-1] else "")
    return Scope(model.to(device=device, dtype=dtype), name=name)
